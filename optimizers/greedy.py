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

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from optimizers import relevance
from optimizers.layout import arranged
from optimizers.pool import Clock, Marginals, Pool, Render, Unit, Watch, check, check_chances, duplicates, explain
from optimizers.trace import parts
from rag.types import Extract, NextBest, Point, SearchPath, Selection

GAMMA = 0.2
COST_EXPONENT = 0.3
LAMBDA = 0.15
PRICE_TOKENS = 100
NEAR_DUPLICATE = 0.95
_TRIES = 4                  # sets that may prove to be over the budget before the next best is given up


@dataclass(slots=True)
class _Set:
    """The sentences chosen so far and what is needed to price the next."""

    chosen: list[Unit] = field(default_factory=list)
    extracts: tuple[Extract, ...] = ()
    tokens: int = 0
    missing: float = 1.0        # the chance that no chosen sentence holds the answer
    covered: dict[str, float] = field(default_factory=dict)
    utility: float = 0.0


@dataclass(slots=True)
class _Way:
    """What the trace is made of: each set that was grown, with what every open sentence would have added to it."""

    rounds: list[tuple[_Set, dict[Unit, float]]] = field(default_factory=list)
    refused: dict[Unit, str] = field(default_factory=dict)


def choose_greedily(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], watch: Watch | None = None,
                    chances: Callable[[Pool], Mapping[Unit, float]] = relevance.chances) -> Selection:
    """See the module. Passages stand as `layout` has them, by their earliest choice.

    Chances that took all the time there was are still used for one sentence. Raises InputError as `check` and `check_chances` do.
    """
    check(pool)
    clock = Clock(stop)
    known = {} if clock() else chances(pool)
    began = not clock.stopped
    check_chances(pool, known)
    twins = duplicates(pool)
    total = sum(pool.term_weights.values()) or 1.0
    state, way = _Set(), _Way()
    open_units = {unit: p for unit, p in known.items() if unit.candidate not in twins}
    evaluations = 0
    while open_units and not (clock() and (state.chosen or not began)):
        gains = {unit: _gain(pool, state, unit, p, total) for unit, p in open_units.items()}
        evaluations += len(gains)
        way.rounds.append((state, gains))
        unit = min(gains, key=lambda u: (-gains[u] / _tokens(pool, u) ** COST_EXPONENT, u))
        p = open_units.pop(unit)
        # Whether anything is worth reading at all is the filter's question: the best sentence is always bought.
        if state.chosen and gains[unit] < _price(pool, unit):
            break
        same = _repeated(pool, state, unit)
        if same is not None:
            way.refused[unit] = f"says the same as candidate {same.candidate + 1}"
            continue
        chosen = [*state.chosen, unit]
        trial = arranged(pool, chosen, worth=range(0, -len(chosen), -1))
        tokens = render(trial).tokens
        if tokens > budget:
            way.refused[unit] = f"its best sentence did not fit: {tokens} tokens with what was chosen, over the budget of {budget}"
            continue
        covered = dict(state.covered)
        for term in pool.candidates[unit.candidate].sentence_terms[unit.sentence]:
            covered[term] = max(covered.get(term, 0.0), math.sqrt(p))
        state = _Set(chosen, trial, tokens, state.missing * (1 - p), covered, state.utility + gains[unit])
    reasons = {i: f"same text as candidate {twin + 1}" for i, twin in twins.items()}
    otherwise = _reasons(pool, way, stopped=clock.stopped)
    considered = explain(pool, state.extracts, lambda i: reasons.get(i) or otherwise.get(i, "it has no sentence with a chance"),
                         chances=known, marginals=_marginals(pool, state, known, total))
    other = _next_best(pool, state, way, budget, render)
    if watch is not None:
        watch(_path(pool, state, way, budget, other))
    return Selection(state.extracts, utility=state.utility, evaluations=evaluations, considered=considered,
                     degraded=clock.degraded, next_best=other)


def _reasons(pool: Pool, way: _Way, *, stopped: bool) -> dict[int, str]:
    """Why nothing of a candidate was chosen, for those that were open: by its sentence that was refused, else by what its best one
    would have added in the last round."""
    gains = way.rounds[-1][1] if way.rounds else {}
    best: dict[int, Unit] = {}
    for unit in gains:
        known = best.get(unit.candidate)
        if known is None or gains[unit] > gains[known]:
            best[unit.candidate] = unit
    found = {}
    for i, unit in best.items():
        price = _price(pool, unit)
        found[i] = f"its best sentence would add {gains[unit]:.4f}, and its {_tokens(pool, unit)} tokens cost {price:.4f}"
        if stopped or gains[unit] >= price:
            found[i] = f"its best sentence would add {gains[unit]:.4f}; others added more for their tokens"
        if stopped:
            found[i] += " before the search was stopped"
    return found | {unit.candidate: why for unit, why in reversed(way.refused.items())} if way.rounds else dict.fromkeys(
        range(len(pool.candidates)), "the search was stopped before it began")


