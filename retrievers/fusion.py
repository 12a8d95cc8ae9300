"""The only place where scores of different origins meet: by rank, or as a weighted sum.

rrf: reciprocal rank fusion (Cormack, Clarke and Buettcher 2009), which looks at ranks alone:

    s(d) = sum over origins r of 1 / (60 + rank_r(d)),  ranks from 1

weighted: a convex combination of scores on one scale (`retrievers.fusion_scores`), with weights fitted once for each
combination of origins (`retrievers.fusion_weights`):

    s(d) = sum over origins r of weight_r * comparable_r(d)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from retrievers.dense import Ranked, best, top
from retrievers.fusion_scores import Floats, comparable

RANK_CONSTANT = 60
# Each origin contributes this many times the candidates asked for, so that a chunk low in one list can still win in both.
DEPTH = 4
# A weighted sum takes at least so many from each: what is in no list of BM25 counts there as nothing, which is the nearer to the
# truth the longer the list.
_LEAST = 100


def depth(k: int) -> int:
    """Candidates that each origin contributes to a weighted sum of which the best `k` are wanted."""
    return max(DEPTH * k, _LEAST)


def reciprocal_rank(rankings: Mapping[str, Ranked], *, k: int) -> Ranked:
    """The best `k` rows over all rankings; ties by row."""
    fused: dict[int, float] = {}
    for ranking in rankings.values():
        for position, (row, _) in enumerate(ranking, 1):
            fused[row] = fused.get(row, 0.0) + 1.0 / (RANK_CONSTANT + position)
    return top(list(fused.items()), k=k)


def union(rankings: Mapping[str, Ranked]) -> NDArray[np.int64]:
    """All rows that any ranking has, ascending, each once."""
    return np.unique(np.asarray([row for ranking in rankings.values() for row, _ in ranking], np.int64))


def weighted(scores: Mapping[str, Floats], *, rows: NDArray[np.int64], weights: Mapping[str, float], k: int) -> Ranked:
    """The best `k` of the candidates `rows`, best first; ties by row. `scores`: for each origin those of all candidates, parallel
    to `rows`, NaN where not known; `weights`: one for each of these origins. Scores are from 0 to the sum of the weights."""
    features = comparable(scores)
    # In one order, whatever that of the mapping: sums of the same numbers are then the same to the last bit.
    total = sum((weights[origin] * features[origin] for origin in sorted(features)), np.zeros(len(rows)))
    return best(total, rows, k=k)
