"""The only place where scores of different origins meet: reciprocal rank fusion (Cormack et al. 2009).

    s(d) = sum over origins r of 1 / (60 + rank_r(d)),  ranks from 1
"""

from __future__ import annotations

from collections.abc import Mapping

from retrievers.dense import Ranked, top

RANK_CONSTANT = 60


def reciprocal_rank(rankings: Mapping[str, Ranked], *, k: int) -> Ranked:
    """The best `k` rows over all rankings; ties by row."""
    fused: dict[int, float] = {}
    for ranking in rankings.values():
        for position, (row, _) in enumerate(ranking, 1):
            fused[row] = fused.get(row, 0.0) + 1.0 / (RANK_CONSTANT + position)
    return top(list(fused.items()), k=k)
