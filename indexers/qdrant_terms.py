"""Term weights for Qdrant's sparse vectors: BM25 split into a document part, stored, and an idf part, computed by Qdrant.

    score(q, d) = sum over words w of q:  idf(w) * tf(w, d) / (tf(w, d) + k1 * (1 - b + b * |d| / average))
    idf(w) = ln(1 + (N - n(w) + 0.5) / (n(w) + 0.5))

which is what every BM25 engine here computes (Robertson and Zaragoza 2009, section 3), with the same words and the same lengths
as the one byte of a Lucene index holds them. Two departures. `average` is the mean length when a chunk is mirrored and stays
with it, so weights of chunks mirrored long apart differ slightly; mirroring anew evens them out. And a word's number is its
CRC-32: two words share one now and then (one pair is to be expected among 100,000 words), and then count as the same word.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexers.lexical import LENGTHS, MOST, words

K1 = 1.2
B = 0.75


@dataclass(frozen=True, slots=True)
class Terms:
    """Term numbers, ascending and each once, with their weights. A text without words has none."""

    ids: NDArray[np.uint32]
    weights: NDArray[np.float32]


class TermWeights(Protocol):
    """What goes into the sparse vectors. Equal `name` means comparable weights: a mirror made with another is made anew."""

    name: str

    def documents(self, texts: Sequence[str], *, average: float) -> list[Terms]:
        """`average`: words of a chunk in the mean, above 0."""

    def question(self, text: str) -> Terms: ...


class Bm25Terms:
    """Weights from counts of words alone."""

    name = f"bm25-{K1}-{B}"

    def documents(self, texts: Sequence[str], *, average: float) -> list[Terms]:
        return [_document(text, average) for text in texts]

    def question(self, text: str) -> Terms:
        """1 for each word, as often as it is there."""
        ids, counts = _counted(text)
        return Terms(ids, counts.astype(np.float32))


def _document(text: str, average: float) -> Terms:
    ids, counts = _counted(text)
    length = LENGTHS[np.searchsorted(LENGTHS, counts.sum(), side="right") - 1]
    return Terms(ids, (counts / (counts + K1 * (1 - B + B * length / average))).astype(np.float32))


def _counted(text: str) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    found = words(text)
    ids, counts = np.unique(np.fromiter(map(_number, found), np.uint32, len(found)), return_counts=True)
    return ids, np.minimum(counts, MOST).astype(np.float64)


@lru_cache(maxsize=200_000)
def _number(word: str) -> int:
    return zlib.crc32(word.encode())
