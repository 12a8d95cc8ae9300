"""A model server on the loopback that speaks OpenAI's streaming protocol and misbehaves on demand.

    with FakeServer(Script(words=("Paris", "."))) as server:
        reader = OpenAICompatibleReader(server.url, ...)

Each request takes the next script; the last one stays in force.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

Fault = Literal["none", "stall_first", "stall_mid", "drop_first", "drop_mid", "cut_mid", "garbage", "html", "error_mid",
                "no_done"]
STALL_LIMIT_S = 20.0            # a stalled response ends by itself, whatever the test does


@dataclass(frozen=True)
class Script:
    """How one chat request is answered. `repeat` sends `words` that many times; `at` is the word a mid-stream fault hits."""

    words: tuple[str, ...] = ("The", " answer", " is", " 42", ".")
    status: int = 200
    fault: Fault = "none"
    usage: Mapping[str, Any] | None = field(
        default_factory=lambda: {"prompt_tokens": 11, "completion_tokens": 6, "total_tokens": 17,
                                 "prompt_tokens_details": {"cached_tokens": 8}})
    finish: str = "stop"
    repeat: int = 1
    at: int = 2
    message: str = "scripted failure"
    headers: Mapping[str, str] = field(default_factory=dict)
    pause_s: float = 0.0


@dataclass
class Seen:
    """What a client did. `left_at`: when the server noticed that the client had closed the connection."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float
    left_at: float | None = None
    words_sent: int = 0


class FakeServer:
    """`tokenize`: which dialect of /tokenize it offers; there, a token is a word. `window`: as /models states it."""

    def __init__(self, *scripts: Script, tokenize: Literal["none", "vllm", "llama.cpp"] = "none",
                 window: int | None = None) -> None:
        self.scripts = list(scripts) or [Script()]
        self.tokenize = tokenize
        self.window = window
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        self.over = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def chats(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == "/v1/chat/completions"]

    def next_script(self) -> Script:
        with self.lock:
            return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]

    def wait_left(self, index: int = 0, *, limit_s: float = 5.0) -> float | None:
        """When the client of that chat request left, waiting for it a while."""
        until = time.monotonic() + limit_s
        while time.monotonic() < until and self.chats[index].left_at is None:
            time.sleep(0.01)
        return self.chats[index].left_at

    def __enter__(self) -> FakeServer:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], fake: FakeServer) -> None:
        self.fake = fake
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what many of these tests are about: no traceback for it."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._see({})
        if self.path == "/v1/models":
            row: dict[str, Any] = {"id": "fake", "object": "model"}
            if self.server.fake.window is not None:
                row["max_model_len"] = self.server.fake.window
            if self.server.fake.tokenize == "llama.cpp":
                row["owned_by"] = "llamacpp"
            self._json(200, {"object": "list", "data": [row]})
        elif self.path == "/props" and self.server.fake.tokenize == "llama.cpp":
            self._json(200, {"default_generation_settings": {"n_ctx": 4321}})
        else:
            self._json(404, {"error": {"message": "no such path"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen = self._see(body)
        if self.path == "/v1/chat/completions":
            self._chat(seen, self.server.fake.next_script())
        elif self.path == "/tokenize":
            self._tokenize(body)
        elif self.path == "/apply-template" and self.server.fake.tokenize == "llama.cpp":
            self._json(200, {"prompt": _templated(body["messages"])})
        else:
            self._json(404, {"detail": "Not Found"})

    def _see(self, body: dict[str, Any]) -> Seen:
        seen = Seen(self.path, body, dict(self.headers.items()), time.monotonic())
        with self.server.fake.lock:
            self.server.fake.seen.append(seen)
        return seen

    def _tokenize(self, body: dict[str, Any]) -> None:
        dialect = self.server.fake.tokenize
        if dialect == "vllm":
            text = body["prompt"] if "prompt" in body else _templated(body["messages"])
            self._json(200, {"count": len(text.split()), "max_model_len": 4096, "tokens": [1] * len(text.split())})
        elif dialect == "llama.cpp":
            self._json(200, {"tokens": [1] * len(body.get("content", "").split())})
        else:
            self._json(404, {"detail": "Not Found"})

    def _chat(self, seen: Seen, script: Script) -> None:
        if script.status != 200:
            self._json(script.status, {"error": {"message": script.message, "type": "scripted"}}, script.headers)
            return
        if script.fault == "stall_first":
            self._stall(seen)
            return
        if script.fault == "drop_first":
            self.close_connection = True
            self.connection.close()
            return
        if script.fault == "html":
            self._plain("text/html", b"<html><body>Welcome to the admin page</body></html>")
            return
        self._stream(seen, script)

    def _stream(self, seen: Seen, script: Script) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            self._event({"role": "assistant", "content": ""})
            for index, word in enumerate(script.words * script.repeat):
                if index == script.at and self._fault(seen, script):
                    return
                self._event({"content": word})
                seen.words_sent += 1
                time.sleep(script.pause_s)
            self._event({}, finish=script.finish)
            if script.usage is not None:
                self._send({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "fake", "choices": [],
                            "usage": dict(script.usage)})
            if script.fault == "no_done":
                self._stall(seen)
                return
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        except OSError:
            seen.left_at = time.monotonic()
            self.close_connection = True

    def _fault(self, seen: Seen, script: Script) -> bool:
        """Does what goes wrong in the middle of a stream; whether anything does."""
        if script.fault == "stall_mid":
            self._stall(seen)
        elif script.fault == "drop_mid":           # without the end that chunked encoding needs
            self.close_connection = True
            self.connection.close()
        elif script.fault == "cut_mid":            # a proper end of the body, but no end of the answer
            self._chunk(b"")
        elif script.fault == "garbage":
            self._chunk(b"data: {\"choices\": [{\"delta\": {\"cont\n\n")
            self._chunk(b"")
        elif script.fault == "error_mid":
            self._chunk(b"data: " + json.dumps({"error": {"message": script.message, "code": 500}}).encode() + b"\n\n")
            self._chunk(b"")
        else:
            return False
        return True

    def _stall(self, seen: Seen) -> None:
        """Silence, until the client leaves or the server is shut down."""
        self.close_connection = True
        self.connection.settimeout(0.02)
        until = time.monotonic() + STALL_LIMIT_S
        while time.monotonic() < until and not self.server.fake.over.is_set():
            try:
                if not self.connection.recv(1):
                    seen.left_at = time.monotonic()
                    return
            except TimeoutError:
                continue
            except OSError:
                seen.left_at = time.monotonic()
                return

    def _event(self, delta: dict[str, str], *, finish: str | None = None) -> None:
        self._send({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "fake",
                    "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    def _send(self, table: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(table).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, table: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._plain("application/json", json.dumps(table).encode(), status, headers)

    def _plain(self, kind: str, data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


def _templated(messages: list[dict[str, str]]) -> str:
    """A chat template of its own: two words around each message, one at the end."""
    return " ".join(f"<{m['role']}> {m['content']} <end>" for m in messages) + " <assistant>"
