"""The knowledge filter: which candidates are worth a selector's time (ERM4's third module; Shi et al. 2024, arXiv 2407.10670).

A candidate is kept if its likeliest sentence answers with at least a threshold's chance. The second passage of a question of
several parts seldom answers by itself, so a few of the best are kept whatever their chance. The threshold is calibrated by
`python -m optimizers.training.relevance --keep SHARE`: the largest under which that share of the right candidates of questions
that it was not fitted on stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from optimizers.pool import Pool, Unit, best_of


def filtered(pool: Pool, chances: Mapping[Unit, float], *, below: float, floor: int) -> Pool:
    """The pool with `dropped`: candidates whose best sentence has a chance under `below`, but for the `floor` best of all."""
    best = best_of(chances)
    ranked = sorted(best, key=lambda i: (-best[i], i))
    return dataclasses.replace(pool, dropped=frozenset(i for i in ranked[floor:] if best[i] < below))


def threshold(right: list[float], *, keep: float) -> float:
    """The largest chance that at least the share `keep` of these reaches.

    Raises:
        ValueError: there are none, or the share is not above 0 and at most 1.
    """
    if not right or not 0 < keep <= 1:
        raise ValueError(f"There is no threshold that keeps {keep} of {len(right)}.")
    ranked = sorted(right, reverse=True)
    return ranked[max(1, -int(-keep * len(ranked) // 1)) - 1]
