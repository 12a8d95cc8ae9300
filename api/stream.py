"""Server-sent events, and how a client that leaves is noticed.

Written on the bare protocol instead of a library: a stream must end the work behind it the moment its client is gone, must go on
while the server drains, and must never log what it sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.responses import encoded

T = TypeVar("T")
# A client that takes nothing for so long is given up.
_SEND_S = 60.0
_PING = b": ping\n\n"


def event(name: str, data: object) -> bytes:
    """One event. JSON has no raw line ends, so the data is one line."""
    return b"event: " + name.encode() + b"\ndata: " + encoded(data) + b"\n\n"


class Gone(Exception):
    """The client has left: there is nobody to answer."""


async def left(receive: Receive) -> None:
    """Returns when the client has left. The body must have been read, or be none."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def result_of(future: asyncio.Future[T], *, receive: Receive, call_off: Callable[[], None]) -> T:
    """The future's result. When the client leaves first, or the server ends us, the work behind it is called off.

    Raises:
        Gone: the client has left.
    """
    gone = asyncio.ensure_future(left(receive))
    try:
        watched: set[asyncio.Future[Any]] = {future, gone}
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            return future.result()
        raise Gone
    finally:
        gone.cancel()
        if not future.done():
            call_off()
            future.cancel()


class EventStream(Response):
    """Sends events until they end. `on_end` is called exactly once, when they have ended or the client has left."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None], *, ping_s: float, on_end: Callable[[], None]) -> None:
        super().__init__(None, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        # An empty body set by the base class would end the response before it began.
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        self._events = events
        self._ping_s = ping_s
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(left(receive))
        coming: asyncio.Future[bytes] | None = None
        try:
            await _within(send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}))
            while True:
                if coming is None:
                    coming = asyncio.ensure_future(anext(self._events, b""))
                watched: set[asyncio.Future[Any]] = {coming, gone}
                await asyncio.wait(watched, timeout=self._ping_s, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    raise Gone
                if not coming.done():
                    await _within(send({"type": "http.response.body", "body": _PING, "more_body": True}))
                    continue
                body, coming = coming.result(), None
                await _within(send({"type": "http.response.body", "body": body, "more_body": bool(body)}))
                if not body:
                    return
        except TimeoutError:
            raise Gone from None
        finally:
            gone.cancel()
            self._on_end()
            if coming is not None:
                coming.cancel()
                await asyncio.wait({coming})
            await self._events.aclose()


async def _within(sending: Awaitable[None]) -> None:
    await asyncio.wait_for(sending, _SEND_S)
