"""What k1 and b of BM25, and lengths kept in one byte, do to nDCG@10: what the fixed values were chosen by.

Each passage of the data is one chunk. The first 1,000 questions that name their evidence are asked of each data set; the rows
are means over data sets, so that none weighs more for its size. The ratio is to what the product uses.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.bench import Measurement, Options
from eval.datasets import Dataset, load
from eval.metrics import ndcg_at
from eval.retrieval import with_evidence
from indexers import lexical
from indexers.lexical import LexicalIndex
from rag.types import OnProgress, Progress
from retrievers.bm25_statistics import K1, B

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
GRID = ((0.6, 0.4), (0.9, 0.4), (0.9, 0.6), (0.9, 0.75), (1.2, 0.4), (1.2, 0.6), (1.2, 0.75), (1.5, 0.4), (1.5, 0.6), (1.5, 0.75),
        (1.5, 0.9), (2.0, 0.75))
_QUESTIONS = 1000
_K = 10
_STORED, _EXACT = "lengths in a byte", "exact lengths"


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    data = [load(folder) for folder in options.data or (SAMPLE,)]
    scores: dict[str, list[float]] = {}
    for number, dataset in enumerate(data):
        on_progress(Progress("bm25", number, len(data), "data sets", dataset.name))
        for name, score in _of(dataset, options.scratch / f"{number}"):
            scores.setdefault(name, []).append(score)
    base = _name(K1, B, _STORED)
    rows = [Measurement(name, float(np.mean(found)), "nDCG@10", len(found)) for name, found in scores.items()]
    used = next(row.value for row in rows if row.name == base)
    return [row if row.name == base else dataclasses.replace(row, ratio=row.value / used, ratio_to=base) for row in rows]


def _name(k1: float, b: float, lengths: str) -> str:
    return f"k1 {k1:g}, b {b:g}, {lengths}"


def _of(dataset: Dataset, folder: Path) -> Iterator[tuple[str, float]]:
    """Mean nDCG@10 of one data set, for each setting."""
    folder.mkdir()
    lexical.write(folder, [f"{passage.title}\n{passage.text}" for passage in dataset.passages])
    index = LexicalIndex(folder)
    questions = with_evidence(dataset, limit=_QUESTIONS)
    ids = np.asarray([passage.id for passage in dataset.passages], object)
    mean = index.tokens / np.count_nonzero(index.lengths)
    relative: dict[str, NDArray[np.float64]] = {_EXACT: index.lengths / mean,
                                                _STORED: lexical.LENGTHS[lexical.length_bytes(index.lengths)] / mean}
    for k1, b in GRID:
        for name, length in relative.items():
            norms = k1 * (1 - b + b * length)
            found = [ndcg_at(ids[_best(index, lexical.words(question.text), norms)].tolist(), question.evidence, k=_K)
                     for question in questions]
            yield _name(k1, b, name), float(np.mean(found))


def _best(index: LexicalIndex, words: Sequence[str], norms: NDArray[np.float64]) -> NDArray[np.intp]:
    """Positions of the best ten that hold a word, ties by position."""
    scores = np.zeros(index.size)
    for word in words:
        positions, times = index.postings(word)
        idf = math.log(1 + (np.count_nonzero(index.lengths) - len(positions) + 0.5) / (len(positions) + 0.5))
        scores[positions] += idf * times / (times + norms[positions])
    order = np.argsort(-scores, kind="stable")[:_K]
    return order[scores[order] > 0]
