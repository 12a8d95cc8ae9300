"""Around every request: its id, its limits before anything is parsed, the headers that keep browsers safe, one log line, and the
last line of defence.

Plain ASGI, so that streams pass through as they come.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import logs, tracing
from api.errors import BodyTimeout, BodyTooLarge, defect
from api.keys import Key
from api.metrics import Metrics
from api.problems import problem
from api.settings import ServerSettings
from api.stream import Gone
from api.tracing import Tracing
from rag.errors import RagError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_UPLOAD = re.compile(r"/v1/collections/[^/]+/documents")
_LEFT = 499         # for the log alone: nobody is there to receive it
HEADERS = (
    (b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY"), (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"), (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


@dataclass(slots=True)
class _Seen:
    """What one exchange has come to so far."""

    request_id: str
    started: float = field(default_factory=time.monotonic)
    status: int = 0
    sent: int = 0
    ended: bool = False


class Edge:
    """The outermost part of the app that knows our errors."""

    def __init__(self, app: ASGIApp, *, settings: ServerSettings, metrics: Metrics, tracing: Tracing) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = _Seen(_request_id(scope))
        scope.setdefault("state", {})["request_id"] = seen.request_id
        token = logs.REQUEST.set(seen.request_id)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
                   if name in (b"traceparent", b"tracestate")}
        try:
            with self._tracing.request(_method(scope), headers) as span:
                try:
                    await self._guarded(scope, receive, _noting(send, seen), seen)
                finally:
                    self._tell(scope, seen, span)
        finally:
            logs.REQUEST.reset(token)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, seen: _Seen) -> None:
        try:
            bounded = self._bounded(scope, receive)
            await self._app(scope, bounded, send)
        except Gone:
            seen.status = _LEFT
        except RagError as error:
            await _answer(error, scope, receive, send, seen)
        except Exception as error:  # the last line of defence: a defect must still give a JSON body and a log line
            logs.defect(error, "unhandled")
            await _answer(defect(), scope, receive, send, seen)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` that counts bytes and time until the body has ended. Raises BodyTooLarge where its length is stated."""
        upload = scope["method"] == "POST" and _UPLOAD.fullmatch(scope["path"]) is not None
        limit = self._settings.upload_mb * 1_000_000 if upload else self._settings.body_kb * 1_000
        seconds = self._settings.upload_s if upload else self._settings.body_s
        stated = dict(scope["headers"]).get(b"content-length", b"")
        if stated.isdigit() and int(stated) > limit:
            raise too_large(limit)
        until = time.monotonic() + seconds
        size, complete = 0, False

        async def bounded() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
            except TimeoutError:
                raise BodyTimeout(f"The body did not arrive within {seconds:g} s.", hint="Send it faster, or less of it.") from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if size > limit:
                    raise too_large(limit)
            return message

        return bounded

    def _tell(self, scope: Scope, seen: _Seen, span: Span | None) -> None:
        route = getattr(scope.get("route"), "path", "none")
        seconds = time.monotonic() - seen.started
        status = seen.status if seen.ended or seen.status == 0 else _LEFT
        caller = scope["state"].get("caller")
        key = caller.id if isinstance(caller, Key) else None
        self._metrics.requests.labels(route, _method(scope), str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        # The route and not the path: ids and names may say what documents are about.
        logs.access(method=_method(scope), route=route, status=status, ms=round(seconds * 1000, 2), bytes=seen.sent,
                    key=key)
        tracing.ended(span, method=_method(scope), route=route, status=status, request_id=seen.request_id, key=key)


def too_large(limit: int) -> BodyTooLarge:
    shown = f"{limit / 1e6:g} MB" if limit >= 1_000_000 else f"{limit / 1e3:g} kB"
    return BodyTooLarge(f"The body is larger than the limit of {shown}.", hint="Send less at once.")


def _noting(send: Send, seen: _Seen) -> Send:
    """`send` that adds our headers to every response and remembers what went out."""
    async def noting(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.status = message["status"]
            present = {name.lower() for name, _ in message["headers"]}
            extra = [(name, value) for name, value in HEADERS if name not in present]
            message = {**message, "headers": [*message["headers"], *extra, (b"x-request-id", seen.request_id.encode())]}
        elif message["type"] == "http.response.body":
            seen.sent += len(message.get("body", b""))
            seen.ended = not message.get("more_body", False)
        await send(message)

    return noting


async def _answer(error: RagError, scope: Scope, receive: Receive, send: Send, seen: _Seen) -> None:
    """An error as the response, unless one has begun: then the connection ends, and the client sees that it is not complete."""
    if seen.status:
        return
    response = problem(error, path=scope["path"], request_id=seen.request_id)
    await response(scope, receive, send)


def _request_id(scope: Scope) -> str:
    """The client's own, if it is one that can stand in a log."""
    given = dict(scope["headers"]).get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _method(scope: Scope) -> str:
    """Methods that nobody serves are counted as one: their names are the client's."""
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "OTHER"
