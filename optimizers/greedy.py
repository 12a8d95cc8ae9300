"""Greedy choice of sentences by worth per token under a knapsack, with a stop: the default selector.

The worth of a set S of sentences for a question with terms t of weight w_t (sum 1):

    U(S) = [1 - prod over u in S of (1 - p_u)]  +  GAMMA * sum over t of w_t * max over u in S with t of p_u^(1/2)

The first term is the chance that some chosen sentence holds the answer if they were independent, p_u as in `relevance`.
The second rewards covering different parts of the question by sentences that are relevant themselves, which is what
brings in the second hop. Both are monotone and submodular, so gains only shrink as the set grows. Spending is charged: a
sentence must gain at least LAMBDA per PRICE_TOKENS of its tokens, because readers get worse with every passage that does not
help. So the choice often ends well under the budget, and that is meant.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from optimizers import relevance
from optimizers.pool import Pool, Render, Unit, duplicates, explain, group
from rag.types import Extract, Selection

GAMMA = 0.1
COST_EXPONENT = 0.3
LAMBDA = 0.1
PRICE_TOKENS = 100
NEAR_DUPLICATE = 0.95


@dataclass(slots=True)
class _Set:
    """The sentences chosen so far and what is needed to price the next."""

    chosen: list[Unit] = field(default_factory=list)
    extracts: tuple[Extract, ...] = ()
    tokens: int = 0
    missing: float = 1.0        # the chance that no chosen sentence holds the answer
    covered: dict[str, float] = field(default_factory=dict)
    utility: float = 0.0


def choose_greedily(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool]) -> Selection:
    """See the module. Sentences of one chunk stay in their order; chunks are ordered by their best sentence."""
    chances = relevance.chances(pool)
    twins = duplicates(pool)
    total = sum(pool.term_weights.values()) or 1.0
    state = _Set()
    open_units = {unit: p for unit, p in chances.items() if unit.candidate not in twins}
    evaluations = 0
    while open_units and not stop():
        gains = {unit: _gain(pool, state, unit, p, total) for unit, p in open_units.items()}
        evaluations += len(gains)
        unit = min(gains, key=lambda u: (-gains[u] / _tokens(pool, u) ** COST_EXPONENT, u))
        p = open_units.pop(unit)
        # Whether anything is worth reading at all is the filter's question: the best sentence is always bought.
        if state.chosen and gains[unit] < LAMBDA * _tokens(pool, unit) / PRICE_TOKENS:
            break
        if _repeats(pool, state, unit):
            continue
        chosen = [*state.chosen, unit]
        trial = group(pool, chosen, order=list(dict.fromkeys(u.candidate for u in chosen)))
        tokens = render(trial).tokens
        if tokens > budget:
            continue
        covered = dict(state.covered)
        for term in pool.candidates[unit.candidate].sentence_terms[unit.sentence]:
            covered[term] = max(covered.get(term, 0.0), math.sqrt(p))
        state = _Set(chosen, trial, tokens, state.missing * (1 - p), covered, state.utility + gains[unit])
    considered = explain(pool, state.extracts, lambda i: f"same text as candidate {twins[i] + 1}" if i in twins
                         else "no sentence was worth its tokens")
    return Selection(state.extracts, utility=state.utility, evaluations=evaluations, considered=considered)


def _gain(pool: Pool, state: _Set, unit: Unit, p: float, total: float) -> float:
    terms = pool.candidates[unit.candidate].sentence_terms[unit.sentence]
    # Sorted, because the order of a set of strings changes between runs and floating sums change with it.
    new = sum(pool.term_weights[t] * max(0.0, math.sqrt(p) - state.covered.get(t, 0.0)) for t in sorted(terms))
    return state.missing * p + GAMMA * new / total


def _tokens(pool: Pool, unit: Unit) -> int:
    return max(1, pool.candidates[unit.candidate].sentence_tokens[unit.sentence])


def _repeats(pool: Pool, state: _Set, unit: Unit) -> bool:
    vector = pool.candidates[unit.candidate].sentence_vectors[unit.sentence]
    return any(float(pool.candidates[u.candidate].sentence_vectors[u.sentence] @ vector) > NEAR_DUPLICATE for u in state.chosen)
