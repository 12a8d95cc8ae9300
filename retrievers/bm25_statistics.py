"""The one BM25 formula of all engines, and the statistics it takes from the live chunks of a snapshot.

    score(chunk) = sum over the question's words, each time it is asked, of  idf * (1 - 1 / (1 + tf / K))
    idf = ln(1 + (N - n + 0.5) / (n + 0.5)),  never negative       K = k1 * (1 - b + b * length / mean length)

This is Robertson and Zaragoza, The Probabilistic Relevance Framework (2009), section 3, without the constant factor k1 + 1,
as Lucene's BM25Similarity computes it: lengths are those that Lucene's one byte holds, chunks without a word count
nowhere, and the arithmetic is Lucene's in single precision, so that scores are the same to the last bit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexers import lexical
from indexers.lexical import LexicalIndex
from retrievers.segments import Mask

K1 = 1.2
B = 0.75
# Words whose counts over live chunks are remembered.
_REMEMBERED = 65_536


class WordSegment(Protocol):
    """What BM25 uses of a segment; `retrievers.segments.SegmentView` has more."""

    @property
    def folder(self) -> Path: ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each position, ascending, shape (size,)."""

    @property
    def live(self) -> Mask | None:
        """Which positions are not deleted; None: all."""

    @property
    def lexical(self) -> LexicalIndex: ...


@dataclass(frozen=True, slots=True)
class Term:
    """A word of the question: how many live chunks hold it, how often it is asked, its number in each segment or -1."""

    word: str
    holding: int
    asked: int
    numbers: tuple[int, ...]


class Statistics:
    """Counts over the live chunks of a snapshot that hold any word. Thread-safe."""

    def __init__(self, segments: Sequence[WordSegment]) -> None:
        self._segments = tuple(segments)
        self._dead = [_dead(segment) for segment in segments]
        self.chunks = sum(int(np.count_nonzero(segment.lexical.lengths)) - int(np.count_nonzero(segment.lexical.lengths[dead]))
                          for segment, dead in zip(segments, self._dead, strict=True))
        self.tokens = sum(segment.lexical.tokens - int(segment.lexical.lengths[dead].sum(dtype=np.int64))
                          for segment, dead in zip(segments, self._dead, strict=True))
        # Not a method of this object: the cache would keep it, and the files it maps, until the next search for cycles.
        self._held = lru_cache(maxsize=_REMEMBERED)(partial(_held, self._segments, self._dead))

    def terms(self, words: Sequence[str]) -> list[Term]:
        """The different words that a live chunk holds, rarest first; ties in the order asked."""
        asked = Counter(words)
        numbers = zip(*(segment.lexical.find(list(asked)) for segment in self._segments), strict=True)
        found = [Term(word, sum(self._held(i, number) for i, number in enumerate(where) if number >= 0), times, where)
                 for (word, times), where in zip(asked.items(), numbers, strict=bool(self._segments))]
        return sorted((term for term in found if term.holding), key=lambda term: term.holding)

    def idf(self, holding: int) -> float:
        return math.log(1 + (self.chunks - holding + 0.5) / (holding + 0.5))

    def idf_of(self, words: Sequence[str]) -> dict[str, float]:
        """The idf of each different word that a live chunk holds."""
        return {term.word: self.idf(term.holding) for term in self.terms(words)}

    def inverse_norms(self) -> NDArray[np.float32]:
        """1 / K for each length byte, with the roundings of Lucene; meaningless without any word."""
        mean = np.float32(self.tokens / max(1, self.chunks))
        k1, b, one = np.float32(K1), np.float32(B), np.float32(1)
        norms: NDArray[np.float32] = k1 * ((one - b) + b * lexical.LENGTHS.astype(np.float32) / np.maximum(mean, one))
        return one / norms


def _held(segments: Sequence[WordSegment], dead_of: Sequence[NDArray[np.int32]], segment: int, number: int) -> int:
    """Live chunks of the segment that hold its word of this number."""
    index, dead = segments[segment].lexical, dead_of[segment]
    start, end = index.span(number)
    if not len(dead):
        return end - start
    positions = index.arrays.positions[start:end]
    few, many = (dead, positions) if len(dead) < len(positions) else (positions, dead)
    at = np.minimum(np.searchsorted(many, few), len(many) - 1)
    return end - start - int((many[at] == few).sum())


def _dead(segment: WordSegment) -> NDArray[np.int32]:
    """Positions that are deleted, ascending."""
    return np.zeros(0, np.int32) if segment.live is None else np.flatnonzero(~segment.live).astype(np.int32)
