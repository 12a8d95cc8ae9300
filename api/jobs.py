"""Uploads on their way into a collection: one after the other in the background, with progress, cancellation and a report.

A job is written down before it is promised. One that a crash or a shutdown cut off runs again at the next start: its files are kept
until it has ended, and reading a file in twice changes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from api import logs
from api.database import Database, Row
from api.errors import NotFound, Overloaded, ShuttingDown
from api.ingesting import Order, Runner
from api.keys import Key, now
from rag.errors import Locked, RagError, StorageError
from rag.settings import Settings, overridden
from rag.types import IngestReport, Progress

if TYPE_CHECKING:
    from filelock import FileLock

UPLOADS = "uploads"
LOCK = "uploads.lock"
_STAGING = ".staging"
_KEPT = 1000                    # ended jobs that are remembered
_RETRY_S = 10.0
# Another process may write to the collection for a while: it is waited for, so often and so long each time.
_LOCKED_TRIES, _LOCKED_PAUSE_S = 120, 1.0
State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")


@dataclass(slots=True)
class Job:
    """One upload. Changed only by its own job's thread, or while it is queued under the lock of `Jobs`."""

    id: str
    tenant: str
    collection: str
    key: str
    names: tuple[str, ...]
    state: State = "queued"
    created: str = field(default_factory=now)
    started: str | None = None
    ended: str | None = None
    progress: Progress | None = None
    report: dict[str, object] | None = None
    error: dict[str, object] | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def to_dict(self) -> dict[str, object]:
        tick = self.progress
        progress = None if tick is None else {"stage": tick.stage, "done": tick.done, "total": tick.total, "unit": tick.unit}
        return {"id": self.id, "collection": self.collection, "state": self.state, "files": list(self.names),
                "created": self.created, "started": self.started, "ended": self.ended, "progress": progress,
                "report": self.report, "error": self.error}


Listener = Callable[[dict[str, object]], None]


