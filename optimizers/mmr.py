"""Maximal marginal relevance over whole chunks (Carbonell and Goldstein, SIGIR 1998), as a baseline.

    next = argmax over x not in S of  weight * sim(q, x) - (1 - weight) * max over s in S of sim(x, s)

sim(q, x) is retrieval's cosine of the chunk to the question, sim(x, s) that of the means of their sentences' vectors (see
`vectors`). The paper suggests a weight of 0.3 to look around and of 0.7 to focus, and an answer under a budget needs focus; the
default of most libraries is 0.5. It ranks without a budget; here a chunk that does not fit is passed over, and the next is tried.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from optimizers.pool import Clock, Pool, Render, Watch
from optimizers.vectors import means, relevances
from optimizers.whole import STOPPED, Basket, readable, selected, tell
from rag.types import Selection

WEIGHT = 0.7


def choose_by_mmr(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], watch: Watch | None = None,
                  weight: float = WEIGHT) -> Selection:
    """See the module. Chunks stand in the order in which they were taken; `weight` 1 ranks by relevance alone."""
    allowed, why_not = readable(pool)
    clock = Clock(stop)
    basket = Basket(pool, budget, render)
    relevance, vectors = relevances(pool, allowed), means(pool, allowed)
    nearest = np.zeros(len(allowed))    # of each to those taken; nothing is taken yet
    gone = np.zeros(len(allowed))       # -inf for those that were looked at
    utility, evaluations = 0.0, 0
    for left in range(len(allowed), 0, -1):
        if clock():
            break
        worth = weight * relevance - (1 - weight) * nearest + gone
        evaluations += left
        best = int(np.argmax(worth))
        gone[best] = -np.inf
        if basket.add(allowed[best]):
            near = vectors @ vectors[best]
            nearest = np.maximum(nearest, near) if len(basket.chosen) > 1 else near
            utility += float(worth[best])
            basket.note(utility)
    tell(watch, basket.growth, budget=budget)
    return selected(pool, basket.chosen, utility=utility, evaluations=evaluations, why_not=why_not | basket.refused,
                    otherwise=STOPPED, clock=clock)
