"""The simple selectors: rank-order fill, with or without a cut, and sentences by similarity. Strong baselines where budgets are
small."""

from __future__ import annotations

from collections.abc import Callable

from optimizers.pool import Clock, Marginals, Pool, Render, Unit, Watch, check, duplicates, explain, group
from optimizers.whole import STOPPED, Basket, readable, selected, tell
from rag.types import Extract, Point, Selection

# Sentences are taken from this many of the best candidates; further ones add noise faster than answers.
SENTENCE_POOL = 12


def fill_by_rank(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], watch: Watch | None = None) -> Selection:
    """Chunks in rank order until the budget is full; the last one is cut at a sentence, and the trace says so. The utility is the
    sum of their scores."""
    check(pool)
    clock, twins = Clock(stop), duplicates(pool)
    chosen: list[Extract] = []
    scores: dict[int, float] = {}
    growth: list[Point] = []
    evaluations = 0
    full = False
    for i, candidate in enumerate(pool.candidates):
        if full or clock():
            break
        if i in twins or not candidate.chunk.sentences:
            continue
        for length in range(len(candidate.chunk.sentences), 0, -1):
            extract = Extract(candidate.chunk, tuple(range(length)))
            evaluations += 1
            if (tokens := render([*chosen, extract]).tokens) <= budget:
                chosen.append(extract)
                scores[i] = candidate.score
                growth.append((tokens, sum(scores.values())))
                full = not extract.whole
                break
        else:
            full = True
    tell(watch, growth, budget=budget)
    why_not = dict.fromkeys(range(len(pool.candidates)), STOPPED if clock.stopped else "the budget was full")
    why_not |= {i: "it has no sentence" for i, candidate in enumerate(pool.candidates) if not candidate.chunk.sentences}
    why_not |= _copies(twins)
    return Selection(tuple(chosen), utility=sum(scores.values()), evaluations=evaluations, degraded=clock.degraded,
                     considered=explain(pool, chosen, why_not.__getitem__, marginals=Marginals({}, scores)))


def fill_with_whole_chunks(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool],
                           watch: Watch | None = None) -> Selection:
    """Chunks in rank order, none of them cut, until the first that does not fit: the usual way of other frameworks, and the
    naive one. Smaller chunks behind it that would fit are not looked for."""
    allowed, why_not = readable(pool)
    clock, basket = Clock(stop), Basket(pool, budget, render)
    tried, utility = 0, 0.0
    for i in allowed:
        if clock():
            break
        tried += 1
        if not basket.add(i):
            break
        utility += pool.candidates[i].score
        basket.note(utility)
    tell(watch, basket.growth, budget=budget)
    otherwise = "a better candidate did not fit" if basket.refused else STOPPED
    return selected(pool, basket.chosen, utility=utility, evaluations=tried, why_not=why_not | basket.refused, otherwise=otherwise,
                    clock=clock, marginals={i: pool.candidates[i].score for i in basket.chosen})


def fill_by_similarity(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool],
                       watch: Watch | None = None) -> Selection:
    """Sentences of the best candidates by cosine to the question plus their chunk's, as long as they fit. The utility is the sum
    of those."""
    check(pool)
    clock, twins = Clock(stop), duplicates(pool)
    worth = {Unit(i, j): relevance + candidate.relevance
             for i, candidate in enumerate(pool.candidates[:SENTENCE_POOL]) if i not in twins
             for j, relevance in enumerate(candidate.sentence_relevance)}
    chosen: list[Unit] = []
    extracts: tuple[Extract, ...] = ()
    spent = evaluations = 0
    utility, growth = 0.0, []
    for unit in sorted(worth, key=lambda u: (-worth[u], u)):
        if clock():
            break
        if spent + pool.candidates[unit.candidate].sentence_tokens[unit.sentence] > budget:
            continue
        trial = group(pool, [*chosen, unit], order=_by_first_choice([*chosen, unit]))
        evaluations += 1
        tokens = render(trial).tokens
        if tokens <= budget:
            chosen, extracts, spent = [*chosen, unit], trial, tokens
            utility += worth[unit]
            growth.append((tokens, utility))
    tell(watch, growth, budget=budget)
    why_not = {i: f"only the best {SENTENCE_POOL} candidates are read" if i >= SENTENCE_POOL
               else "no sentence among the best that fit" for i in range(len(pool.candidates))}
    if clock.stopped:
        why_not |= dict.fromkeys(range(min(SENTENCE_POOL, len(pool.candidates))), STOPPED)
    why_not |= _copies(twins)
    mine = {i: sum(worth[unit] for unit in chosen if unit.candidate == i) for i in {unit.candidate for unit in chosen}}
    return Selection(extracts, utility=utility, evaluations=evaluations, degraded=clock.degraded, considered=explain(
        pool, extracts, why_not.__getitem__, marginals=Marginals({unit: worth[unit] for unit in chosen}, mine)))


def _by_first_choice(chosen: list[Unit]) -> list[int]:
    return list(dict.fromkeys(unit.candidate for unit in chosen))


def _copies(twins: dict[int, int]) -> dict[int, str]:
    return {i: f"same text as candidate {twin + 1}" for i, twin in twins.items()}
