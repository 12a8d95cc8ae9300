"""Term weights made up for tests of the impact index, and its searches written out slowly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexers import sparse
from indexers.impacts import Impacts, Query
from indexers.sparse import SparseIndex

SCALE = 4.0


@dataclass(frozen=True)
class SparseSegment:
    """What sparse search uses of a segment."""

    rows: NDArray[np.int64]
    live: NDArray[np.bool_] | None
    sparse: SparseIndex


def passage(*pairs: tuple[int, float]) -> Impacts:
    """Tokens with their weights, in order."""
    return np.asarray([token for token, _ in pairs], np.int32), np.asarray([weight for _, weight in pairs], np.float32)


query = passage


def made(rng: np.random.Generator, count: int, *, vocabulary: int, most: int = 12, scale: float = SCALE) -> list[Impacts]:
    """Passages of 0 to `most` tokens, low numbers the commonest. Few different weights, so that many scores are equal."""
    passages = []
    for _ in range(count):
        tokens = np.unique(np.minimum(rng.zipf(1.2, rng.integers(0, most + 1)) - 1, vocabulary - 1)).astype(np.int32)
        passages.append((tokens, (rng.integers(1, 9, len(tokens)) * (scale / 8)).astype(np.float32)))
    return passages


def index_of(folder: Path, passages: Sequence[Impacts], *, vocabulary: int, scale: float = SCALE) -> SparseIndex:
    folder.mkdir(parents=True, exist_ok=True)
    sparse.write(folder, passages, vocabulary=vocabulary, scale=scale)
    return SparseIndex(folder)


def impact(weight: float, scale: float = SCALE) -> int:
    return min(255, max(1, round(float(np.float32(weight)) / scale * 255)))


def slow_scores(passages: Sequence[Impacts], asked: Query, *, scale: float = SCALE) -> dict[int, float]:
    """Score of every passage that holds a token of the query, by the formula on eight-bit impacts, in double precision."""
    wanted = dict(zip(asked[0].tolist(), asked[1].tolist(), strict=True))
    scores: dict[int, float] = {}
    for position, (tokens, weights) in enumerate(passages):
        for token, weight in zip(tokens.tolist(), weights.tolist(), strict=True):
            if token in wanted:
                scores[position] = scores.get(position, 0.0) + wanted[token] * impact(weight, scale) * scale / 255
    return scores


def slow_best(scores: dict[int, float], *, k: int) -> list[tuple[int, float]]:
    """The best `k`, equal scores by position. Equal means equal to nine digits: the slow sums are rounded at each step."""
    return sorted(scores.items(), key=lambda pair: (-float(f"{pair[1]:.9g}"), pair[0]))[:k]
