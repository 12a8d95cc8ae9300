"""All that requests share, put together once: settings, models, collections, lanes, limits, ledger, jobs."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar
from urllib.parse import urlsplit

from fastapi import Request

from api import audit, keys, tracing
from api.asking import Books
from api.database import Database
from api.errors import Forbidden, RateLimited, ShuttingDown, Unauthorized
from api.figures import Shared
from api.ingesting import Runner, in_child
from api.jobs import Jobs
from api.keys import LOCAL, Key
from api.lanes import Lane
from api.limits import Ceilings, Places, Rates, SharedRates
from api.metrics import Metrics
from api.presence import Presence
from api.settings import ServerSettings
from api.shelf import Models, Shelf
from api.strict import forbidden
from api.tracing import Tracing
from api.usage import Ledger
from indexers.encoders import Encoder
from rag.llm import Reader
from rag.settings import Settings

T = TypeVar("T")
# Who has no valid key. So many refusals a minute are written to the audit log: nobody can fill the disk with them.
_STRANGER = Key(id="nobody", name="nobody", scopes=(), per_minute=60)
_DOORS = 4


class Service:
    """Opens the database at once and everything else when it is needed. `close` ends it."""

    def __init__(self, settings: Settings, server: ServerSettings, *, encoder: Encoder | None = None, reader: Reader | None = None,
                 ingest: Runner = in_child, traces: Tracing | None = None) -> None:
        """`encoder` and `reader`: instead of those of the settings; `traces`: instead of those of `otlp_endpoint`.

        Raises:
            StorageError, SnapshotMismatch: the database cannot be used. ConfigError: traces need what is not installed.
        """
        self.settings = settings
        self.server = server
        self.database = Database(settings.home)
        self.presence = Presence(settings.home, self.database)
        self.ledger = Ledger(self.database)
        self.models = Models(settings, named=server.named_models(), encoder=encoder, reader=reader)
        self.shelf = Shelf(settings, self.models, limit=server.open_collections)
        self.asks = Lane("ask", threads=server.ask_threads, waiting=server.ask_waiting)
        self.searches = Lane("search", threads=server.search_threads or max(1, (os.cpu_count() or 1) // 2),
                             waiting=server.search_waiting)
        self.upkeep = Lane("upkeep", threads=server.upkeep_threads, waiting=server.upkeep_waiting)
        self.lanes = (self.asks, self.searches, self.upkeep)
        self.jobs = Jobs(self.database, settings=settings, home_of=self.shelf.home_of, run=ingest, waiting=server.jobs_waiting,
                         presence=self.presence)
        self.metrics = Metrics(self.lanes, self.jobs.counts, self.models.breakers)
        self.tracing = tracing.opened(server.otlp_endpoint) if traces is None else traces
        self.figures = Shared(self.presence, self.metrics.rows) if server.workers > 1 else None
        self.rates = SharedRates(self.database)
        self.places = Places(self.database, self.presence)
        self.ceilings = Ceilings(self.ledger, self.database, self.presence)
        self.draining = False
        self.closed = False
        self.hidden = {str(settings.home): "HOME", str(settings.models): "MODELS"}
        self._refusals = Rates()
        self._door = ThreadPoolExecutor(_DOORS, thread_name_prefix="door")
        self._under_way: set[threading.Event] = set()
        self._lock = threading.Lock()

    async def at_door(self, work: Callable[[], T]) -> T:
        """Short work on a thread that long work cannot keep busy: who calls, what is left, the next bytes of an upload."""
        # With the context of the request, as its logs and spans need it.
        return await asyncio.get_running_loop().run_in_executor(self._door, copy_context().run, work)

    async def admit(self, request: Request, *, scope: str) -> Key:
        """Who calls, if they may, and if they have not called too often.

        Raises:
            Unauthorized, Forbidden, RateLimited, ShuttingDown.
        """
        if self.draining:
            raise ShuttingDown("The server is shutting down.", retry_after_s=5.0, hint="Try again when it is up.")
        self._refuse_foreign_page(request)
        header = request.headers.get("authorization", "")
        request_id = str(request.state.request_id)
        key = await self.at_door(lambda: self._identify(header, request_id))
        if key is LOCAL:
            _require_loopback_name(request.headers.get("host", ""))
        if not key.may(scope):
            await self.at_door(lambda: self._note_refusal(key, "scope_missing", target=scope, request_id=request_id))
            raise forbidden(scope)
        if key.per_minute:
            await self.at_door(lambda: self.rates.take(key))
        return key

    async def place(self, key: Key) -> Callable[[], None]:
        """What gives back the place of one request of this key. Raises RateLimited: it has as many under way as it may."""
        return await self.at_door(lambda: self.places.take(key)) if key.at_once else self.places.take(key)

    def books(self, key: Key, request: Request, endpoint: str) -> Books:
        return Books(self.ledger, self.metrics, key, str(request.state.request_id), endpoint, self.tracing)

    def record(self, action: str, *, key: Key, target: str = "", outcome: str = "done", request_id: str = "") -> None:
        """A line in the audit log. Blocks on the disk."""
        audit.record(self.settings.home, action, key=key.id, target=target, outcome=outcome, request_id=request_id)

    def started(self) -> threading.Event:
        """The flag that calls off one piece of work; hand it to `ended` when that is over."""
        flag = threading.Event()
        with self._lock:
            self._under_way.add(flag)
        return flag

    def ended(self, flag: threading.Event) -> None:
        with self._lock:
            self._under_way.discard(flag)

    def under_way(self) -> int:
        """How many questions have begun, or wait, whose work has not ended."""
        with self._lock:
            return len(self._under_way)

    def ready(self) -> str | None:
        """Why requests cannot be served now, or None. Blocks on the disk."""
        if self.draining:
            return "the server is shutting down"
        self.database.rows("SELECT 1")
        return None

    def figures_text(self) -> bytes:
        """What Prometheus is told: of this process, or of all its fellow workers together. Blocks on the disk."""
        return self.metrics.text() if self.figures is None else self.figures.text()

    def close(self) -> None:
        """Calls off what is still under way, waits for it and lets go of everything. Calling it again does nothing."""
        if self.closed:
            return
        self.draining = self.closed = True
        with self._lock:
            flags = list(self._under_way)
        for flag in flags:
            flag.set()
        for lane in self.lanes:
            lane.close(wait=True)
        self.jobs.close()
        self.shelf.close()
        self._door.shutdown(wait=True)
        if self.figures is not None:
            self.figures.close()
        self.tracing.close()
        self.presence.close()
        self.database.close()

    def _identify(self, header: str, request_id: str) -> Key:
        """A key is asked for as soon as one was ever made, and wherever others than this machine can call."""
        scheme, _, typed = header.partition(" ")
        if not self.asks_for_keys():
            return LOCAL
        found = keys.check(self.database, typed.strip()) if scheme.lower() == "bearer" else None
        if found is not None:
            return found
        self._note_refusal(_STRANGER, "key_invalid" if header else "key_missing", request_id=request_id)
        if not header:
            raise Unauthorized("This server asks for an API key.", code="key_missing",
                               hint="Send the header Authorization: Bearer KEY; `thriftrag keys create` makes one.")
        raise Unauthorized("The API key is not valid.", hint="Check it, or ask for a new one: keys can be revoked.")

    def _note_refusal(self, key: Key, outcome: str, *, target: str = "", request_id: str) -> None:
        """A line in the audit log, but for those of a minute that has had many."""
        try:
            self._refusals.take(_STRANGER)
        except RateLimited:
            return
        self.record("refused", key=key, target=target, outcome=outcome, request_id=request_id)

    def asks_for_keys(self) -> bool:
        return not is_loopback(self.server.host) or keys.exist(self.database)

    def _refuse_foreign_page(self, request: Request) -> None:
        """A web page of another origin must not reach a server on its visitor's machine, whatever it sends."""
        origin = request.headers.get("origin")
        if origin is None or origin in self.server.origins():
            return
        if origin.partition("://")[2] != request.headers.get("host", ""):
            raise Forbidden("Web pages of other origins may not call this server.", code="origin_refused",
                            hint="Allow the origin with the server setting cors_origins.")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _require_loopback_name(host: str) -> None:
    """Without keys, only who calls this machine by its own name: a name that a stranger points here is a trick on a browser."""
    if not is_loopback(_hostname(host)):
        raise Forbidden("Without API keys this server answers only to localhost.", code="host_refused",
                        hint="Call it by http://127.0.0.1, or make a key with `thriftrag keys create`.")


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
