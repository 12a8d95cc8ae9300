"""Scores of every chunk of a set for every question, by origin, and the lists that a search would begin with."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.origins.bags import Scores
from eval.origins.chunked import Chunked
from indexers import lexical
from indexers.lexical import LexicalIndex
from retrievers.bm25_native import NativeBm25

Rows = NDArray[np.int64]
# What a search for 25 chunks asks of each origin.
DEPTH = 100


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """`by_origin`: (questions, chunks) for each; below or at `floors` of it a chunk was not found (dense finds every chunk).
    `without_terms`: questions that term weights cannot stand for: see `retrievers.origins.readable`."""

    chunks: Chunked
    by_origin: Mapping[str, Scores]
    without_terms: NDArray[np.bool_]

    def best(self, origin: str, question: int, *, k: int = DEPTH) -> Rows:
        """The chunks that the origin finds, best first, ties by row; at most `k`."""
        row = self.by_origin[origin][question]
        order = np.argsort(-row, kind="stable")[:k]
        return order if origin == "dense" else order[row[order] > 0]


@dataclass(frozen=True, slots=True)
class _Segment:
    folder: Path
    rows: Rows
    live: None
    lexical: LexicalIndex


def bm25(texts: Sequence[str], questions: Sequence[str], *, scratch: Path) -> Scores:
    """By the engine of collections; 0 for what holds no word of the question. Its index is written below `scratch`, which is
    made if it is not there."""
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=scratch, prefix="bm25-"))
    lexical.write(folder, texts)
    index = NativeBm25([_Segment(folder, np.arange(len(texts)), None, LexicalIndex(folder))])
    found = np.zeros((len(questions), len(texts)), np.float32)
    for at, question in enumerate(questions):
        ranked = index.search(question, k=len(texts))
        found[at, [row for row, _ in ranked]] = [score for _, score in ranked]
    return found
