"""The simple selectors: rank-order fill, with or without a cut, and sentences by similarity. Strong baselines where budgets are
small."""

from __future__ import annotations

from collections.abc import Callable

from optimizers.pool import Pool, Render, Unit, duplicates, explain, group
from optimizers.whole import Basket, readable, selected
from rag.types import Extract, Selection

# Sentences are taken from this many of the best candidates; further ones add noise faster than answers.
SENTENCE_POOL = 12


def fill_by_rank(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool]) -> Selection:
    """Chunks in rank order until the budget is full; the last one is cut at a sentence, and the trace says so."""
    twins = duplicates(pool)
    chosen: list[Extract] = []
    evaluations = 0
    full = False
    for i, candidate in enumerate(pool.candidates):
        if full or stop():
            break
        if i in twins:
            continue
        for length in range(len(candidate.chunk.sentences), 0, -1):
            extract = Extract(candidate.chunk, tuple(range(length)))
            evaluations += 1
            if render([*chosen, extract]).tokens <= budget:
                chosen.append(extract)
                full = not extract.whole
                break
        else:
            full = True
    reason = _reasons(twins, "the budget was full")
    return Selection(tuple(chosen), utility=sum(c.score for c in pool.candidates[:len(chosen)]), evaluations=evaluations,
                     considered=explain(pool, chosen, reason))


def fill_with_whole_chunks(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool]) -> Selection:
    """Chunks in rank order, none of them cut, until the first that does not fit: the usual way of other frameworks, and the
    naive one. Smaller chunks behind it that would fit are not looked for."""
    allowed, why_not = readable(pool)
    basket = Basket(pool, budget, render)
    tried = 0
    for i in allowed:
        if stop():
            break
        tried += 1
        if not basket.add(i):
            break
    otherwise = "a better candidate did not fit" if basket.refused else "the search was stopped"
    return selected(pool, basket.chosen, utility=sum(pool.candidates[i].score for i in basket.chosen), evaluations=tried,
                    why_not=why_not | basket.refused, otherwise=otherwise)


def fill_by_similarity(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool]) -> Selection:
    """Sentences of the best candidates by cosine to the question plus their chunk's, as long as they fit."""
    twins = duplicates(pool)
    worth = {Unit(i, j): relevance + candidate.relevance
             for i, candidate in enumerate(pool.candidates[:SENTENCE_POOL]) if i not in twins
             for j, relevance in enumerate(candidate.sentence_relevance)}
    chosen: list[Unit] = []
    extracts: tuple[Extract, ...] = ()
    spent = evaluations = 0
    for unit in sorted(worth, key=lambda u: (-worth[u], u)):
        if stop():
            break
        if spent + pool.candidates[unit.candidate].sentence_tokens[unit.sentence] > budget:
            continue
        trial = group(pool, [*chosen, unit], order=_by_first_choice([*chosen, unit]))
        evaluations += 1
        tokens = render(trial).tokens
        if tokens <= budget:
            chosen, extracts, spent = [*chosen, unit], trial, tokens
    reason = _reasons(twins, f"no sentence among the best that fit (the best {SENTENCE_POOL} candidates are read)")
    return Selection(extracts, utility=sum(worth[unit] for unit in chosen), evaluations=evaluations,
                     considered=explain(pool, extracts, reason))


def _by_first_choice(chosen: list[Unit]) -> list[int]:
    return list(dict.fromkeys(unit.candidate for unit in chosen))


def _reasons(twins: dict[int, int], otherwise: str) -> Callable[[int], str]:
    return lambda i: f"same text as candidate {twins[i] + 1}" if i in twins else otherwise