def _marginals(pool: Pool, state: _Set, chances: Mapping[Unit, float], total: float) -> Marginals:
    """U(S) - U(S without it), for each sentence and each passage."""
    whole = _worth(pool, state.chosen, chances, total)
    sentences = {unit: whole - _worth(pool, [u for u in state.chosen if u != unit], chances, total) for unit in state.chosen}
    return Marginals(sentences, {i: whole - _worth(pool, [u for u in state.chosen if u.candidate != i], chances, total)
                                 for i in {unit.candidate for unit in state.chosen}})


def _worth(pool: Pool, chosen: Sequence[Unit], chances: Mapping[Unit, float], total: float) -> float:
    """U, as the module writes it."""
    best: dict[str, float] = {}
    for unit in chosen:
        for term in pool.candidates[unit.candidate].sentence_terms[unit.sentence]:
            best[term] = max(best.get(term, 0.0), math.sqrt(chances[unit]))
    covered = sum(pool.term_weights[term] * best[term] for term in sorted(best))
    return 1 - math.prod(1 - chances[unit] for unit in chosen) + GAMMA * covered / total


def _next_best(pool: Pool, state: _Set, way: _Way, budget: int, render: Render) -> NextBest | None:
    """Of the sets of the last two rounds, the one whose utility less the price of its sentences is highest."""
    chosen = set(state.chosen)
    found = []
    for grown, gains in way.rounds[-2:]:
        paid = sum(_price(pool, unit) for unit in grown.chosen)
        found += [(grown.utility + gain - paid - _price(pool, unit), -place, grown, unit, gain)
                  for place, (unit, gain) in enumerate(gains.items())
                  if unit not in way.refused and {*grown.chosen, unit} != chosen]
    for _, _, grown, unit, gain in heapq.nlargest(_TRIES, found, key=lambda row: row[:2]):
        picked = [*grown.chosen, unit]
        tokens = render(arranged(pool, picked, worth=range(0, -len(picked), -1))).tokens
        if tokens <= budget and _repeated(pool, grown, unit) is None:
            return NextBest(grown.utility + gain, tokens, added=parts(pool, list({*picked} - chosen)),
                            removed=parts(pool, list(chosen - {*picked})))
    return None


def _path(pool: Pool, state: _Set, way: _Way, budget: int, other: NextBest | None) -> SearchPath:
    """Sets that were only asked about cost what they hold, without mark and heading."""
    asked = [(grown.tokens + _tokens(pool, unit), grown.utility + gain) for grown, gains in way.rounds
             for unit, gain in gains.items()]
    growth: list[Point] = list(dict.fromkeys((grown.tokens, grown.utility) for grown, _ in way.rounds if grown.chosen))
    last = (state.tokens, state.utility)
    if state.chosen and growth[-1:] != [last]:
        growth.append(last)
    return SearchPath(budget=budget, asked=tuple(asked), growth=tuple(growth), chosen=last if state.chosen else None,
                      next_best=(other.tokens, other.utility) if other else None)


def _gain(pool: Pool, state: _Set, unit: Unit, p: float, total: float) -> float:
    terms = pool.candidates[unit.candidate].sentence_terms[unit.sentence]
    # Sorted, because the order of a set of strings changes between runs and floating sums change with it.
    new = sum(pool.term_weights[t] * max(0.0, math.sqrt(p) - state.covered.get(t, 0.0)) for t in sorted(terms))
    return state.missing * p + GAMMA * new / total


def _tokens(pool: Pool, unit: Unit) -> int:
    return max(1, pool.candidates[unit.candidate].sentence_tokens[unit.sentence])


def _price(pool: Pool, unit: Unit) -> float:
    return LAMBDA * _tokens(pool, unit) / PRICE_TOKENS


def _repeated(pool: Pool, state: _Set, unit: Unit) -> Unit | None:
    """The chosen sentence that says the same."""
    vector = pool.candidates[unit.candidate].sentence_vectors[unit.sentence]
    return next((u for u in state.chosen
                 if float(pool.candidates[u.candidate].sentence_vectors[u.sentence] @ vector) > NEAR_DUPLICATE), None)
