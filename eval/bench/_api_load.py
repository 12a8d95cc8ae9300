"""A load generator for the loopback, and a model server whose answers take as long as they are told to. Both on one event loop,
on bare sockets without a library, so that on a small machine most of the time is left for what is measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LONGEST_S = 120.0               # no request is waited for longer
_LOST = 0                       # the status of a request that got no answer


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` 0: the connection failed. `seconds` from the first byte out to the last byte in."""

    status: int
    seconds: float
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, object]:
        found = json.loads(self.body)
        return found if isinstance(found, dict) else {}


class Connection:
    """One keep-alive connection to a server; one request at a time. It is opened anew where it was lost, and where the server had
    closed it while it lay idle the request is sent once more."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Reply:
        since = time.perf_counter()
        kept = self._streams is not None
        try:
            async with asyncio.timeout(LONGEST_S):
                try:
                    status, headers, content = await self._exchange(method, path, body)
                except (ConnectionError, asyncio.IncompleteReadError) as error:
                    # The server may close a connection that lay idle at the moment it is used again: every client sends again then.
                    if not kept or (isinstance(error, asyncio.IncompleteReadError) and error.partial):
                        raise
                    await self.close()
                    status, headers, content = await self._exchange(method, path, body)
        except (OSError, EOFError, TimeoutError, ValueError):
            await self.close()
            return Reply(_LOST, time.perf_counter() - since)
        return Reply(status, time.perf_counter() - since, content, headers)

    async def begin(self, method: str, path: str, body: Mapping[str, object] | None = None) -> None:
        """Sends a request without waiting for its answer, to hang up with `close` some time later."""
        await self._send(method, path, body)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            with suppress(OSError):
                await self._streams[1].wait_closed()
        self._streams = None

    async def _send(self, method: str, path: str, body: Mapping[str, object] | None) -> asyncio.StreamReader:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=16_000_000)
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Length: {len(content)}\r\n"
        head += "Content-Type: application/json\r\n" if body is not None else ""
        self._streams[1].write(head.encode() + b"\r\n" + content)
        await self._streams[1].drain()
        return self._streams[0]

    async def _exchange(self, method: str, path: str, body: Mapping[str, object] | None) -> tuple[int, dict[str, str], bytes]:
        stream = await self._send(method, path, body)
        head = (await stream.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        content = await stream.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            await self.close()
        return int(head[0].split()[1]), headers, content


async def closed_loop(url: str, bodies: Callable[[int], tuple[str, Mapping[str, object]]], *, clients: int,
                      seconds: float) -> tuple[list[Reply], float]:
    """So many clients, each of which asks again as soon as it has its answer. `bodies`: path and body of the n-th request. Returns
    the replies and how long it took."""
    replies: list[Reply] = []
    since = time.perf_counter()
    number = 0

    async def client() -> None:
        nonlocal number
        connection = Connection(url)
        while time.perf_counter() - since < seconds:
            number += 1
            replies.append(await connection.ask("POST", *bodies(number - 1)))
        await connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return replies, time.perf_counter() - since


async def open_loop(url: str, bodies: Callable[[int], tuple[str, Mapping[str, object]]], *, rate: float,
                    seconds: float) -> list[Reply]:
    """Requests at a steady rate, whatever becomes of those before: what a crowd does. Connections that fall free are used again."""
    free: list[Connection] = []
    replies: list[Reply] = []

    async def one(number: int) -> None:
        connection = free.pop() if free else Connection(url)
        replies.append(await connection.ask("POST", *bodies(number)))
        free.append(connection)

    since = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, since + number / rate - time.perf_counter()))
            group.create_task(one(number))
    for connection in free:
        await connection.close()
    return replies


@dataclass(slots=True)
class SlowModel:
    """Speaks OpenAI's streaming protocol: `words`, with `pause_s` after each. `serving` gives its base URL."""

    words: tuple[str, ...] = ("It", " is", " not", " stated", ".")
    pause_s: float = 0.0
    asked: int = 0
    left: int = 0

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            sizes = [line.partition(":")[2] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
            await reader.readexactly(int(sizes[0]) if sizes else 0)
            if not head.startswith("POST /v1/chat/completions "):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            self.asked += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            for word in self.words:
                await self._say(writer, {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
                await asyncio.sleep(self.pause_s)
            await self._say(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            await self._say(writer, {"choices": [], "usage": {
                "prompt_tokens": 300, "completion_tokens": len(self.words), "total_tokens": 300 + len(self.words)}})
            writer.write(b"data: [DONE]\n\n")
            await writer.drain()
        except (OSError, EOFError):
            self.left += 1
        finally:
            writer.close()

    async def _say(self, writer: asyncio.StreamWriter, row: Mapping[str, object]) -> None:
        if writer.is_closing():
            raise ConnectionResetError
        writer.write(b"data: " + json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "slow",
                                             **row}).encode() + b"\n\n")
        await writer.drain()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        finally:
            server.close()


async def until(condition: Callable[[], Awaitable[bool]], *, limit_s: float, pause_s: float = 0.01) -> float | None:
    """Seconds until `condition` held, or None: it did not in time."""
    since = time.perf_counter()
    while time.perf_counter() - since < limit_s:
        if await condition():
            return time.perf_counter() - since
        await asyncio.sleep(pause_s)
    return None
