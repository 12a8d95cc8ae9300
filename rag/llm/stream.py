"""What every reader does with a stream of generated text: pass it on, stop it in time, and say why it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rag.errors import ModelTimeout, RagError
from rag.llm import Finish
from rag.llm.repetition import LoopGuard, TextLoopGuard
from rag.tokens import FileTokenizer

# How late a cancellation may be noticed.
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Event:
    """One arrival: new text, with its tokens where they are known; and, with the last one, how it ended."""

    text: str = ""
    tokens: tuple[Hashable, ...] = ()
    done: Literal["stop", "length"] | None = None
    error: RagError | None = None


class Source(Protocol):
    def __call__(self, timeout_s: float) -> Event | None:
        """The next event, or None if none came in time. Called again after that; not after `done` or `error`."""


@dataclass(frozen=True, slots=True)
class Followed:
    """`pieces` is how many times text came: about the tokens, where a server sends one at a time."""

    text: str
    finish: Finish
    pieces: int
    first_token_s: float | None


class Transcript:
    """The answer so far. Text that may be the beginning of a stop string is held back until that is decided."""

    def __init__(self, *, stop: Sequence[str], on_token: Callable[[str], None] | None) -> None:
        self._stop = [word for word in stop if word]
        self._on_token = on_token
        self._held = ""
        self._passed: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._passed)

    def add(self, text: str) -> bool:
        """Whether a stop string came; what stands before the first one is passed on, the rest is dropped."""
        self._held += text
        found = [at for at in (self._held.find(word) for word in self._stop) if at >= 0]
        if found:
            self._pass(min(found))
            self._held = ""
            return True
        self._pass(len(self._held) - self._undecided())
        return False

    def finish(self) -> None:
        """Passes on what was held back: no stop string came of it."""
        self._pass(len(self._held))

    def _undecided(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        return max((size for word in self._stop for size in range(1, min(len(word), len(self._held) + 1))
                    if self._held.endswith(word[:size])), default=0)

    def _pass(self, size: int) -> None:
        ready, self._held = self._held[:size], self._held[size:]
        if ready:
            self._passed.append(ready)
            if self._on_token is not None:
                self._on_token(ready)


def follow(source: Source, *, name: str, stop: Sequence[str], on_token: Callable[[str], None] | None,
           deadline: float | None, cancelled: Callable[[], bool] | None, stall_s: float) -> Followed:
    """Reads `source` to its end, or until the caller, the clock, a stop string or a loop ends it.

    A stream that is silent for `stall_s` counts as one whose deadline has passed.

    Raises:
        ModelTimeout: time ran out before anything came. Any error that the source reports.
    """
    transcript = Transcript(stop=stop, on_token=on_token)
    tokens, texts = LoopGuard(), TextLoopGuard()
    started = heard = time.monotonic()
    first: float | None = None
    pieces = 0

    def ended(finish: Finish) -> Followed:
        transcript.finish()
        return Followed(transcript.text, finish, pieces, first)

    while True:
        now = time.monotonic()
        if cancelled is not None and cancelled():
            return ended("cancelled")
        if now >= min(heard + stall_s, now + 1 if deadline is None else deadline):
            if first is not None:
                return ended("deadline")
            raise _too_late(name, waited=now - started, deadline=deadline)
        event = source(_wait(now, heard=heard, stall_s=stall_s, deadline=deadline, polls=cancelled is not None))
        if event is None:
            continue
        if event.error is not None:
            raise event.error
        heard = time.monotonic()
        if first is None and (event.text or event.tokens):
            first = heard - started
        pieces += bool(event.text)
        if transcript.add(event.text):
            return ended("stop")
        if any(tokens.add(token) for token in event.tokens) or (not event.tokens and texts.add(event.text)):
            return ended("repetition")
        if event.done is not None:
            return ended(event.done)


def _wait(now: float, *, heard: float, stall_s: float, deadline: float | None, polls: bool) -> float:
    until = heard + stall_s if deadline is None else min(heard + stall_s, deadline)
    return min(until - now, POLL_S) if polls else until - now


def _too_late(name: str, *, waited: float, deadline: float | None) -> ModelTimeout:
    what = "within the deadline" if deadline is not None else "and stays silent"
    return ModelTimeout(f"{name} gave no answer {what} (waited {waited:.1f} s).",
                        hint="Allow more time with --deadline, use a smaller budget, or a faster reader.")


class TextDecoder:
    """Token ids to text as they come: only whole characters, and the same text as decoding all ids at once.

    Follows the usual incremental scheme: decode a few tokens back, and give out what is new once it does not end inside a
    character.
    """

    def __init__(self, tokenizer: FileTokenizer) -> None:
        self._tokenizer = tokenizer
        self._plain = {number: name for name, number in tokenizer.added.items() if number not in tokenizer.special_ids}
        self._ids: list[int] = []
        self._before = 0            # where the decoded window begins: context that some decoders need
        self._given = 0             # tokens whose text was given out

    def add(self, ids: Sequence[int]) -> str:
        """Text that is certain now."""
        out = ""
        for number in ids:
            if number in self._plain:           # an added token that is text, which the tokenizer itself knows nothing of
                out += self.flush() + self._plain[number]
            elif number not in self._tokenizer.special_ids:
                self._ids.append(number)
                out += self._certain()
        return out

    def flush(self) -> str:
        """What is left, complete or not."""
        rest = self._new()
        self._ids, self._before, self._given = [], 0, 0
        return rest

    def _certain(self) -> str:
        new = self._new()
        if not new or new.endswith("�"):
            return ""
        self._before, self._given = self._given, len(self._ids)
        return new

    def _new(self) -> str:
        known = self._tokenizer.decode(self._ids[self._before:self._given])
        return self._tokenizer.decode(self._ids[self._before:])[len(known):]
