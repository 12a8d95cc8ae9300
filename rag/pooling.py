"""Candidates to the pool that a selector sees: each sentence with its vector, its price and the question's terms it holds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from threading import Lock
from typing import Generic, TypeVar

import numpy as np

from indexers import lexical
from indexers.encoders import Encoder, Vectors
from optimizers.context import body
from optimizers.pool import Candidate, Pool
from rag.tokens import TokenCounter
from rag.types import ScoredChunk, whole

T = TypeVar("T")

# Sentence vectors kept between questions: questions about the same chunks then cost no encoder pass. 384-d: 30 MB.
_CACHED_SENTENCES = 20_000


class SentenceVectors:
    """Unit vectors of sentences, encoded once and kept for the most recent. Thread-safe."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._kept: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = Lock()

    def get(self, texts: Sequence[str]) -> tuple[Vectors, int]:
        """Vectors in order, shape (len(texts), dimension), and how many texts had to be encoded."""
        unique = dict.fromkeys(texts)
        with self._lock:
            known = {text: self._kept[text] for text in unique if text in self._kept}
        missing = [text for text in unique if text not in known]
        if missing:
            known.update(zip(missing, self._encoder.encode(missing), strict=True))
        with self._lock:
            for text in unique:
                self._kept[text] = known[text]
                self._kept.move_to_end(text)
            while len(self._kept) > _CACHED_SENTENCES:
                self._kept.popitem(last=False)
        empty = np.zeros((0, self._encoder.dimension), np.float32)
        return (np.stack([known[text] for text in texts]) if texts else empty), len(missing)

    def know(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Takes vectors of these texts that were kept elsewhere, shape (len(texts), dimension); what is known stays."""
        with self._lock:
            for text, vector in zip(texts, vectors, strict=True):
                self._kept.setdefault(text, vector)


class Recent(Generic[T]):
    """What was made for the `size` most recent keys, for callers that come back with the same question under another budget
    or selector. Thread-safe; two threads may both make what neither has found."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return made


def pooled(question: str, found: Sequence[ScoredChunk], *, vectors: SentenceVectors, counter: TokenCounter,
           weights: Mapping[str, float]) -> tuple[Pool, int]:
    """The pool, and how many texts had to be encoded for it. `weights`: idf of each of the question's terms."""
    texts = [[hit.chunk.sentence(j) for j in range(len(hit.chunk.sentences))] for hit in found]
    flat = [text for sentences in texts for text in sentences]
    rows, encoded = vectors.get([question, *flat])
    relevance = rows[1:] @ rows[0]
    counts = counter.count_many(flat)
    bodies = counter.count_many([body(whole(hit.chunk)) for hit in found])
    asked = frozenset(weights)
    candidates, at = [], 1
    for hit, sentences, tokens in zip(found, texts, bodies, strict=True):
        here = slice(at, at + len(sentences))
        # The heading is rendered above every sentence, so its terms count for each.
        above = asked.intersection(lexical.words(f"{hit.chunk.title}\n{hit.chunk.heading}"))
        candidates.append(Candidate(
            chunk=hit.chunk, score=hit.score, relevance=hit.origins.get("dense", 0.0), tokens=tokens,
            sentence_relevance=tuple(relevance[at - 1:here.stop - 1].tolist()),
            sentence_tokens=tuple(counts[at - 1:here.stop - 1]),
            sentence_terms=tuple(above.union(asked.intersection(lexical.words(text))) for text in sentences),
            sentence_vectors=rows[here], led=hit.led))
        at = here.stop
    return Pool(tuple(candidates), weights, question=question), encoded
