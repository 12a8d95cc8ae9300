"""Several processes behind one address: the parent binds it, starts the workers, replaces those that die, and ends them in order.

A worker is told everything in one JSON object on its stdin, keys included, and drains when that stream ends: on the parent's word,
or because the parent is gone. Signals reach the parent alone. What the workers share they share through the home: keys, ledger,
limits and jobs in the database, collections and figures on the disk. Queues, open models and circuits are of each process.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from api.handover import settings_of, settings_row
from api.settings import ServerSettings
from rag.settings import Settings

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from api.workers import main; sys.exit(main())"
_READY = "ready"
_POLL_S = 0.1
_MARGIN_S = 10.0                # beyond `drain_s`, until a worker that does not end is killed
# A worker that dies so often in so short a time will die again: then the server ends, and says so.
_DEATHS, _WITHIN_S = 5, 60.0
_log = logging.getLogger("api.workers")


@dataclass(slots=True)
class _Worker:
    process: subprocess.Popen[str]
    ready: threading.Event = field(default_factory=threading.Event)


class Workers:
    """Runs until `stop` or a signal. `listening` is a bound socket, which it closes as it stops: who calls then is refused."""

    def __init__(self, settings: Settings, server: ServerSettings, listening: socket.socket, *, verbose: bool = False) -> None:
        self._order = json.dumps({"settings": settings_row(settings), "server": server.model_dump(mode="json"),
                                  "socket": listening.fileno(), "verbose": verbose})
        self._listening = listening
        self._count = server.workers
        self._drain_s = server.drain_s
        self._workers: list[_Worker] = []
        self._deaths: list[float] = []
        self._stopping = threading.Event()
        self._kill = threading.Event()

    def run(self, *, on_listening: Callable[[], None] | None = None) -> bool:
        """Serves; in the main thread signals end it. Whether it ended in order: False if workers kept dying or had to be killed."""
        with _signals(self._on_signal):
            self._workers = [self._started() for _ in range(self._count)]
            told = False
            while not self._stopping.wait(_POLL_S):
                if not told and all(worker.ready.is_set() for worker in self._workers):
                    told = True
                    if on_listening is not None:
                        on_listening()
                if not self._replaced():
                    self._ended()
                    return False
            return self._ended()

    def stop(self) -> None:
        """Begins to drain. From any thread."""
        self._stopping.set()

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers]

    def _on_signal(self, number: int, _: object) -> None:
        """The first signal drains; a second Ctrl-C leaves at once."""
        if self._stopping.is_set() and number == signal.SIGINT:
            self._kill.set()
        self._stopping.set()

    def _started(self) -> _Worker:
        path = json.dumps([os.path.abspath(entry) for entry in sys.path if entry or Path("api").is_dir()])
        process = subprocess.Popen([sys.executable, "-I", "-c", _BOOT, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True, encoding="utf-8", process_group=0, pass_fds=(self._listening.fileno(),))
        worker = _Worker(process)
        threading.Thread(target=_listen, args=(worker,), daemon=True).start()
        stdin = cast("IO[str]", process.stdin)
        try:
            stdin.write(self._order + "\n")
            stdin.flush()
        except BrokenPipeError:
            pass                # it died: that is noticed with the others
        return worker

    def _replaced(self) -> bool:
        """Starts a worker for each that died; False if too many did."""
        for place, worker in enumerate(self._workers):
            code = worker.process.poll()
            if code is None:
                continue
            now = time.monotonic()
            self._deaths = [at for at in self._deaths if now - at < _WITHIN_S] + [now]
            _log.error("a worker died", extra={"facts": {"pid": worker.process.pid, "exit_code": code}})
            if len(self._deaths) >= _DEATHS:
                return False
            self._workers[place] = self._started()
        return True

    def _ended(self) -> bool:
        """Drains all workers and waits for them; whether none had to be killed."""
        self._listening.close()
        for worker in self._workers:
            try:
                cast("IO[str]", worker.process.stdin).close()
            except BrokenPipeError:
                continue
        until = time.monotonic() + self._drain_s + _MARGIN_S
        while any(worker.process.poll() is None for worker in self._workers):
            if self._kill.wait(_POLL_S) or time.monotonic() > until:
                break
        orderly = True
        for worker in self._workers:
            if worker.process.poll() is None:
                worker.process.kill()
            orderly = worker.process.wait() == 0 and orderly
        return orderly


class _signals:
    """SIGINT and SIGTERM to `handler` within the block; only the main thread can take them, elsewhere nothing changes."""

    def __init__(self, handler: Callable[[int, object], None]) -> None:
        self._handler = handler
        self._before: list[tuple[int, Any]] = []

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = [(number, signal.signal(number, self._handler)) for number in (signal.SIGINT, signal.SIGTERM)]

    def __exit__(self, *_: object) -> None:
        for number, before in self._before:
            signal.signal(number, before)


def _listen(worker: _Worker) -> None:
    for line in cast("IO[str]", worker.process.stdout):
        if line.strip() == _READY:
            worker.ready.set()


def main(argv: Sequence[str] = ()) -> int:
    """A worker: its order from stdin, then `ready` on stdout, then until stdin ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)               # native libraries may print: keep that out of the protocol
    line = sys.stdin.readline()
    if not line:
        return 1
    row = json.loads(line)
    from api import logs
    from api.server import Draining
    from api.service import Service

    logs.install(verbose=row["verbose"])
    service = Service(settings_of(row["settings"]), ServerSettings.model_validate(row["server"]))
    listening = socket.socket(fileno=row["socket"])

    def announce() -> None:
        out.write(_READY + "\n")
        out.flush()

    running = Draining(service, on_listening=announce)
    threading.Thread(target=_await_end, args=(running.stop,), daemon=True).start()
    running.run([listening])
    if not service.closed:
        service.close()
        return 1
    return 0


def _await_end(stop: Callable[[], None]) -> None:
    sys.stdin.read()
    stop()
