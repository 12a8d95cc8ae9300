"""A server on the loopback that speaks as much of Qdrant's REST protocol as a mirror uses, and misbehaves on demand.

    with FaultyQdrant() as server:
        server.faults = [status(503), lost]
        mirror = open_mirror(folder, settings=... qdrant_url=server.url ...)

What it stores and finds is qdrant-client's own imitation, so it shows nothing about a real server but how failures of the
connection are met. Each request takes the next fault; after the last one, all is well.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

STALL_LIMIT_S = 20.0            # a stalled answer ends by itself, whatever the test does


@dataclass(frozen=True)
class Fault:
    """`applied`: whether the request takes effect before its answer goes wrong. `answer`: None closes the connection."""

    answer: tuple[int, bytes, Mapping[str, str]] | None = None
    applied: bool = False
    stalls: bool = False
    fine: bool = False


def status(code: int, *, said: str = "out of order", headers: Mapping[str, str] | None = None) -> Fault:
    return Fault((code, json.dumps({"status": {"error": said}}).encode(), headers or {}))


dropped = Fault()
lost = Fault(applied=True)      # done, but the answer never arrives
stalled = Fault(stalls=True)
garbage = Fault((200, b"<html>not Qdrant</html>", {}))
fine = Fault(fine=True)


@dataclass
class FaultyQdrant:
    """`requests`: method and path of each; `upserted`: ids in the order they came, repeats kept; `keys`: API keys sent."""

    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    upserted: list[int] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def __enter__(self) -> FaultyQdrant:
        from qdrant_client import QdrantClient

        self.client = QdrantClient(":memory:")
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def next_fault(self) -> Fault:
        with self._lock:
            return self.faults.pop(0) if self.faults else fine

    def do(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, object]:
        """Status and result of one request."""
        from qdrant_client import models

        with self._lock:
            self.requests.append(f"{method} {path}")
            _, _, name, *rest = path.split("/")
            needs = rest != ["exists"] and (method, rest) not in (("PUT", []), ("DELETE", []))
            if needs and not self.client.collection_exists(name):
                return 404, f"Not found: Collection `{name}` doesn't exist!"
            call = _CALLS[method, *rest]
            try:
                return 200, call(self, name, body, models)
            except ValueError as error:
                return 400, str(error)


def _create(server: FaultyQdrant, name: str, body: dict[str, Any], models: Any) -> object:
    asked = models.CreateCollection.model_validate(body)
    return server.client.create_collection(name, vectors_config=asked.vectors, sparse_vectors_config=asked.sparse_vectors)


def _upsert(server: FaultyQdrant, name: str, body: dict[str, Any], models: Any) -> object:
    points = models.PointsList.model_validate(body).points
    server.upserted += [point.id for point in points]
    return server.client.upsert(name, points)


def _scroll(server: FaultyQdrant, name: str, body: dict[str, Any], models: Any) -> object:
    asked = models.ScrollRequest.model_validate(body)
    points, offset = server.client.scroll(name, scroll_filter=asked.filter, limit=asked.limit, offset=asked.offset,
                                          with_payload=asked.with_payload, with_vectors=asked.with_vector or False)
    return {"points": points, "next_page_offset": offset}


def _query(server: FaultyQdrant, name: str, body: dict[str, Any], models: Any) -> object:
    asked = models.QueryRequest.model_validate(body)
    return server.client.query_points(name, query=asked.query, using=asked.using, limit=asked.limit, query_filter=asked.filter,
                                      with_payload=False)


def _retrieve(server: FaultyQdrant, name: str, body: dict[str, Any], models: Any) -> object:
    return server.client.retrieve(name, body["ids"], with_payload=True, with_vectors=False)


def _count(server: FaultyQdrant, name: str, body: dict[str, Any], models: Any) -> object:
    return server.client.count(name, count_filter=models.CountRequest.model_validate(body).filter, exact=True)


_CALLS: dict[tuple[str, ...], Callable[[FaultyQdrant, str, dict[str, Any], Any], object]] = {
    ("GET", "exists"): lambda server, name, *_: {"exists": server.client.collection_exists(name)},
    ("GET",): lambda server, name, *_: server.client.get_collection(name),
    ("PUT",): _create,
    ("DELETE",): lambda server, name, *_: server.client.delete_collection(name),
    ("PUT", "index"): lambda server, name, *_: {"operation_id": 0, "status": "completed"},
    ("PUT", "points"): _upsert,
    ("POST", "points"): _retrieve,
    ("POST", "points", "delete"): lambda server, name, body, models: server.client.delete(name, body["points"]),
    ("POST", "points", "scroll"): _scroll,
    ("POST", "points", "count"): _count,
    ("POST", "points", "query"): _query,
}


def _handler(server: FaultyQdrant) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            server.keys.add(self.headers.get("api-key") or "")
            path = unquote(urlsplit(self.path).path)
            fault = server.next_fault()
            if fault.stalls:
                server.released.wait(STALL_LIMIT_S)
            if fault.fine or fault.applied:
                code, result = server.do(self.command, path, body)
            if fault.fine:
                found = {"result": result, "status": "ok"} if code == 200 else {"status": {"error": result}}
                self._send(code, json.dumps({**found, "time": 0.0}, default=_plain).encode(), {})
            elif fault.answer is not None:
                self._send(*fault.answer)
            self.close_connection = True

        def _send(self, code: int, content: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(code)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = _serve

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


def _plain(value: Any) -> object:
    return value.model_dump(mode="json", exclude_none=True)
