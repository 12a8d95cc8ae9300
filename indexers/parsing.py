"""Files to documents: here and now, or ahead of the consumer in processes that may be stopped.

Parsers read hostile bytes with large libraries, some of them in C. In processes of their own they cost the run one file at
worst: one that takes too long, takes too much memory or crashes is left out, with the reason. They also work while the
encoder does, and what they have ready waits here within a bound on files and on bytes.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from types import TracebackType
from typing import Protocol, Self

from indexers.loaders import Found, load, wire
from indexers.loaders.kinds import TEXT, format_of
from indexers.loaders.process import Clock, Died, Process
from indexers.loaders.wire import Frame, Kind
from rag.settings import Settings
from rag.types import Document, FileFailure

# Files handed out ahead of the consumer, and bytes of their answers that may wait for it.
_AHEAD_FILES = 64
_AHEAD_BYTES = 32_000_000
# The first so many bytes of a run are parsed here if these parsers read them: they are our own, take linear time, and are
# done before a process has started. So a few small files never wait for one.
_HERE_BYTES = 256_000
_HERE = frozenset({"plain", "markdown", "table", "jsonl"})


class Parsing(Protocol):
    def parse(self, files: Iterable[Found]) -> Iterator[tuple[Found, Iterator[Document | FileFailure]]]:
        """Each file with its documents, in the order given; take all of one file's before the next file."""


class InProcess:
    """Parses here and now, one document at a time; nothing stops a parser that runs away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def parse(self, files: Iterable[Found]) -> Iterator[tuple[Found, Iterator[Document | FileFailure]]]:
        for found in files:
            yield found, load(found, settings=self._settings)

    def close(self) -> None:
        """It owns nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@dataclass(slots=True, eq=False)
class _Slot:
    """A file handed out, and what of its answers has not been taken yet."""

    found: Found
    here: bool
    frames: deque[Frame] = field(default_factory=deque)
    answered: bool = False
    ended: bool = False
    cancelled: bool = False
    error: Exception | None = None
    process: Process | None = None      # while it works on this file


class Workers:
    """Parses in up to `settings.workers` processes, started when files need them. Close it, or use it in a `with`.

    Each process has a thread here that asks it and takes its answers in; while `_AHEAD_BYTES` wait here the thread waits, and
    with it the process. Only the file that the consumer is at may add a document to none, so that nothing can lock up. At
    most those bytes and one document for each process are held, whatever the files.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tasks: queue.SimpleQueue[_Slot | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._clock = Clock()
        lock = threading.Lock()
        self._arrived, self._room = threading.Condition(lock), threading.Condition(lock)
        self._processes: set[Process] = set()
        self._waiting_bytes = 0
        self._current: _Slot | None = None
        self._closed = False

    def parse(self, files: Iterable[Found]) -> Iterator[tuple[Found, Iterator[Document | FileFailure]]]:
        """`files` is asked in the calling thread, up to `_AHEAD_FILES` ahead. One call at a time.

        Raises:
            ConfigError: no process can be started.
        """
        given = iter(files)
        ahead: deque[_Slot] = deque()
        here = 0
        try:
            while True:
                while len(ahead) < _AHEAD_FILES and (found := next(given, None)) is not None:
                    slot = _Slot(found, here=_is_simple(found) and here + found.size <= _HERE_BYTES)
                    ahead.append(slot)
                    if slot.here:
                        here += found.size
                    else:
                        self._submit(slot)
                if not ahead:
                    return
                slot = ahead[0]
                yield slot.found, load(slot.found, settings=self._settings) if slot.here else self._items(slot)
                self._cancel([ahead.popleft()])
        finally:
            self._cancel(ahead)

    def close(self) -> None:
        """Ends every process. What was not taken is gone."""
        with self._arrived:
            self._closed = True
            for process in self._processes:
                process.kill()
            self._room.notify_all()
            self._arrived.notify_all()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._clock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _submit(self, slot: _Slot) -> None:
        self._tasks.put(slot)
        if len(self._threads) < max(1, self._settings.workers):
            thread = threading.Thread(target=self._run, name=f"parsing-{len(self._threads) + 1}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _items(self, slot: _Slot) -> Iterator[Document | FileFailure]:
        """What the consumer takes."""
        with self._room:
            self._current = slot
            self._room.notify_all()
        while True:
            with self._arrived:
                while not (slot.frames or slot.ended or self._closed):
                    self._arrived.wait()
                if not slot.frames:
                    break
                frame = slot.frames.popleft()
                self._waiting_bytes -= frame.size
                self._room.notify_all()
            yield wire.to_item(frame)
        if slot.error is not None:
            raise slot.error

    def _cancel(self, slots: Iterable[_Slot]) -> None:
        """Forgets what of these was not taken, and stops those that still work on it."""
        with self._room:
            for slot in slots:
                slot.cancelled = True
                self._waiting_bytes -= sum(frame.size for frame in slot.frames)
                slot.frames.clear()
                if slot.process is not None:
                    slot.process.kill()
            self._room.notify_all()

    # What the threads do

    def _run(self) -> None:
        process: Process | None = None
        while (slot := self._tasks.get()) is not None:
            if not (slot.cancelled or self._closed):
                process = self._served(slot, process)
        self._dismiss(process)

    def _served(self, slot: _Slot, process: Process | None) -> Process | None:
        """Has the file parsed. Returns the process if it can parse another."""
        is_used = process is not None and process.is_alive
        try:
            if process is None or not is_used:
                self._dismiss(process)
                process = self._started()
            return self._asked(slot, process)
        except Died as died:
            self._dismiss(process)
            # A process that has parsed other files may have died of what they left in it.
            if is_used and died.failure.code != "file_timeout" and not (slot.answered or slot.cancelled):
                return self._served(slot, None)
            self._add(slot, wire.of_item(died.failure))
            self._end(slot)
        except Exception as error:      # the consumer's thread decides
            self._dismiss(process)
            self._end(slot, error=error)
        return None

    def _asked(self, slot: _Slot, process: Process) -> Process | None:
        with self._arrived:
            slot.process = process
        for frame in process.parse(slot.found):
            if frame.kind in (Kind.END, Kind.LAST):
                self._end(slot)
                if frame.kind is Kind.END:
                    return process
            elif not self._add(slot, frame):
                break
        self._dismiss(process)
        return None

    def _add(self, slot: _Slot, frame: Frame) -> bool:
        """Waits for room. False: nobody wants it any more."""
        with self._room:
            while not (slot.cancelled or self._closed or self._waiting_bytes + frame.size <= _AHEAD_BYTES
                       or (slot is self._current and not slot.frames)):
                self._room.wait()
            if slot.cancelled or self._closed:
                return False
            slot.frames.append(frame)
            slot.answered = True
            self._waiting_bytes += frame.size
            self._arrived.notify_all()
            return True

    def _end(self, slot: _Slot, *, error: Exception | None = None) -> None:
        with self._arrived:
            slot.process = None
            slot.error = error
            slot.ended = True
            self._arrived.notify_all()

    def _started(self) -> Process:
        process = Process(self._settings, self._clock)
        with self._arrived:
            self._processes.add(process)
            if self._closed:
                process.kill()
        return process

    def _dismiss(self, process: Process | None) -> None:
        if process is not None:
            with self._arrived:
                self._processes.discard(process)
            process.close()


def _is_simple(found: Found) -> bool:
    name = PurePath(found.path.name)
    return (format_of(name) or TEXT).module in _HERE and name.suffix.lower() != ".gz"
