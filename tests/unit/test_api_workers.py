"""Several processes behind one address, with the parent and its workers as users run them; no model is opened."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from api import server
from api.database import Database
from api.figures import Shared
from api.ingesting import Order
from api.jobs import Jobs, new_id
from api.keys import LOCAL, Terms, create
from api.metrics import Metrics
from api.presence import Presence
from api.service import Service
from api.settings import ServerSettings
from api.workers import Workers
from rag.errors import RagError
from rag.types import IngestReport, OnProgress, Progress
from tests.api_fakes import UNTIL_S, make_settings, wait_until


@dataclass
class Many:
    workers: Workers
    url: str
    thread: threading.Thread
    ended: list[bool]


@contextmanager
def many(home: Path, *, count: int = 2) -> Iterator[Many]:
    settings = make_settings(home)
    service = Service(settings, ServerSettings(port=0, workers=count, drain_s=5.0))
    listening = server.bind(service)
    service.close()
    listens, ended = threading.Event(), list[bool]()
    workers = Workers(settings, service.server, listening)
    thread = threading.Thread(target=lambda: ended.append(workers.run(on_listening=listens.set)), daemon=True)
    thread.start()
    try:
        assert listens.wait(4 * UNTIL_S)
        yield Many(workers, server.url_of(listening), thread, ended)
    finally:
        workers.stop()
        thread.join(4 * UNTIL_S)
        listening.close()
        assert not thread.is_alive()


def test_workers_share_an_address_and_limits_are_replaced_and_drain(tmp_path: Path) -> None:
    database = Database(tmp_path)
    _, key = create(database, "web", terms=Terms(scopes=("read",), per_minute=4))
    database.close()
    with many(tmp_path) as running:
        first = running.workers.pids()
        assert len(set(first)) == 2
        since, statuses = time.monotonic(), []
        for _ in range(16):         # a connection each, so that both take some
            statuses.append(httpx.get(f"{running.url}/v1/usage", headers={"Authorization": f"Bearer {key}"},
                                      timeout=UNTIL_S).status_code)
        assert set(statuses) <= {200, 429}
        assert 4 <= statuses.count(200) <= 5 + (time.monotonic() - since) / 15      # what refills meanwhile
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: first[0] not in running.workers.pids(), limit_s=4 * UNTIL_S)
        wait_until(lambda: len(list((tmp_path / "serving").glob("*.lock"))) == 2, limit_s=4 * UNTIL_S)
        assert httpx.get(f"{running.url}/healthz", timeout=UNTIL_S).status_code == 200
    assert running.ended == [True]
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"{running.url}/healthz", timeout=1)
    assert not list((tmp_path / "serving").glob("*.lock"))


def test_figures_of_workers_are_added_up(tmp_path: Path) -> None:
    databases = [Database(tmp_path) for _ in range(2)]
    presences = [Presence(tmp_path, database) for database in databases]
    several = [Metrics((), dict) for _ in range(2)]
    for at, metrics in enumerate(several):
        metrics.cost.inc(1.5 + at)
        metrics.request_seconds.labels("/v1/ask").observe(0.02)
    shared = [Shared(presence, metrics.rows, every_s=0.01) for presence, metrics in zip(presences, several, strict=True)]
    try:
        wait_until(lambda: b"thriftrag_cost_usd_total 4.0" in shared[0].text())
        text = shared[0].text().decode()
        assert 'thriftrag_request_seconds_count{route="/v1/ask"} 2.0' in text
        assert text.count("# TYPE thriftrag_request_seconds histogram") == 1
        assert "_created" not in text
        shared[1].close()
        wait_until(lambda: b"thriftrag_cost_usd_total 1.5" in shared[0].text())
    finally:
        for one in (*shared, *presences, *databases):
            one.close()
    assert list((tmp_path / "serving").iterdir()) == []


def test_workers_that_keep_dying_end_the_server(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        workers = Workers(settings, ServerSettings(workers=2, drain_s=1.0), listening)
        workers._order = "{}"       # none can start from this
        assert workers.run() is False


class Pair:
    """Two servers of one home in one process, with jobs that wait for `gate`."""

    def __init__(self, home: Path) -> None:
        self.gate = threading.Event()
        self.began = threading.Semaphore(0)
        self.at_once = 0
        self.most = 0
        self.read: list[str] = []
        self.home = home
        self.databases = [Database(home) for _ in range(2)]
        self.presences = [Presence(home, database) for database in self.databases]
        self.one, self.two = (self.jobs(at) for at in range(2))

    def jobs(self, at: int) -> Jobs:
        return Jobs(self.databases[at], settings=make_settings(self.home), home_of=lambda tenant: self.home / tenant,
                    run=self, waiting=10, presence=self.presences[at])

    def __call__(self, order: Order, on_progress: OnProgress, cancelled: Callable[[], bool]) -> IngestReport:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        on_progress(Progress("encode", 3, 9))
        self.began.release()
        while not self.gate.wait(0.01):
            if cancelled():
                self.at_once -= 1
                return IngestReport(interrupted=True)
        self.read += order.names
        self.at_once -= 1
        return IngestReport(added=1)

    def upload(self, jobs: Jobs, name: str) -> str:
        job_id = new_id()
        staging = jobs.staging("", job_id)
        staging.mkdir(parents=True)
        (staging / name).write_text("text", encoding="utf-8")
        jobs.submit(LOCAL, "default", job_id=job_id, names=[name])
        return job_id

    def close(self) -> None:
        self.gate.set()
        for jobs in (self.one, self.two):
            jobs.close()
        for database in self.databases:
            database.close()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


def test_a_job_is_seen_and_stopped_from_another_process(shared: Pair) -> None:
    running = shared.upload(shared.one, "a.txt")
    assert shared.began.acquire(timeout=UNTIL_S)
    waiting = shared.upload(shared.one, "b.txt")
    seen = shared.two.get(LOCAL, running)
    assert seen.state == "running"
    assert seen.progress == Progress("encode", 3, 9)
    assert not shared.two.here(seen)
    assert shared.one.here(seen)
    assert shared.two.cancel(LOCAL, waiting).state == "cancelled"
    assert shared.one.get(LOCAL, waiting).state == "cancelled"
    shared.two.cancel(LOCAL, running)
    wait_until(lambda: shared.one.get(LOCAL, running).state == "cancelled")
    wait_until(lambda: not shared.one.here(shared.one.get(LOCAL, waiting)))
    assert shared.read == []


def test_processes_read_in_one_after_the_other(shared: Pair) -> None:
    ids = [shared.upload(jobs, f"{at}.txt") for at, jobs in enumerate((shared.one, shared.two, shared.one, shared.two))]
    assert shared.began.acquire(timeout=UNTIL_S)
    shared.gate.set()
    wait_until(lambda: all(shared.one.get(LOCAL, job).state == "done" for job in ids))
    assert (shared.most, sorted(shared.read)) == (1, ["0.txt", "1.txt", "2.txt", "3.txt"])


def test_the_jobs_of_a_dead_process_are_taken_over_and_those_of_a_living_one_are_not(shared: Pair) -> None:
    database = shared.databases[0]
    dead = shared.upload(shared.two, "dead.txt")
    assert shared.began.acquire(timeout=UNTIL_S)
    database.write("UPDATE jobs SET owner = 'nobody' WHERE id = ?", (dead,))
    cancelled = new_id()
    database.write("INSERT INTO jobs (id, tenant, collection, key, state, created, files, owner, stop) "
                   "VALUES (?, '', 'default', 'local', 'running', '2020', '[]', 'nobody', 1)", (cancelled,))
    shared.upload(shared.two, "alive.txt")
    assert shared.one.resume() == 2
    wait_until(lambda: shared.one.get(LOCAL, cancelled).state == "cancelled")
    shared.gate.set()
    wait_until(lambda: shared.one.get(LOCAL, dead).state == "done")
    with pytest.raises(RagError):
        shared.one.get(LOCAL, "nothing")


def test_the_database_is_opened_by_several_at_once(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def opened() -> None:
        try:
            database = Database(tmp_path)
            for number in range(20):
                with database.transaction():
                    [row] = database.rows("SELECT coalesce(max(left), 0) AS n FROM rates")
                    database.write("INSERT OR REPLACE INTO rates VALUES ('k', ?, ?)", (float(row["n"] or 0) + 1, number))
            database.close()
        except (RagError, sqlite3.Error) as error:
            failures.append(error)

    threads = [threading.Thread(target=opened) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    database = Database(tmp_path)
    assert database.rows("SELECT left FROM rates") == [{"left": 80.0}]
    database.close()
