"""Ctrl-C that answers at once, also while a model computes in C++ and Python would not notice."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from rag.cli.edge import UNCHANGED, WORKER, Stopped
from rag.types import OnProgress, Progress

T = TypeVar("T")
_POLL_S = 0.1


class _Job(Generic[T]):
    """One call on a thread of its own, and how it ended."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._result: T | None = None
        self._error: BaseException | None = None
        # Not `Thread.join`: Ctrl-C may come while `start` still waits for the thread to report itself.
        self._done = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name=WORKER, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # handed to the caller's thread, whatever it is
            self._error = error
        finally:
            self._done.set()

    def wait(self, seconds: float) -> bool:
        """Whether it ended within `seconds`."""
        return self._done.wait(seconds)

    @property
    def failed(self) -> bool:
        return self._error is not None

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # it ended without an error, so this is what it returned


@dataclass(frozen=True, slots=True)
class Ended(Generic[T]):
    """What work returned, and whether it was told to stop before."""

    result: T
    stopped: bool


def run(work: Callable[[Callable[[], bool]], T], *, kept: str, finishing: str = "", grace_s: float = 1.0) -> Ended[T]:
    """`work(cancelled)`, on a thread of its own. `cancelled` turns true with the first Ctrl-C.

    With `finishing`, that line is shown and work may take its time to end in order; a second Ctrl-C leaves at once.
    Without, it has `grace_s`.

    Raises:
        Stopped: with `kept`, when stopped work failed or did not end in order.
    """
    stop = threading.Event()
    job = _Job(lambda: work(stop.is_set))
    started = False
    deadline = float("inf")
    while time.monotonic() < deadline:
        try:
            if not started:
                started = True
                job.start()
            if job.wait(_POLL_S):
                break
        except KeyboardInterrupt:
            if stop.is_set():
                raise Stopped(kept) from None
            stop.set()
            if finishing:
                print(f"\n{finishing}", file=sys.stderr)
            else:
                deadline = time.monotonic() + grace_s
    if not stop.is_set():
        return Ended(job.result(), stopped=False)
    if not job.wait(0) or job.failed:
        raise Stopped(kept)
    return Ended(job.result(), stopped=True)


def complete(work: Callable[[], T], *, kept: str = UNCHANGED) -> T:
    """`run` for work that cannot be cancelled in order and whose result is worth nothing once it was stopped."""
    ended = run(lambda _: work(), kept=kept, grace_s=0.0)
    if ended.stopped:
        raise Stopped(kept)
    return ended.result


def stopping(on_progress: OnProgress, cancelled: Callable[[], bool], *, kept: str) -> OnProgress:
    """`on_progress` that raises Stopped once `cancelled`: ends work that reports progress but takes no other signal."""
    def tick(progress: Progress) -> None:
        if cancelled():
            raise Stopped(kept)
        on_progress(progress)

    return tick
