"""A model hub on loopback that can be told to misbehave."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """`files` by path after `/resolve/main/`. Each request takes one step from `plan[path]`, if any is left.

    A step is an int (send that many bytes of the body, then cut the connection), `stall` (send half, then nothing more),
    `ignore-range` (answer 200 with everything), `no-length` (half the body, no length, a clean end), or a status as text.
    """

    files: dict[str, bytes]
    plan: dict[str, list[int | str]] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of each request for `path`, in order."""
        return [header for asked, header in self.requests if asked == path]

    def __enter__(self) -> Hub:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("/resolve/main/", 1)[-1]
            asked = self.headers.get("Range")
            hub.requests.append((path, asked))
            steps = hub.plan.get(path, [])
            step = steps.pop(0) if steps else "whole"
            if path not in hub.files:
                self.send_error(404)
            elif isinstance(step, str) and step.isdigit():
                self.send_error(int(step))
            else:
                self._send(hub.files[path], asked, step)

        def _send(self, content: bytes, asked: str | None, step: int | str) -> None:
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and step != "ignore-range" else 0
            if start >= len(content):
                self.send_error(416)
                return
            body = content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if step != "no-length":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            cut = step if isinstance(step, int) else len(body) // 2 if step in ("stall", "no-length") else len(body)
            self.wfile.write(body[:cut])
            self.wfile.flush()
            if step == "stall":
                hub.released.wait(60)
            self.close_connection = True

        log_message: Callable[..., None] = staticmethod(lambda *_: None)

    return Handler
