"""Limits on the work: a reader that stops at so many calls or seconds, and knows how long a token takes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rag.llm import Generation, Message, Reader


class Spent(Exception):
    """The calls or the seconds that were allowed are used up. Whoever bounds the work catches it."""


class BoundedReader:
    """Passes calls to `reader` while the bounds allow; then Spent. `calls` are those made so far.

    A call under way is never cut: what it says must not depend on the clock. Put it below the memory of calls, so that only
    those really made count.
    """

    def __init__(self, reader: Reader, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = reader.name
        self.local = reader.local
        self.tokenizer = reader.tokenizer
        self.context_window = reader.context_window
        self.calls = 0
        self._reader = reader
        self._clock = clock
        self._started = clock()
        self._max_calls: int | None = None
        self._max_seconds: float | None = None
        self._tokens = 0
        self._seconds = 0.0

    def bound(self, *, max_calls: int | None, max_seconds: float | None) -> None:
        """Sets the bounds anew, both counted from the start; None sets none."""
        self._max_calls, self._max_seconds = max_calls, max_seconds

    @property
    def calls_left(self) -> int | None:
        return None if self._max_calls is None else max(0, self._max_calls - self.calls)

    @property
    def seconds_left(self) -> float | None:
        return None if self._max_seconds is None else max(0.0, self._max_seconds - (self._clock() - self._started))

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return self._reader.prompt_tokens(messages)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        """As `Reader.generate`. Raises Spent instead of beginning a call that is not allowed any more."""
        if self.calls_left == 0 or self.seconds_left == 0:
            raise Spent
        self.calls += 1
        generation = self._reader.generate(messages, max_tokens=max_tokens, stop=stop, on_token=on_token, deadline=deadline,
                                           cancelled=cancelled)
        if self.calls > 1:  # the first one loads the model, and says nothing about the others
            self._tokens += generation.prompt_tokens + generation.completion_tokens
            self._seconds += generation.seconds
        return generation

    @property
    def seconds_per_token(self) -> float | None:
        """Of prompt and completion together, over the calls made but for the first; None before there are any."""
        return self._seconds / self._tokens if self._tokens else None

    def close(self) -> None:
        self._reader.close()
