"""The searches over sets of sentences as selectors: a pool in, an ordered selection out.

    chances -> packed -> a search of sets by `utility` -> order -> rendering, which decides about the budget

The estimated tokens guide the search. A best set whose rendering is over the budget all the same is banned and the search goes on;
after `ROUNDS` of that, sentences are taken out until it fits.

Order: sentences as they stand in their passage; passages of one heading one after the other, those of one document as they stand
there; headings by their best sentence. So a heading is paid once, and what matters most comes first, which small readers need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from optimizers import beam, exact, lazy, mcts, relevance
from optimizers.coefficients import Coefficients, shipped
from optimizers.mcts import MctsSettings
from optimizers.packed import Rows, members, packed
from optimizers.pool import Pool, Render, Unit, duplicates, explain, group
from optimizers.space import NONE, Space
from optimizers.utility import SetUtility, Worth
from rag.types import Extract, Selection

ROUNDS = 8

Chances = Callable[[Pool], Mapping[Unit, float]]


class Search(Protocol):
    def __call__(self, space: Space) -> None:
        """Asks `space` for the worth of sets until it is done or the space is not open any more."""


def choose_lazily(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool]) -> Selection:
    """Greedy by gain per token, see `lazy`."""
    return choose(pool, budget=budget, render=render, stop=stop, search=lazy.search)


def choose_by_beam(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool]) -> Selection:
    """Beam search, see `beam`."""
    return choose(pool, budget=budget, render=render, stop=stop, search=beam.search)


def choose_exactly(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool]) -> Selection:
    """Branch and bound, see `exact`."""
    return choose(pool, budget=budget, render=render, stop=stop, search=exact.search)


def choose_by_mcts(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool],
                   settings: MctsSettings = mcts.DEFAULT) -> Selection:
    """Monte Carlo tree search, see `mcts`."""
    return choose(pool, budget=budget, render=render, stop=stop, search=lambda space: mcts.search(space, settings=settings))


def choose(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], search: Search,
           chances: Chances = relevance.chances, coefficients: Coefficients | None = None, worth: Worth | None = None,
           limit: int | None = None) -> Selection:
    """The best set that `search` finds. `worth` None: the set function. `limit`: sets whose worth may be computed.

    `evaluations` counts those. The utility is the worth of what was chosen, 0 of nothing; it may be negative, because the best
    there is is taken even if it costs more than it is worth. Raises as `packed` does.
    """
    given = coefficients or shipped()
    arrays, rows = packed(pool, chances=chances(pool), coefficients=given, budget=budget, render=render)
    utility, calls = SetUtility(arrays, given), 0
    banned: set[int] = set()
    while True:
        space = Space(utility, stop, worth=worth, limit=None if limit is None else limit - calls, banned=frozenset(banned))
        if rows.units and budget > 0:
            search(space)
        calls += space.calls
        extracts = ordered(pool, rows, space.best, arrays.chance.tolist())
        if not extracts or render(extracts).tokens <= budget:
            break
        banned.add(space.best)
        if len(banned) == ROUNDS or space.cut:
            space.value = NONE
            space.best, extracts = _shortened(pool, rows, space, arrays.chance.tolist(), budget=budget, render=render)
            break
    value = space.known.get(space.best, NONE)
    twins = duplicates(pool)
    ended = _ended(space, search)
    considered = explain(pool, extracts, lambda i: f"same text as candidate {twins[i] + 1}" if i in twins
                         else f"no sentence can be worth its tokens{ended}" if i in rows.dropped
                         else f"not in the best set that was found{ended}")
    if space.best and value == NONE:
        [value] = (utility if worth is None else worth)([space.best]).tolist()
    return Selection(extracts, utility=value if space.best else 0.0, evaluations=calls, considered=considered)


def ordered(pool: Pool, rows: Rows, bits: int, chance: list[float]) -> tuple[Extract, ...]:
    """The rendering order of a set, see the module."""
    best: dict[int, float] = {}
    chosen = members(bits)
    for row in chosen:
        i = rows.units[row].candidate
        best[i] = max(best.get(i, 0.0), chance[row])
    above: dict[tuple[str, str, int], float] = {}
    for i, value in best.items():
        above[_under(pool, i)] = max(above.get(_under(pool, i), 0.0), value)
    first = {key: min(i for i in best if _under(pool, i) == key) for key in above}
    documents: dict[tuple[tuple[str, str, int], str], tuple[float, int]] = {}
    for i, value in best.items():
        key = (_under(pool, i), pool.candidates[i].chunk.doc_id)
        known = documents.get(key, (0.0, i))
        documents[key] = (max(known[0], value), min(known[1], i))

    def place(i: int) -> tuple[float, int, float, int, int, int]:
        key = _under(pool, i)
        value, earliest = documents[key, pool.candidates[i].chunk.doc_id]
        return -above[key], first[key], -value, earliest, pool.candidates[i].chunk.ordinal, i

    return group(pool, [rows.units[row] for row in chosen], order=sorted(best, key=place))


def _under(pool: Pool, i: int) -> tuple[str, str, int]:
    chunk = pool.candidates[i].chunk
    return (chunk.title, chunk.heading, -1 if chunk.title or chunk.heading else i)


def _shortened(pool: Pool, rows: Rows, space: Space, chance: list[float], *, budget: int,
               render: Render) -> tuple[int, tuple[Extract, ...]]:
    """The set without its least likely sentences, as many as it takes."""
    bits = space.best
    for row in sorted(members(bits), key=lambda row: (chance[row], -row)):
        extracts = ordered(pool, rows, bits, chance)
        if render(extracts).tokens <= budget:
            break
        bits &= ~(1 << row)
    return bits, ordered(pool, rows, bits, chance)


def _ended(space: Space, search: Search) -> str:
    if space.cut:
        return " before the search was stopped"
    return ", which was not proven to be the best there is" if search is exact.search and not space.proven else ""
