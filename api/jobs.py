"""Uploads on their way into a collection: one after the other in the background, with progress, cancellation and a report.

A job is written down before it is promised. One that a crash or a shutdown cut off runs again at the next start: its files are kept
until it has ended, and reading a file in twice changes nothing.

Several processes may serve one home. A job is of the process that received it; its state, its progress and the wish to stop it are
in the database, where every other process reads and writes them. A lock lets one process at a time read in. The job of a process
that died is taken over by the next one that starts.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from api import logs
from api.database import Database, Row
from api.errors import NotFound, Overloaded, ShuttingDown
from api.ingesting import Order, Runner
from api.keys import Key, now
from api.presence import Presence
from rag.errors import Locked, RagError, StorageError
from rag.settings import Settings, overridden
from rag.types import IngestReport, Progress

UPLOADS = "uploads"
LOCK = "reading-in.lock"
_STAGING = ".staging"
_KEPT = 1000                    # ended jobs that are remembered
_RETRY_S = 10.0
_LOOK_S = 0.3                   # how late the wish of another process to stop a job may be noticed
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
    looked: float = 0.0         # when the database was last asked whether to stop

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
                 waiting: int, presence: Presence) -> None:
        self._database = database
        self._settings = settings
        self._home_of = home_of
        self._run = run
        self._waiting = waiting
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="jobs")
        self._lock = threading.Lock()
        self._live: dict[str, Job] = {}
        self._listeners: dict[str, list[Listener]] = {}
        self._presence = presence
        self._closing = False

    def resume(self) -> int:
        """Puts in line here what dead processes left undone; returns how many those are."""
        with self._database.transaction():
            alive = self._presence.alive()
            others = [owner for owner in alive if owner != self._presence.id]
            marks = ", ".join("?" * len(others))
            rows = self._database.rows(f"SELECT * FROM jobs WHERE ended IS NULL AND owner NOT IN ({marks}) ORDER BY created, id",
                                       others)
            for row in rows:
                self._database.write("UPDATE jobs SET owner = ?, state = 'queued', progress = NULL WHERE id = ?",
                                     (self._presence.id, row["id"]))
        found = [_job({**row, "state": "queued"}) for row in rows]
        if not others:          # what others are receiving is in no table yet
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
        [row] = self._database.rows("SELECT count(*) AS n FROM jobs WHERE ended IS NULL AND state = 'queued'")
        waiting = int(row["n"] or 0)
        if waiting > self._waiting:
            raise Overloaded(f"{waiting} uploads are waiting already.", retry_after_s=_RETRY_S, hint="Try again later.")

    def submit(self, key: Key, collection: str, *, job_id: str, names: list[str]) -> Job:
        """Accepts files that were received into `staging`. Raises as `check_room`."""
        self.check_room()
        job = Job(job_id, key.tenant, collection, key.id, tuple(names))
        self._database.write("INSERT INTO jobs (id, tenant, collection, key, state, created, files, owner) "
                             "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                             (job.id, job.tenant, job.collection, job.key, job.state, job.created, json.dumps(names),
                              self._presence.id))
        self._enqueue(job)
        return job

    def get(self, key: Key, job_id: str) -> Job:
        """Raises NotFound: no such job, or none of this key's collections."""
        rows = self._database.rows("SELECT * FROM jobs WHERE id = ?", (job_id,))
        job = _job(rows[0]) if rows else None
        if job is not None and job.ended is None:
            with self._lock:
                job = self._live.get(job_id, job)
        if job is None or job.tenant != key.tenant or not key.reaches(job.collection):
            raise NotFound("There is no such job.", field="id", code="job_missing", hint="Jobs are forgotten after a while.")
        return job

    def listed(self, key: Key, *, collection: str | None, under_way: bool, limit: int) -> list[Job]:
        """Of this key's collections, the newest first; in no order within a second. `under_way`: those that have not ended."""
        conditions: list[tuple[str, tuple[str, ...]]] = [("tenant = ?", (key.tenant,))]
        if key.collections:
            conditions.append((f"collection IN ({', '.join('?' * len(key.collections))})", key.collections))
        if collection is not None:
            conditions.append(("collection = ?", (collection,)))
        if under_way:
            conditions.append(("ended IS NULL", ()))
        rows = self._database.rows(
            f"SELECT * FROM jobs WHERE {' AND '.join(text for text, _ in conditions)} ORDER BY created DESC, id LIMIT ?",
            [*(value for _, values in conditions for value in values), limit])
        with self._lock:    # what runs here is further on than what was written down of it
            return [self._live.get(job.id, job) if job.ended is None else job for job in map(_job, rows)]

    def cancel(self, key: Key, job_id: str) -> Job:
        """Stops a job of whichever process: at once while it waits, after the batch in hand while it runs. One that has ended stays
        as it is."""
        job = self.get(key, job_id)
        job.stop.set()
        if self._called_off(job):
            self._close_job(job, "cancelled")
        else:
            self._database.write("UPDATE jobs SET stop = 1 WHERE id = ? AND ended IS NULL", (job.id,))
        return job

    def cancel_all(self, tenant: str, collection: str) -> None:
        """Stops every job of a collection that is about to go."""
        rows = self._database.rows("SELECT id, key FROM jobs WHERE ended IS NULL AND tenant = ? AND collection = ?",
                                   (tenant, collection))
        for row in rows:
            self.cancel(Key(str(row["key"]), "", (), tenant=tenant), str(row["id"]))

    def here(self, job: Job) -> bool:
        """Whether the job is of this process, which tells its listeners at once; of others the database has to be asked."""
        with self._lock:
            return job.id in self._live

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

    def _enqueue(self, job: Job) -> None:
        with self._lock:
            self._live[job.id] = job
            self._pool.submit(self._work, job)

    def _work(self, job: Job) -> None:
        try:
            with self._reading_in(job) as turn:
                started = now()
                if not turn or not self._database.write(
                        "UPDATE jobs SET state = 'running', started = ? WHERE id = ? AND state = 'queued'", (started, job.id)):
                    return      # it was called off meanwhile, here or elsewhere
                with self._lock:
                    job.state, job.started = "running", started
                self._tell(job)
                self._ended(job, self._ingest(job))
        except RagError as error:
            self._failed(job, error)
        except Exception as error:  # a defect must end this job, not the line
            logs.defect(error, "job")
            self._failed(job, RagError("This is a defect of ThriftRAG.", code="internal_error", hint="The server's log says more."))

    @contextmanager
    def _reading_in(self, job: Job) -> Iterator[bool]:
        """This process's turn to read in; False: the job was called off, or the server stops, before it came."""
        import filelock

        lock = filelock.FileLock(str(self._settings.home / LOCK), timeout=_LOOK_S)
        while not (self._closing or self._stopped(job)):
            try:
                with lock:
                    yield True
                return
            except filelock.Timeout:
                continue
        if not self._closing:
            if self._called_off(job):       # by somebody whose process died before it had closed the job
                self._close_job(job, "cancelled")
            with self._lock:
                self._live.pop(job.id, None)
        yield False

    def _called_off(self, job: Job) -> bool:
        """Takes a job out of the line, in one step, so that its turn passes it over; whether it was in it."""
        return bool(self._database.write("UPDATE jobs SET state = 'cancelled', stop = 1, ended = ? "
                                         "WHERE id = ? AND state = 'queued'", (now(), job.id)))

    def _stopped(self, job: Job) -> bool:
        """Whether somebody wants the job to stop, here or in another process."""
        if not job.stop.is_set() and time.monotonic() - job.looked >= _LOOK_S:
            job.looked = time.monotonic()
            if self._database.rows("SELECT 1 FROM jobs WHERE id = ? AND stop", (job.id,)):
                job.stop.set()
        return job.stop.is_set()

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
                return self._run(order, lambda tick: self._ticked(job, tick), lambda: self._stopped(job))
            except Locked:
                if attempt == _LOCKED_TRIES - 1 or job.stop.wait(_LOCKED_PAUSE_S):
                    raise
        raise AssertionError("the loop returns or raises")

    def _ticked(self, job: Job, tick: Progress) -> None:
        job.progress = tick
        self._database.write("UPDATE jobs SET progress = ? WHERE id = ?", (json.dumps(asdict(tick)), job.id))
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
        self._database.write("UPDATE jobs SET state = ?, ended = ?, report = ?, error = ?, progress = NULL WHERE id = ?",
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
    """As it was stored."""
    ended, progress = row["ended"], _loaded(row["progress"])
    return Job(
        id=str(row["id"]), tenant=str(row["tenant"]), collection=str(row["collection"]), key=str(row["key"]),
        names=tuple(json.loads(str(row["files"]))), state=cast(State, row["state"]),
        created=str(row["created"]), started=None if row["started"] is None else str(row["started"]),
        ended=None if ended is None else str(ended), report=_loaded(row["report"]), error=_loaded(row["error"]),
        progress=None if progress is None else Progress(**cast("dict[str, Any]", progress)))


def _loaded(cell: object) -> dict[str, object] | None:
    return None if cell is None else cast("dict[str, object]", json.loads(str(cell)))
