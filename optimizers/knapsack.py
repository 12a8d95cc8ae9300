"""The 0/1 knapsack over whole chunks: the set of the largest summed relevance that the budget holds, exactly.

Dynamic programming over tokens (Bellman 1957), in O(candidates * budget): taking chunks by relevance per token is only an
approximation of it. Prices are those of chunks that stand alone, each with its mark and heading. Neighbours that share a
heading cost less together, and that room stays unused; marks of two digits cost more, and for them the choice is made again
for as many tokens less. Chunks of no positive relevance are never taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from optimizers.pool import Clock, Pool, Render, Watch
from optimizers.whole import STOPPED, price, readable, selected, tell, wholes
from rag.types import Point, Selection


def choose_by_knapsack(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool],
                       watch: Watch | None = None) -> Selection:
    """See the module. Chunks stand in retrieval order; the utility is their summed relevance. When it is stopped, the choice is
    exact among the candidates that were reached, the best first."""
    allowed, why_not = readable(pool)
    clock = Clock(stop)
    evaluations, items, costs = 0, [], []
    best, takes = np.zeros(budget + 1), []
    for i in allowed:
        if clock():
            why_not |= dict.fromkeys(allowed[evaluations:], STOPPED)
            break
        evaluations += 1
        candidate = pool.candidates[i]
        cost = candidate.tokens if candidate.tokens > budget else price(candidate, render)
        if candidate.relevance <= 0:
            why_not[i] = "it is not relevant"
        elif cost > budget:
            why_not[i] = f"its {candidate.tokens} tokens, mark and heading are over the budget of {budget}"
        else:
            best, take = added(best, value=candidate.relevance, cost=cost)
            items.append(i)
            costs.append(cost)
            takes.append(take)
    room = budget
    chosen = [items[place] for place in taken(takes, costs, room=room)]
    while chosen and (over := render(wholes(pool, chosen)).tokens - budget) > 0:
        room -= over
        chosen = [items[place] for place in taken(takes, costs, room=room)]
    if watch is not None:
        tell(watch, _prefixes(pool, chosen, render), budget=budget,
             asked=[(cost, pool.candidates[i].relevance) for i, cost in zip(items, costs, strict=True)])
    return selected(pool, chosen, utility=sum(pool.candidates[i].relevance for i in chosen), evaluations=evaluations,
                    why_not=why_not, otherwise="other candidates were worth more for the same tokens", clock=clock,
                    marginals={i: pool.candidates[i].relevance for i in chosen})


def _prefixes(pool: Pool, chosen: Sequence[int], render: Render) -> list[Point]:
    """Tokens and value of the first one, two, ... of the chosen: what a picture can show of a table."""
    return [(render(wholes(pool, chosen[:size])).tokens, sum(pool.candidates[i].relevance for i in chosen[:size]))
            for size in range(1, len(chosen) + 1)]


def added(best: NDArray[np.float64], *, value: float, cost: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The best value within each number of tokens, from 0 on, when one more item may be taken, and where it is: only where
    that is worth more than without it. `cost` is positive and within the table."""
    with_it = np.full(len(best), -np.inf)
    with_it[cost:] = value + best[:len(best) - cost]
    take = with_it > best
    return np.where(take, with_it, best), take


def taken(takes: Sequence[NDArray[np.bool_]], costs: Sequence[int], *, room: int) -> list[int]:
    """The items of a best set within `room` tokens, ascending, from where each was worth taking; of equal sets, the one whose
    items are earlier. Empty for no room."""
    chosen: list[int] = []
    for i in range(len(takes) - 1, -1, -1):
        if room > 0 and takes[i][room]:
            chosen.append(i)
            room -= costs[i]
    return chosen[::-1]
