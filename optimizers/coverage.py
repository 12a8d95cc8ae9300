"""Choice for questions about all texts together: as many of the groups of texts as the budget holds, the weightiest first.

    U(S) = sum over candidates c of  w_c * (1 - 2^(-|S in c|)),   w_c the candidate's score

so each further sentence of one candidate counts half of the one before. U is monotone and submodular; sentences are taken greedily
by what they add per token^`_COST`. There is no price: what stands for many texts is worth its tokens, and summaries are short.
Candidates named in `quotes`, which stand for one text each, may take `_QUOTES` of the budget together, and come last.
"""

from __future__ import annotations

from collections.abc import Callable

from optimizers.pool import Clock, Marginals, Pool, Render, Unit, Watch, check, duplicates, explain, group
from rag.types import Extract, Point, SearchPath, Selection

NAME = "coverage"
_COST = 0.3
_QUOTES = 0.1
_REPEATS = 0.95


def choose_by_coverage(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], watch: Watch | None = None,
                       quotes: frozenset[int] = frozenset()) -> Selection:
    """See the module. Candidates stand in the order of the pool. Raises InputError as `check`."""
    check(pool)
    clock, twins = Clock(stop), duplicates(pool)
    chosen: list[Unit] = []
    extracts: tuple[Extract, ...] = ()
    why_not = {i: f"same text as candidate {twin + 1}" for i, twin in twins.items()}
    growth: list[Point] = []
    utility, evaluations = 0.0, 0
    for several in (False, True):
        open_units = {Unit(i, j): candidate.sentence_tokens[j] for i, candidate in enumerate(pool.candidates)
                      if i not in twins and (i in quotes) == several for j in range(len(candidate.chunk.sentences))}
        allowed, before = (int(_QUOTES * budget), render(extracts).tokens if extracts else 0) if several else (budget, 0)
        while open_units and not clock():
            worth = {unit: _gain(pool, chosen, unit) / max(1, tokens) ** _COST for unit, tokens in open_units.items()}
            unit = min(worth, key=lambda u: (-worth[u], u))
            open_units.pop(unit)
            evaluations += 1
            if _repeated(pool, chosen, unit):
                why_not.setdefault(unit.candidate, "says the same as another candidate")
                continue
            trial = group(pool, [*chosen, unit], order=range(len(pool.candidates)))
            tokens = render(trial).tokens
            if tokens > budget or tokens - before > allowed:
                why_not.setdefault(unit.candidate, f"did not fit: {tokens} tokens with what was chosen"
                                   if not several else f"single texts may take {allowed} tokens")
                continue
            utility += _gain(pool, chosen, unit)
            chosen, extracts = [*chosen, unit], trial
            growth.append((tokens, utility))
    if watch is not None:
        watch(SearchPath(budget=budget, asked=tuple(growth), growth=tuple(growth), chosen=growth[-1] if growth else None))
    mine = {i: pool.candidates[i].score * (1 - 0.5 ** sum(unit.candidate == i for unit in chosen))
            for i in {unit.candidate for unit in chosen}}
    return Selection(extracts, utility=utility, evaluations=evaluations, degraded=clock.degraded, considered=explain(
        pool, extracts, lambda i: why_not.get(i, "the search was stopped" if clock.stopped else "it has no sentence"),
        marginals=Marginals({}, mine)))


def _gain(pool: Pool, chosen: list[Unit], unit: Unit) -> float:
    return pool.candidates[unit.candidate].score * 0.5 ** (1 + sum(other.candidate == unit.candidate for other in chosen))


def _repeated(pool: Pool, chosen: list[Unit], unit: Unit) -> bool:
    vector = pool.candidates[unit.candidate].sentence_vectors[unit.sentence]
    return any(float(pool.candidates[other.candidate].sentence_vectors[other.sentence] @ vector) >= _REPEATS for other in chosen)
