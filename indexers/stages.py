"""Stages that overlap: what comes is made ready ahead in one thread, what goes is carried off in another.

Queues are bounded, so memory does not grow with the work; an error anywhere stops all and is raised to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_S = 0.1


class _End:
    """Marks the end of a queue, and how it came about."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@contextmanager
def ahead(source: Iterator[T], *, depth: int) -> Iterator[Iterator[T]]:
    """The items of `source`, of which up to `depth` are made before they are asked for, in a thread of their own. An error
    in `source` is raised where its item would have come. Leaving early closes `source`."""
    queue: Queue[T | _End] = Queue(maxsize=depth)
    left = Event()

    def put(item: T | _End) -> bool:
        while not left.is_set():
            try:
                queue.put(item, timeout=_POLL_S)
                return True
            except Full:
                continue
        return False

    def run() -> None:
        end = _End()
        try:
            for item in source:
                if not put(item):
                    break
        except BaseException as error:  # raised again in the thread that waits for it
            end = _End(error)
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
        put(end)

    def items() -> Iterator[T]:
        while True:
            item = queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    thread = Thread(target=run, name="ahead", daemon=True)
    thread.start()
    try:
        yield items()
    finally:
        left.set()
        thread.join()


class Behind(Generic[T]):
    """Carries items off in the order given, in a thread of its own, up to `depth` waiting. A context manager: leaving waits
    for all that was put, unless an error is on its way. The first error of `work` is raised at the next `put` or on leaving."""

    def __init__(self, work: Callable[[T], None], *, depth: int) -> None:
        self._work = work
        self._queue: Queue[T | _End] = Queue(maxsize=depth)
        self._error: BaseException | None = None
        self._abandoned = Event()
        self._thread = Thread(target=self._run, name="behind", daemon=True)

    def put(self, item: T) -> None:
        while True:
            if self._error is not None:
                raise self._error
            try:
                return self._queue.put(item, timeout=_POLL_S)
            except Full:
                continue

    def __enter__(self) -> Behind[T]:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._abandoned.set()
        self._queue.put(_End())
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        """Goes on taking after an error, so that nobody waits for room that never comes."""
        while not isinstance(item := self._queue.get(), _End):
            if self._error is None and not self._abandoned.is_set():
                try:
                    self._work(item)
                except BaseException as error:  # raised again in the thread that puts
                    self._error = error

