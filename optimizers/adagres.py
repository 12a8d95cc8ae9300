"""AdaGReS (arXiv 2512.25052): greedy choice by relevance less redundancy, with a weight of redundancy that fits the pool.

    F(q, C) = alpha * sum over c of sim(q, c)  -  beta * sum over pairs of sim(c, d)
    beta    = scale * alpha * mean sim(q, x) / (kappa * (k - 1) * mean sim(x, y) + eps) + shift,   at least 0
    k       = budget / mean tokens of a candidate: how many are expected to fit

Chunks are taken by their gain in F until none gains or none fits. Similarities are cosines, negative ones counted as 0 as the
paper assumes; between chunks, of the means of their sentences' vectors (see `vectors`). Where we depart:

- The printed algorithm tries a chunk that does not fit for ever; here it is dropped and the next best tried.
- kappa is 1/2 as printed. The paper's own derivation, a gain of zero at a set of k - 1, leads to 1: half the penalty.
- k - 1 is at least 0: below one expected chunk the formula would reward redundancy.
- `cost_exponent` r, 0 as published, divides gains by tokens^r.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optimizers.pool import Clock, Pool, Render, Watch
from optimizers.vectors import mean_likeness, means, relevances
from optimizers.whole import STOPPED, Basket, readable, selected, tell
from rag.types import Selection

_EPS = 1e-6


@dataclass(frozen=True, slots=True)
class AdagresSettings:
    """Names as in the module; the defaults are the published ones."""

    alpha: float = 1.0
    kappa: float = 0.5
    scale: float = 1.0
    shift: float = 0.0
    cost_exponent: float = 0.0


PUBLISHED = AdagresSettings()


def choose_by_adagres(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], watch: Watch | None = None,
                      settings: AdagresSettings = PUBLISHED) -> Selection:
    """See the module. Chunks stand in the order in which they were taken; the utility is F of what was taken."""
    allowed, why_not = readable(pool)
    clock = Clock(stop)
    if not allowed:
        tell(watch, (), budget=budget)
        return selected(pool, (), utility=0.0, evaluations=0, why_not=why_not, otherwise=STOPPED, clock=clock)
    tokens = np.maximum([pool.candidates[i].tokens for i in allowed], 1)
    relevance = np.maximum(relevances(pool, allowed), 0.0)
    vectors = means(pool, allowed)
    beta = redundancy_weight(float(relevance.mean()), mean_likeness(vectors), expected=budget / float(tokens.mean()),
                             settings=settings)
    gains = settings.alpha * relevance
    basket = Basket(pool, budget, render)
    gone = np.zeros(len(allowed))       # -inf for those that were looked at
    utility, evaluations, otherwise = 0.0, 0, STOPPED
    for left in range(len(allowed), 0, -1):
        if clock():
            break
        evaluations += left
        best = int(np.argmax(gains / tokens ** settings.cost_exponent + gone))
        gain = float(gains[best])
        if gain <= 0:
            otherwise = "its redundancy outweighs its relevance" if basket.chosen else "it is not relevant"
            break
        gone[best] = -np.inf
        if basket.add(allowed[best]):
            utility += gain
            basket.note(utility)
            gains = gains - beta * np.maximum(vectors @ vectors[best], 0.0)
    tell(watch, basket.growth, budget=budget)
    # By the end the gain of what was taken is less by its likeness to those taken later, and to itself, which is no repetition.
    places = {i: place for place, i in enumerate(allowed)}
    mine = {i: float(gains[places[i]] + beta * max(0.0, float(vectors[places[i]] @ vectors[places[i]]))) for i in basket.chosen}
    return selected(pool, basket.chosen, utility=utility, evaluations=evaluations, why_not=why_not | basket.refused,
                    otherwise=otherwise, clock=clock, marginals=mine)


def redundancy_weight(relevance: float, likeness: float, *, expected: float, settings: AdagresSettings = PUBLISHED) -> float:
    """beta, from the mean non-negative cosines of a candidate to the question and of two candidates; `expected` is k."""
    penalty = settings.kappa * max(expected - 1, 0.0) * likeness
    return max(0.0, settings.scale * settings.alpha * relevance / (penalty + _EPS) + settings.shift)
