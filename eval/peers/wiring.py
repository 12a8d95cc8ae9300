"""What a peer library is given to work with, and what it must give back: the same for every peer.

Ours are the encoder (behind the library's own embedding interface, for the index and for the question), the reader (behind
the endpoint), the instruction to the reader (`rag.prompts.SYSTEM`, as system message) and the budget. The library's own are
splitting, storing, searching, choosing, packing and the template around context and question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import httpx

from eval.datasets import Passage
from eval.reply import Shown
from indexers.encoders import Encoder, Vectors
from rag.tokens import TokenCounter
from rag.types import OnProgress, Progress, no_progress

# The most passages that a peer may show, and what it retrieves to choose from.
TOP_K = 50
T = TypeVar("T")


class CountedEncoder:
    """Our encoder as peers call it: texts in, unit vectors out, in any number. Counts the texts that went through it."""

    def __init__(self, encoder: Encoder, *, on_progress: OnProgress = no_progress, note: str = "") -> None:
        self.name = encoder.name
        self.dimension = encoder.dimension
        self.passes = 0
        self._encoder = encoder
        self._on_progress = on_progress
        self._note = note

    def __call__(self, texts: Sequence[str]) -> Vectors:
        vectors = self._encoder.encode(list(texts))
        self.passes += len(texts)
        self._on_progress(Progress("index", self.passes, None, unit="passages", note=self._note))
        return vectors


@dataclass(frozen=True, slots=True)
class Wiring:
    """`url`: base URL of the endpoint; `window`: the reader's, in tokens; `titles`: of the passages that have one, by id."""

    encode: CountedEncoder
    counter: TokenCounter
    url: str
    model: str
    max_tokens: int
    window: int
    titles: dict[str, str]


@dataclass(frozen=True, slots=True)
class Said:
    """The answer as the library returned it, and the passages that it put into the prompt, in the order of the prompt."""

    text: str
    passages: tuple[Shown, ...]


class Engine(Protocol):
    """One library over one corpus. Not safe to call from several threads at once; from one after another it is."""

    def ask(self, question: str, *, budget: int) -> Said:
        """Retrieves, packs at most `budget` tokens of context, counted by the reader's tokenizer, and asks the endpoint."""

    def frame(self, question: str) -> tuple[str, str]:
        """What stands before and after the context in the last message of the prompt for `question`."""

    def close(self) -> None: ...


class Library(Protocol):
    """What each module of a peer offers."""

    def build(self, passages: Sequence[Passage], folder: Path, *, encode: CountedEncoder) -> None:
        """Splits, encodes and indexes the passages and writes the index into `folder`, which is there and empty."""

    def open_engine(self, folder: Path, wiring: Wiring) -> Engine:
        """Over an index that `build` wrote."""


class ChatClient:
    """The smallest client of the endpoint, for libraries whose own client is not at hand. Tries once, through no proxy."""

    def __init__(self, url: str, *, model: str) -> None:
        self._url = f"{url}/chat/completions"
        self._model = model
        self._client = httpx.Client(timeout=None, trust_env=False)

    def complete(self, messages: Sequence[dict[str, str]], *, max_tokens: int) -> str:
        """The answer's text. Raises httpx.HTTPStatusError where the endpoint refuses."""
        body = {"model": self._model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
        response = self._client.post(self._url, json=body)
        response.raise_for_status()
        return str(response.json()["choices"][0]["message"]["content"])

    def close(self) -> None:
        self._client.close()


def longest_fit(ranked: Sequence[T], *, pack: Callable[[Sequence[T]], str], counter: TokenCounter, budget: int) -> Sequence[T]:
    """The largest top k of `ranked` whose packed text has at most `budget` tokens; empty if even one passage has more.

    A longer list packs into a longer text, so the first one that does not fit ends the search.
    """
    size = 0
    while size < len(ranked) and counter.count(pack(ranked[:size + 1])) <= budget:
        size += 1
    return ranked[:size]