class Jobs:
    """The line of uploads. Every call may block on the disk: for worker threads; listeners are called in the job's thread."""

    def __init__(self, database: Database, *, settings: Settings, home_of: Callable[[str], Path], run: Runner,
                 waiting: int) -> None:
        self._database = database
        self._settings = settings
        self._home_of = home_of
        self._run = run
        self._waiting = waiting
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._lock = threading.Lock()
        self._live: dict[str, Job] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self._closing = False
        self._first: FileLock | None = None

    def resume(self) -> int:
        """Puts back in line what an earlier process left undone; returns how many those are. Of several servers of one home only
        the first does so: what the others find unended is its work."""
        import filelock

        self._first = filelock.FileLock(str(self._settings.home / LOCK), timeout=0)
        try:
            self._first.acquire()
        except filelock.Timeout:
            return 0
        found = [_job(row) for row in self._database.rows("SELECT * FROM jobs WHERE ended IS NULL ORDER BY created, id")]
        self._sweep(found)
        for job in found:
            self._enqueue(job)
        return len(found)

    def _sweep(self, jobs: list[Job]) -> None:
        """Removes what uploads that broke off, or jobs that ended as the process did, left on the disk."""
        kept = {self.staging(job.tenant, job.id) for job in jobs}
        kept |= {self._home_of(job.tenant) / UPLOADS / job.collection / name for job in jobs for name in job.names}
        tenants = self._home_of("x").parent
        for home in [self._home_of(""), *(tenants.iterdir() if tenants.is_dir() else ())]:
            for left in (home / UPLOADS).glob("*/*"):
                if left in kept:
                    continue
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)

    def staging(self, tenant: str, job_id: str) -> Path:
        """Where the files of a job are received."""
        return self._home_of(tenant) / UPLOADS / _STAGING / job_id

    def check_room(self) -> None:
        """Raises Overloaded, ShuttingDown: an upload would be refused; to be asked before it is received."""
        with self._lock:
            if self._closing:
                raise ShuttingDown("The server is shutting down.", retry_after_s=5.0, hint="Try again when it is up.")
            waiting = sum(job.state == "queued" for job in self._live.values())
            if waiting > self._waiting:
                raise Overloaded(f"{waiting} uploads are waiting already.", retry_after_s=_RETRY_S, hint="Try again later.")

    def submit(self, key: Key, collection: str, *, job_id: str, names: list[str]) -> Job:
        """Accepts files that were received into `staging`. Raises as `check_room`."""
        self.check_room()
        job = Job(job_id, key.tenant, collection, key.id, tuple(names))
        self._database.write("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, NULL, NULL, ?, NULL, NULL)",
                             (job.id, job.tenant, job.collection, job.key, job.state, job.created, json.dumps(names)))
        self._enqueue(job)
        return job

    def get(self, key: Key, job_id: str) -> Job:
        """Raises NotFound: no such job, or none of this key's collections."""
        with self._lock:
            job = self._live.get(job_id)
        if job is None:
            rows = self._database.rows("SELECT * FROM jobs WHERE id = ?", (job_id,))
            job = _job(rows[0]) if rows else None
        if job is None or job.tenant != key.tenant or not key.reaches(job.collection):
            raise NotFound("There is no such job.", field="id", code="job_missing", hint="Jobs are forgotten after a while.")
        return job

    def cancel(self, key: Key, job_id: str) -> Job:
        """Stops a job: at once while it waits, after the batch in hand while it runs. One that has ended stays as it is."""
        job = self.get(key, job_id)
        job.stop.set()
        with self._lock:
            waiting = job.state == "queued" and job.id in self._live
            if waiting:
                job.state = "cancelled"         # so that its turn passes it over
        if waiting:
            self._close_job(job, "cancelled")
        return job

    def cancel_all(self, tenant: str, collection: str) -> None:
        """Stops every job of a collection that is about to go."""
        with self._lock:
            chosen = [job for job in self._live.values() if (job.tenant, job.collection) == (tenant, collection)]
        for job in chosen:
            self.cancel(Key(job.key, "", (), tenant=tenant), job.id)

    def listen(self, job: Job, listener: Listener) -> Callable[[], None]:
        """Tells `listener` what becomes of the job; the returned function ends that. One that has ended says nothing more."""
        with self._lock:
            self._listeners.setdefault(job.id, []).append(listener)

        def unlisten() -> None:
            with self._lock:
                left = [other for other in self._listeners.get(job.id, []) if other is not listener]
                self._listeners[job.id] = left
                if not left:
                    del self._listeners[job.id]

        return unlisten

    def counts(self) -> dict[str, int]:
        with self._lock:
            states = [job.state for job in self._live.values()]
        return {"queued": states.count("queued"), "running": states.count("running")}

    def idle(self) -> bool:
        with self._lock:
            return not any(job.state == "running" for job in self._live.values())

    def close(self) -> None:
        """Ends the running job after its batch; it and what waits run again at the next start. Waits for that."""
        with self._lock:
            self._closing = True
            running = list(self._live.values())
        for job in running:
            job.stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._first is not None:
            self._first.release()

    def _enqueue(self, job: Job) -> None:
        with self._lock:
            self._live[job.id] = job
            self._pool.submit(self._work, job)

    def _work(self, job: Job) -> None:
        with self._lock:
            if self._closing or job.state != "queued":
                return
            job.state, job.started = "running", now()
        try:
            self._database.write("UPDATE jobs SET state = 'running', started = ? WHERE id = ?", (job.started, job.id))
            self._tell(job)
            self._ended(job, self._ingest(job))
        except RagError as error:
            self._failed(job, error)
        except Exception as error:  # a defect must end this job, not the line
            logs.defect(error, "job")
            self._failed(job, RagError("This is a defect of ThriftRAG.", code="internal_error", hint="The server's log says more."))

    def _ingest(self, job: Job) -> IngestReport:
        """Moves the files to where files of their names always are, which is how a new version replaces the old, and reads them."""
        home = self._home_of(job.tenant)
        folder = home / UPLOADS / job.collection
        staging = self.staging(job.tenant, job.id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in job.names:
                if (staging / name).is_file():
                    os.replace(staging / name, folder / name)
        except OSError as error:
            raise StorageError(f"{folder} cannot be written: {error.strerror or error}.", hint="Check the disk.") from error
        settings = self._settings if not job.tenant else overridden(self._settings, {"home": home})
        order = Order(settings, job.collection, folder, job.names)
        for attempt in range(_LOCKED_TRIES):
            try:
                return self._run(order, lambda tick: self._ticked(job, tick), job.stop.is_set)
            except Locked:
                if attempt == _LOCKED_TRIES - 1 or job.stop.wait(_LOCKED_PAUSE_S):
                    raise
        raise AssertionError("the loop returns or raises")

    def _ticked(self, job: Job, tick: Progress) -> None:
        job.progress = tick
        self._tell(job)

    def _ended(self, job: Job, report: IngestReport) -> None:
        if report.interrupted and self._closing:
            return              # it goes on at the next start
        everything_failed = bool(report.failures) and not (report.added or report.changed or report.unchanged)
        self._close_job(job, "cancelled" if report.interrupted else "failed" if everything_failed else "done",
                        report=report.to_dict())

    def _failed(self, job: Job, error: RagError) -> None:
        if self._closing:
            return
        self._close_job(job, "cancelled" if job.stop.is_set() else "failed", error=cast("dict[str, object]", error.to_dict()))

    def _close_job(self, job: Job, state: State, *, report: dict[str, object] | None = None,
                   error: dict[str, object] | None = None) -> None:
        """Writes down how a job ended, lets go of its files, and only then says so."""
        ended = now()
        self._database.write("UPDATE jobs SET state = ?, ended = ?, report = ?, error = ? WHERE id = ?",
                             (state, ended, _dumped(report), _dumped(error), job.id))
        # This one is kept in any case: times are in whole seconds, and somebody may be waiting for it.
        self._database.write("DELETE FROM jobs WHERE ended IS NOT NULL AND id NOT IN (SELECT id FROM jobs WHERE ended IS NOT NULL "
                             "ORDER BY id = ? DESC, ended DESC, created DESC, id LIMIT ?)", (job.id, _KEPT))
        shutil.rmtree(self.staging(job.tenant, job.id), ignore_errors=True)
        if job.started is not None:
            folder = self._home_of(job.tenant) / UPLOADS / job.collection
            for name in job.names:
                (folder / name).unlink(missing_ok=True)
        with self._lock:
            job.state, job.ended, job.report, job.error, job.progress = state, ended, report, error, None
            self._live.pop(job.id, None)
        self._tell(job)

    def _tell(self, job: Job) -> None:
        with self._lock:
            listeners = list(self._listeners.get(job.id, ()))
        row = job.to_dict()
        for listener in listeners:
            listener(row)


def new_id() -> str:
    return uuid.uuid4().hex


def _dumped(value: dict[str, object] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _job(row: Row) -> Job:
    """As it was stored. One that was cut off while it ran waits again."""
    ended = row["ended"]
    return Job(
        id=str(row["id"]), tenant=str(row["tenant"]), collection=str(row["collection"]), key=str(row["key"]),
        names=tuple(json.loads(str(row["files"]))), state=cast(State, row["state"]) if ended is not None else "queued",
        created=str(row["created"]), started=None if row["started"] is None else str(row["started"]),
        ended=None if ended is None else str(ended), report=_loaded(row["report"]), error=_loaded(row["error"]))


def _loaded(cell: object) -> dict[str, object] | None:
    return None if cell is None else cast("dict[str, object]", json.loads(str(cell)))
