"""A circuit breaker around a model server: after so many failures in a row nobody waits for it any more, until a single request
has shown that it is back (Nygard, "Release It!", stability patterns).

closed: everybody may ask. open: nobody may, for `rest_s` seconds. half-open: one request may, as a probe; the others are told to
come again. What a caller did (a prompt that does not fit, a deadline that was too short, leaving) says nothing about the server.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rag.errors import ModelTimeout, ModelUnavailable, UpstreamError

State = Literal["closed", "open", "half_open"]
# A server that was silent for so long is broken, whatever deadline its caller had.
PATIENCE_S = 10.0
# A server that asks for more rest than this is tried again all the same.
LONGEST_REST_S = 300.0
# When to come again, where a probe is under way.
_PROBE_S = 1.0


@dataclass(slots=True)
class Outcome:
    """`conclusive`: a request that did not fail shows that the server works; one that was called off before any text does not."""

    conclusive: bool = True


class Breaker:
    """Of one server; shared by all threads that ask it. `failures` of 0 never opens it."""

    def __init__(self, name: str, *, failures: int, rest_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._limit = failures
        self._rest_s = rest_s
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        self._until: float | None = None        # open until then, half-open afterwards; None: closed
        self._probing = False
        self._last = ""

    @property
    def state(self) -> State:
        with self._lock:
            return self._state()

    @contextmanager
    def call(self) -> Iterator[Outcome]:
        """Around one request to the server: how it ends decides about the next ones.

        Raises:
            ModelUnavailable: at once, where the server is not to be asked; `retry_after_s` says when it will be.
        """
        probe = self._enter()
        since, outcome = self._clock(), Outcome()
        try:
            yield outcome
        except UpstreamError as error:
            if error.passing or (isinstance(error, ModelTimeout) and self._clock() - since >= PATIENCE_S):
                self.failed(error)
            raise
        else:
            if outcome.conclusive:
                with self._lock:
                    self._failed, self._until = 0, None
        finally:
            if probe:
                with self._lock:
                    self._probing = False

    def check(self) -> None:
        """For small requests beside the answer, whose success says nothing about it. Raises ModelUnavailable while it is open."""
        with self._lock:
            if self._state() == "open":
                raise self._refusal()

    def failed(self, error: UpstreamError) -> None:
        """Counts a failure of the server; one in half-open opens it again."""
        with self._lock:
            self._failed += 1
            self._last = error.message
            if self._limit and (self._until is not None or self._failed >= self._limit):
                self._until = self._clock() + min(LONGEST_REST_S, max(self._rest_s, error.retry_after_s or 0.0))

    def _enter(self) -> bool:
        """Whether this request is the probe."""
        with self._lock:
            state = self._state()
            if state == "open" or (state == "half_open" and self._probing):
                raise self._refusal()
            self._probing = state == "half_open"
            return self._probing

    def _state(self) -> State:
        if self._until is None:
            return "closed"
        return "open" if self._clock() < self._until else "half_open"

    def _refusal(self) -> ModelUnavailable:
        left = _PROBE_S if self._until is None else max(_PROBE_S, self._until - self._clock())
        error = ModelUnavailable(
            f"{self._name} was not asked: it failed {self._failed} times in a row, at last so: {self._last}",
            hint=f"It is tried again in {math.ceil(left)} s. To get the best passages instead of an error: --fallback extracts.")
        error.retry_after_s = left
        return error
