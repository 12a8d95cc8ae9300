"""The parent's end of one parsing process (`worker`): start it, ask it, read its answers within a time, know why it died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

import indexers
from indexers.loaders import wire
from indexers.loaders.discovery import Found
from indexers.loaders.wire import Frame, Kind
from indexers.loaders.worker import MEMORY_EXIT
from rag.errors import ConfigError
from rag.settings import Settings
from rag.types import FileFailure

# What parsing reads of the settings. Keys and addresses stay here.
_LIMITS = ("max_file_mb", "max_pages", "max_file_s", "max_expansion", "worker_memory_mb")
# A plain interpreter that then takes this one's search path, and runs no code of the program that started it (as spawning
# through `multiprocessing` would, which breaks scripts without a guard).
BOOT = """
import json, sys
given = json.loads(sys.argv[1])
sys.path[:] = given["path"]
from indexers.loaders.worker import main
main(given["limits"])
"""
_START_S = 60.0


class Died(Exception):
    """The process is gone; `failure` says for which reason of the file's."""

    def __init__(self, failure: FileFailure) -> None:
        self.failure = failure


class Clock:
    """Kills the processes whose time is up. One thread, and none while nothing is awaited."""

    def __init__(self) -> None:
        self._ends: dict[Process, float] = {}
        self._changed = threading.Condition()
        self._next = float("inf")
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self, process: Process, seconds: float) -> None:
        end = time.monotonic() + seconds
        with self._changed:
            self._ends[process] = end
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="parsing-clock", daemon=True)
                self._thread.start()
            if end < self._next:
                self._changed.notify()

    def stop(self, process: Process) -> None:
        with self._changed:
            self._ends.pop(process, None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                for process in [process for process, end in self._ends.items() if end <= now]:
                    del self._ends[process]
                    process.overdue()
                self._next = min(self._ends.values(), default=float("inf"))
                self._changed.wait(None if self._next == float("inf") else max(0.0, self._next - now))


class Process:
    """Started with the object; for one thread at a time, but for `kill`."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._overdue = False
        self._ready = False
        limits = {name: getattr(settings, name) for name in _LIMITS}
        path = [*dict.fromkeys(filter(None, [*sys.path, str(Path(indexers.__file__).parents[1])]))]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("THRIFTRAG_")}
        try:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
            # In a process group of its own, so that the terminal's Ctrl-C reaches the parent alone.
            self._popen = subprocess.Popen(
                [sys.executable or "", "-I", "-c", BOOT, json.dumps({"path": path, "limits": limits})], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=self._errors, env=environment, process_group=0,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0))
        except OSError as error:
            raise _cannot_start(str(error)) from error
        self._requests = cast(IO[bytes], self._popen.stdin)
        self._answers = cast(IO[bytes], self._popen.stdout)

    @property
    def is_alive(self) -> bool:
        return not self._overdue and self._popen.poll() is None

    def parse(self, found: Found) -> Iterator[Frame]:
        """The file's answers, the end included. Time that passes between them here is not the file's.

        Raises:
            Died: over time or memory, or for a reason of its own.
            ConfigError: it cannot be started at all.
        """
        self._wait_until_ready()
        with suppress(BrokenPipeError):     # it died since; reading tells why
            wire.write(self._requests, wire.of_file(found))
            self._requests.flush()
        left = self._settings.max_file_s
        while True:
            started = time.monotonic()
            frame = self._next(left)
            left -= time.monotonic() - started
            if frame is None:
                raise Died(self._failure(found))
            yield frame
            if frame.kind in (Kind.END, Kind.LAST):
                return

    def overdue(self) -> None:
        """Its time is up."""
        self._overdue = True
        self._popen.kill()

    def kill(self) -> None:
        self._popen.kill()

    def close(self) -> None:
        """Ends it and waits until it has ended."""
        self._popen.kill()
        self._popen.wait()
        for stream in (self._requests, self._answers, self._errors):
            with suppress(OSError):
                stream.close()

    def _next(self, seconds: float) -> Frame | None:
        self._clock.start(self, max(0.0, seconds))
        try:
            return wire.read(self._answers, largest=self._settings.worker_memory_mb * 1_000_000)
        except ValueError:
            self._popen.kill()      # it no longer speaks our language
            return None
        finally:
            self._clock.stop(self)

    def _wait_until_ready(self) -> None:
        if not self._ready:
            frame = self._next(_START_S)
            if frame is None or frame.kind is not Kind.READY:
                self._popen.wait()
                self._errors.seek(0)
                lines = self._errors.read()[-4000:].decode("utf-8", "replace").strip().splitlines()
                raise _cannot_start(lines[-1] if lines else f"it ended with status {self._popen.returncode}")
            self._ready = True

    def _failure(self, found: Found) -> FileFailure:
        """Why it died while it had this file."""
        status = self._popen.wait()
        settings = self._settings
        if self._overdue or status == -getattr(signal, "SIGXCPU", 0):
            return FileFailure(found.source, "file_timeout", f"{found.source}: It takes longer than {settings.max_file_s:g} s.",
                               f"Split it, or raise the setting max_file_s (now {settings.max_file_s:g}).")
        if status == MEMORY_EXIT:
            return FileFailure(found.source, "file_memory", f"{found.source}: It takes more memory than there is.",
                               f"Split it, or raise the setting worker_memory_mb (now {settings.worker_memory_mb}).")
        what = f"was killed ({signal.Signals(-status).name})" if status < 0 else f"ended with status {status}"
        return FileFailure(found.source, "file_crashed", f"{found.source}: The process that parsed it {what}.",
                           "The file is likely damaged, or the machine ran out of memory; try it alone.")


def _cannot_start(reason: str) -> ConfigError:
    return ConfigError(f"A process for parsing cannot be started: {reason}", field="workers",
                       hint="Set workers to 0 to parse in this process.")
