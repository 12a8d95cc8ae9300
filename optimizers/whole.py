"""Whole chunks under a budget: which may be chosen, what each costs in a context, and adding them while they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from optimizers.pool import NO_MARGINALS, Candidate, Clock, Marginals, Pool, Render, Watch, check, duplicates, explain
from rag.types import Extract, NextBest, Point, SearchPath, Selection, whole

STOPPED = "the search was stopped before it was considered"


def readable(pool: Pool) -> tuple[list[int], dict[int, str]]:
    """The candidates that may be chosen whole, in retrieval order, and for each of the others why not. Raises as `check` does."""
    check(pool)
    why = {i: f"same text as candidate {twin + 1}" for i, twin in duplicates(pool).items()}
    why |= {i: "it has no sentence" for i, candidate in enumerate(pool.candidates) if not candidate.chunk.sentences}
    return [i for i in range(len(pool.candidates)) if i not in why], why


def wholes(pool: Pool, chosen: Sequence[int]) -> tuple[Extract, ...]:
    return tuple(whole(pool.candidates[i].chunk) for i in chosen)


def price(candidate: Candidate, render: Render) -> int:
    """Tokens of a context that holds this candidate alone. Its text was counted already; what mark and heading add is found by
    rendering the last sentence, because a whole chunk ends like it and is several times as long.

    A context costs the sum of its candidates' prices, less headings that neighbours share, plus the second digits of marks.
    """
    last = len(candidate.chunk.sentences) - 1
    return max(1, candidate.tokens + render([Extract(candidate.chunk, (last,))]).tokens - candidate.sentence_tokens[last])


@dataclass(slots=True)
class Basket:
    """Candidates that were added, in that order. What it holds renders to at most `budget` tokens, always. `growth`: its tokens and
    worth after each, for those who note them."""

    pool: Pool
    budget: int
    render: Render
    chosen: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    tokens: int = 0
    growth: list[Point] = field(default_factory=list)

    def note(self, worth: float) -> None:
        self.growth.append((self.tokens, worth))

    def add(self, i: int) -> bool:
        """Adds candidate `i` at the end if everything still fits; otherwise notes why not."""
        tokens = self.pool.candidates[i].tokens
        # The bare text is a lower bound of what it adds, so that most of what does not fit is never rendered.
        if self.tokens + tokens <= self.budget:
            trial = self.render(wholes(self.pool, [*self.chosen, i])).tokens
            if trial <= self.budget:
                self.chosen.append(i)
                self.tokens = trial
                return True
        self.refused[i] = f"its {tokens} tokens, mark and heading did not fit into the {self.budget - self.tokens} that were left"
        return False


def selected(pool: Pool, chosen: Sequence[int], *, utility: float, evaluations: int, why_not: Mapping[int, str],
             otherwise: str, clock: Clock, marginals: Mapping[int, float] | None = None,
             next_best: NextBest | None = None) -> Selection:
    """The selection of these whole candidates in this order; `otherwise` explains those that `why_not` does not name."""
    extracts = wholes(pool, chosen)
    considered = explain(pool, extracts, lambda i: why_not.get(i, otherwise),
                         marginals=Marginals({}, marginals) if marginals else NO_MARGINALS)
    return Selection(extracts, utility=utility, evaluations=evaluations, considered=considered, degraded=clock.degraded,
                     next_best=next_best)


def tell(watch: Watch | None, growth: Sequence[Point], *, budget: int, asked: Sequence[Point] | None = None) -> None:
    """The way of a selector that grows one set, or of one that also `asked` about others."""
    if watch is not None:
        watch(SearchPath(budget=budget, asked=tuple(growth if asked is None else asked), growth=tuple(growth),
                         chosen=growth[-1] if growth else None))
