"""Stand-ins with real behaviour for unit tests: no model is loaded, every number can be checked by hand."""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from indexers import lexical
from indexers.encoders import Vectors
from indexers.sentences import split
from rag.errors import ModelUnavailable
from rag.llm import Generation, Message
from rag.types import Chunk

_PIECE = re.compile(r"\w+|[^\w\s]|\n")


class WordCounter:
    """One token per word, punctuation mark and newline: additive over texts that end in a newline."""

    name = "words"
    exact = True

    def count(self, text: str) -> int:
        return len(_PIECE.findall(text))

    def count_many(self, texts: Sequence[str]) -> list[int]:
        return [self.count(text) for text in texts]


class WordEncoder:
    """A bag of hashed words as a unit vector: texts that share words are near, deterministic, no model. Counts its work."""

    dimension = 64
    max_tokens = 256

    def __init__(self, name: str = "words@1", dimension: int = 64) -> None:
        self.name = name
        self.dimension = dimension
        self.encoded: list[str] = []

    def count(self, texts: Sequence[str]) -> list[int]:
        return [2 + len(_PIECE.findall(text)) for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in _PIECE.finditer(text)]

    def encode(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> Vectors:
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for i, text in enumerate(texts):
            for word in lexical.words(text) or ["empty"]:
                vectors[i, zlib.crc32(word.encode()) % self.dimension] += 1
        self.encoded.extend(texts)
        if on_batch:
            on_batch(len(texts))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class ScriptedReader:
    """Answers from a function of the messages; counts tokens as words. Remembers every prompt it was given."""

    name = "scripted"
    local = True
    context_window = 4096

    def __init__(self, answer: Callable[[str], str] | str = "yes", *, finish: str = "stop", fails: Exception | None = None) -> None:
        self._answer = answer
        self._finish = finish
        self._fails = fails
        self.tokenizer = WordCounter()
        self.prompts: list[str] = []
        self.closed = False

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return sum(self.tokenizer.count(message.content) for message in messages)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        if self.closed:
            raise ModelUnavailable("closed")
        if self._fails:
            raise self._fails
        started = time.monotonic()
        prompt = messages[-1].content
        self.prompts.append(prompt)
        text = self._answer(prompt) if callable(self._answer) else self._answer
        if on_token:
            for piece in re.findall(r"\s*\S+", text):
                on_token(piece)
        return Generation(text=text, prompt_tokens=self.prompt_tokens(messages), completion_tokens=self.tokenizer.count(text),
                          cached_tokens=0, finish=self._finish, seconds=time.monotonic() - started)  # type: ignore[arg-type]

    def close(self) -> None:
        self.closed = True


def make_chunk(text: str, *, id: str = "d:0:0", doc_id: str = "d", title: str = "", heading: str = "", start: int = 0) -> Chunk:
    return Chunk(id=id, doc_id=doc_id, ordinal=0, text=text, span=(start, start + len(text)), sentences=split(text, "en"),
                 tokens=len(text.split()), title=title, heading=heading, source=f"{doc_id}.txt", content_hash=text)
