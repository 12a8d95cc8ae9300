"""The searches over sets of sentences as selectors: a pool in, an ordered selection out.

    chances -> packed -> a search of sets by `utility` -> order (`layout`) -> rendering, which decides about the budget

The estimated tokens guide the search. A best set whose rendering is over the budget all the same is banned and the search goes on;
after `ROUNDS` of that, sentences are taken out until it fits. What the trace tells comes from `trace`.

A search is stopped between two batches, and the chances come in one piece: where they took all the time there was, the sentences
are still chosen by them, greedily and by the set function alone, which takes milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from optimizers import beam, exact, lazy, mcts, relevance, trace
from optimizers.coefficients import Coefficients, shipped
from optimizers.layout import arranged
from optimizers.mcts import MctsSettings
from optimizers.packed import Floats, Ints, Rows, members, packed
from optimizers.pool import STOPPED_EARLY, Clock, Pool, Render, Unit, Watch, check, duplicates, explain, refused
from optimizers.space import NONE, Space
from optimizers.utility import SetUtility, Worth
from rag.types import Considered, Extract, Selection

ROUNDS = 8

Chances = Callable[[Pool], Mapping[Unit, float]]


class Search(Protocol):
    def __call__(self, space: Space) -> None:
        """Asks `space` for the worth of sets until it is done or the space is not open any more."""


def choose_lazily(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], watch: Watch | None = None) -> Selection:
    """Greedy by gain per token, see `lazy`."""
    return choose(pool, budget=budget, render=render, stop=stop, search=lazy.search, watch=watch)


def choose_by_beam(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], watch: Watch | None = None) -> Selection:
    """Beam search, see `beam`."""
    return choose(pool, budget=budget, render=render, stop=stop, search=beam.search, watch=watch)


def choose_exactly(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], watch: Watch | None = None) -> Selection:
    """Branch and bound, see `exact`."""
    return choose(pool, budget=budget, render=render, stop=stop, search=exact.search, watch=watch)


def choose_by_mcts(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], watch: Watch | None = None,
                   settings: MctsSettings = mcts.DEFAULT) -> Selection:
    """Monte Carlo tree search, see `mcts`."""
    return choose(pool, budget=budget, render=render, stop=stop, search=lambda space: mcts.search(space, settings=settings),
                  watch=watch)


def choose(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], search: Search,
           chances: Chances = relevance.chances, coefficients: Coefficients | None = None, worth: Worth | None = None,
           limit: int | None = None, watch: Watch | None = None) -> Selection:
    """The best set that `search` finds. `worth` None: the set function. `limit`: sets whose worth may be computed.

    `evaluations` counts those. The utility is the worth of what was chosen, 0 of nothing; it may be negative, because the best
    there is is taken even if it costs more than it is worth. Raises InputError as `check` and `packed` do, and for a worth
    that is no finite number.
    """
    check(pool)
    given, clock = coefficients or shipped(), Clock(stop)
    known = {} if clock() else chances(pool)
    arrays, rows = packed(pool, chances=known, coefficients=given, budget=budget, render=render)
    utility, calls = SetUtility(arrays, given), 0
    chance = arrays.chance.tolist()
    asked = None if worth is None else _refusing(worth, pool, rows)
    banned: set[int] = set()
    last = 0                    # the set that was banned last
    while True:
        space = Space(utility, clock, worth=asked, limit=None if limit is None else limit - calls, banned=frozenset(banned))
        if rows.units and budget > 0:
            search(space)
            if space.stopped and not (space.best or last):
                space = _late(space)
        calls += space.calls
        chosen = space.best or last
        extracts = ordered(pool, rows, chosen, chance)
        if not extracts or render(extracts).tokens <= budget:
            break
        banned.add(chosen)
        if len(banned) == ROUNDS or space.cut or chosen == last:
            chosen, extracts = _shortened(pool, rows, chosen, chance, budget=budget, render=render)
            break
        last = chosen
    other = trace.next_best(pool, rows, space, chosen=chosen) if chosen else None
    value = space.known.get(chosen, NONE)
    if chosen and value == NONE:
        [value] = (utility if space.worth is None else space.worth)([chosen]).tolist()
    if watch is not None:
        watch(trace.path(space, chosen=chosen, other=other[0] if other else None))
    return Selection(extracts, utility=value if chosen else 0.0, evaluations=calls, degraded=_degraded(space, clock, limit),
                     considered=_considered(pool, rows, space, search, known, chosen, extracts),
                     next_best=other[1] if other else None)


def ordered(pool: Pool, rows: Rows, bits: int, chance: Sequence[float]) -> tuple[Extract, ...]:
    """The rendering order of a set, see `layout`: by chance."""
    chosen = members(bits)
    return arranged(pool, [rows.units[row] for row in chosen], worth=[chance[row] for row in chosen])


def _late(space: Space) -> Space:
    """Where the time was up before any set was asked about, because the chances took it: greedy, by the set function alone."""
    late = Space(space.utility, lambda: False)
    late.score([1 << row for row in range(late.rows)])
    lazy.grow(late, power=lazy.POWERS[0])
    late.cut = late.stopped = True
    return late


def _shortened(pool: Pool, rows: Rows, bits: int, chance: Sequence[float], *, budget: int,
               render: Render) -> tuple[int, tuple[Extract, ...]]:
    """The set without its least likely sentences, as many as it takes."""
    for row in sorted(members(bits), key=lambda row: (chance[row], -row)):
        extracts = ordered(pool, rows, bits, chance)
        if render(extracts).tokens <= budget:
            break
        bits &= ~(1 << row)
    return bits, ordered(pool, rows, bits, chance)


def _refusing(worth: Worth, pool: Pool, rows: Rows) -> Worth:
    """`worth`, but for values that no search can go by."""
    def asked(sets: Sequence[int] | Ints) -> Floats:
        values = worth(sets)
        for bits, value in zip(sets, values.tolist(), strict=True):
            if not math.isfinite(value):
                i = rows.units[members(int(bits))[0]].candidate
                raise refused(pool.candidates[i], i, f"the worth {value} in a set of {int(bits).bit_count()} sentences")
        return values

    return asked


def _considered(pool: Pool, rows: Rows, space: Space, search: Search, chances: Mapping[Unit, float], chosen: int,
                extracts: Sequence[Extract]) -> tuple[Considered, ...]:
    if not chances and pool.candidates:
        twins = duplicates(pool)
        return explain(pool, extracts, lambda i: f"same text as candidate {twins[i] + 1}" if i in twins
                       else "the search was stopped before it began")
    about = trace.told(pool, rows, space, chosen=chosen, ended=_ended(space, search))
    return explain(pool, extracts, about.reasons.__getitem__, chances=chances, marginals=about.marginals)


def _ended(space: Space, search: Search) -> str:
    if space.cut:
        return " before the search was stopped"
    return ", which was not proven to be the best there is" if search is exact.search and not space.proven else ""


def _degraded(space: Space, clock: Clock, limit: int | None) -> str | None:
    if clock.stopped:
        return STOPPED_EARLY
    if space.cut:
        return f"limit: {limit} sets were asked about, which is all that was allowed; this is the best of them"
    return None
