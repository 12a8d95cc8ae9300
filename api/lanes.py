"""Blocking work on threads, in lanes of their own, so that the event loop never waits and searches never wait for answers.

A lane runs so many calls at once, lets so many wait, and refuses the rest at once, saying when to come again. A place is given
back when the work has ended, not when its caller has left: threads are never more than the lane has.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from api.errors import Later, Overloaded, ShuttingDown

T = TypeVar("T")
_LONGEST_RETRY_S = 60.0
# How much the newest call counts in the mean time of a call.
_NEWEST = 0.2


class Lane:
    """`threads` calls at once, `waiting` more in line."""

    def __init__(self, name: str, *, threads: int, waiting: int) -> None:
        self.name = name
        self.threads = threads
        self.waiting = waiting
        self.shed = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"{name}-lane")
        self._lock = threading.Lock()
        self._admitted = 0
        self._running = 0
        self._mean_s = 1.0
        self._closed = False

    @property
    def running(self) -> int:
        return self._running

    @property
    def queued(self) -> int:
        return self._admitted - self._running

    def submit(self, work: Callable[[], T], *, after: Callable[[], None] | None = None) -> asyncio.Future[T]:
        """Begins `work` on a thread, or puts it in line. Cancelling what is returned takes it out of the line; work that has
        begun is not touched. `after` is called once, however this ends: when the work has, when it was taken out, when it was
        refused.

        Raises:
            Overloaded: the line is full. ShuttingDown: the lane is closed.
        """
        with self._lock:
            refusal = self._refusal()
            if refusal is None:
                self._admitted += 1
                # With the context of the request, as its logs and spans need it.
                future = self._pool.submit(copy_context().run, self._timed, work)
        if refusal is not None:
            if after is not None:
                after()
            raise refusal
        future.add_done_callback(lambda _: self._left(after))
        wrapped = asyncio.wrap_future(future)
        wrapped.add_done_callback(_looked_at)
        return wrapped

    def _refusal(self) -> Later | None:
        if self._closed:
            return ShuttingDown("The server is shutting down.", retry_after_s=5.0, hint="Try again when it is up.")
        if self._admitted >= self.threads + self.waiting:
            self.shed += 1
            return Overloaded(f"The {self.name} queue is full: {self._running} at work, {self.queued} waiting.",
                              retry_after_s=self._retry_s(), hint="Try again after the time in Retry-After.")
        return None

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`. Raises as `submit`, and what `work` raises."""
        return await self.submit(work)

    def idle(self) -> bool:
        return self._admitted == 0

    def close(self, *, wait: bool) -> None:
        """Takes nothing more; what waits is dropped, what runs goes on, and is waited for where `wait` says so."""
        with self._lock:
            self._closed = True
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def _timed(self, work: Callable[[], T]) -> T:
        with self._lock:
            self._running += 1
        since = time.monotonic()
        try:
            return work()
        finally:
            with self._lock:
                self._running -= 1
                self._mean_s += _NEWEST * (time.monotonic() - since - self._mean_s)

    def _left(self, after: Callable[[], None] | None) -> None:
        with self._lock:
            self._admitted -= 1
        if after is not None:
            after()

    def _retry_s(self) -> float:
        """When about a place will be free: the line, at the pace of late."""
        return min(_LONGEST_RETRY_S, max(1.0, self._mean_s * (self.queued + 1) / self.threads))


def _looked_at(future: asyncio.Future[T]) -> None:
    """The error of work whose caller has left is no news to anybody."""
    if not future.cancelled():
        future.exception()
