"""Hard candidates of each query: what BM25 and the dense vectors rank high, right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexers import lexical
from indexers.lexical import LexicalIndex
from indexers.training.tilde.corpus import Corpus
from indexers.training.tilde.states import Floats
from rag.types import OnProgress, Progress
from retrievers.bm25_native import NativeBm25
from retrievers.segments import Mask

_TOGETHER = 512


@dataclass(frozen=True, slots=True, eq=False)
class WholeIndex:
    """All passages as one segment, of which none is deleted."""

    folder: Path
    rows: NDArray[np.int64]
    lexical: LexicalIndex
    live: Mask | None = None


def bm25(folder: Path, texts: Sequence[str]) -> NativeBm25:
    """Over these passages; its index file lies in `folder` and is made once."""
    if not (folder / lexical.FILE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        lexical.write(folder, texts)
    return NativeBm25([WholeIndex(folder, np.arange(len(texts)), LexicalIndex(folder))])


def mined(corpus: Corpus, *, index: NativeBm25, passages: Floats, queries: Floats, depth: int, on_progress: OnProgress
          ) -> NDArray[np.int32]:
    """Passages for each query that is trained on, (Q, 2 * depth), -1 where there are fewer: the best of BM25 and, behind them,
    of the dense vectors that those do not name. Neither the query's own passage nor one that is held out is among them."""
    found = np.full((len(corpus.queries), 2 * depth), -1, np.int32)
    allowed = ~corpus.held
    training = corpus.training
    for start in range(0, len(training), _TOGETHER):
        some = training[start:start + _TOGETHER]
        similar = np.where(allowed, queries[some] @ passages.T, -np.inf)
        nearest = np.argpartition(-similar, min(2 * depth, similar.shape[1] - 1), axis=1)[:, :2 * depth + 1]
        for at, query in enumerate(some):
            words = [row for row, _ in index.search(corpus.queries[query], k=depth + 1, allowed=[allowed])]
            ranked = nearest[at][np.argsort(-similar[at][nearest[at]], kind="stable")]
            first = [row for row in words if row != corpus.gold[query]][:depth]
            then = [row for row in ranked.tolist() if allowed[row] and row != corpus.gold[query] and row not in first][:depth]
            found[query, :len(first)] = first
            found[query, depth:depth + len(then)] = then
        on_progress(Progress("candidates", min(start + _TOGETHER, len(training)), len(training), "queries"))
    return found
