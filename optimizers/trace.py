"""What a search over sets of sentences can tell about its choice: what each part of it is worth, why the rest was left out, what
the next best set was, and the way to it.

Everything comes from what the search kept, and from one batch of the set function more. A worth that reads texts is never asked
again: where it did not see a set, nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optimizers import lazy
from optimizers.packed import MOST, Rows, members
from optimizers.pool import Marginals, Pool, Unit, duplicates
from optimizers.space import NONE, Space
from optimizers.utility import NEVER
from rag.types import Extract, NextBest, Part, SearchPath


@dataclass(frozen=True, slots=True)
class Told:
    """`reasons`: for each candidate of which nothing was chosen."""

    marginals: Marginals
    reasons: Mapping[int, str]


def told(pool: Pool, rows: Rows, space: Space, *, chosen: int, ended: str) -> Told:
    """About the set `chosen`, as bits. `ended` closes each reason that rests on how the search ended."""
    mine = members(chosen)
    by_candidate: dict[int, int] = {}
    for row in mine:
        i = rows.units[row].candidate
        by_candidate[i] = by_candidate.get(i, 0) | 1 << row
    others = [row for row in range(len(rows.units)) if rows.units[row].candidate not in by_candidate]
    worth = _Worths(space, [chosen, *(chosen & ~(1 << row) for row in mine), *(chosen & ~bits for bits in by_candidate.values()),
                            *(chosen | 1 << row for row in others)])
    whole = worth.values.get(chosen)
    marginals = Marginals({}, {}) if whole is None else Marginals(
        {rows.units[row]: whole - value for row in mine if (value := worth.values.get(chosen & ~(1 << row))) is not None},
        {i: whole - value for i, bits in by_candidate.items() if (value := worth.values.get(chosen & ~bits)) is not None})
    reasons = {i: _outside(pool, i, rows, space.utility.prepared.budget) for i in rows.dropped}
    beside: dict[int, list[int]] = {}
    for row in others:
        beside.setdefault(rows.units[row].candidate, []).append(row)
    for i, own in beside.items():
        reasons[i] = _inside(rows, own, chosen=chosen, whole=whole, worth=worth, space=space) + ended
    for i, twin in duplicates(pool).items():
        reasons[i] = f"same text as candidate {twin + 1}"
    return Told(marginals, reasons)


class _Worths:
    """The worth and the tokens of some sets: by the set function at once, or of a model those that it was asked about. The
    empty set is worth 0; sets with near-duplicates are worth NEVER."""

    def __init__(self, space: Space, sets: Sequence[int]) -> None:
        asked = list(dict.fromkeys(sets))
        values, tokens = space.utility.measured(asked)
        self.tokens = dict(zip(asked, tokens.tolist(), strict=True))
        self.values: dict[int, float] = dict(zip(asked, values.tolist(), strict=True))
        if space.worth is not None:
            self.values = {bits: space.known.get(bits, NONE) if value > NEVER else NEVER for bits, value in self.values.items()}
            self.values = {bits: value for bits, value in self.values.items() if value > NONE} | {0: 0.0}


def _outside(pool: Pool, i: int, rows: Rows, budget: int) -> str:
    """Why none of a candidate's sentences was searched."""
    tokens = pool.candidates[i].sentence_tokens
    if not tokens:
        return "it has no sentence"
    if min(tokens) > budget:
        return f"its shortest sentence takes {min(tokens)} tokens, more than the budget of {budget}"
    if len(rows.units) == MOST:
        return f"none of its sentences is among the {MOST} that promise most"
    return "no sentence can be worth its tokens"


def _inside(rows: Rows, own: Sequence[int], *, chosen: int, whole: float | None, worth: _Worths, space: Space) -> str:
    """Why none of a candidate's sentences, which were searched, is among the chosen: what the best would add to them."""
    budget, now = space.utility.prepared.budget, worth.tokens[chosen]
    free = [row for row in own if worth.values.get(chosen | 1 << row) != NEVER]
    if not free:
        twins = space.utility.prepared.twins
        same = next((rows.units[row].candidate for row in members(chosen) if twins[own[0]] >> row & 1), None)
        return "says the same as what was chosen" if same is None else f"says the same as candidate {same + 1}"
    fitting = [row for row in free if worth.tokens[chosen | 1 << row] <= budget]
    if not fitting:
        least = min(worth.tokens[chosen | 1 << row] for row in free)
        if not chosen:
            return f"its shortest sentence takes {least} tokens with mark and heading, more than the budget of {budget}"
        return f"its shortest sentence takes {least - now} tokens, and the best set that was found leaves {max(0, budget - now)}"
    known = [(value, row) for row in fitting if (value := worth.values.get(chosen | 1 << row)) is not None]
    if whole is None or not known:
        return "not in the best set that was found"
    value, row = max(known, key=lambda pair: (pair[0], -pair[1]))
    more = worth.tokens[chosen | 1 << row] - now
    return f"its best sentence would add {value - whole:+.4f} for {more} tokens to the best set that was found"


def next_best(pool: Pool, rows: Rows, space: Space, *, chosen: int) -> tuple[int, NextBest] | None:
    """The best other set that was seen, as bits and as told; of equal ones the one with fewer tokens, then the lower bits. Its
    tokens are estimated: a rendering would take longer than all the rest here."""
    keys, values = list(space.known), np.fromiter(space.known.values(), np.float64, len(space.known))
    values[[place for place, bits in enumerate(keys) if bits in (0, chosen)]] = NONE
    highest = values.max(initial=NONE)
    if highest == NONE:
        return None
    _, bits = min((space.spent[keys[place]], keys[place]) for place in np.flatnonzero(values == highest).tolist())
    return bits, NextBest(float(highest), space.spent[bits],
                          added=parts(pool, [rows.units[row] for row in members(bits & ~chosen)]),
                          removed=parts(pool, [rows.units[row] for row in members(chosen & ~bits)]))


def difference(pool: Pool, mine: Sequence[Extract], theirs: Sequence[Extract]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """What `theirs` has that `mine` has not, and the other way round."""
    places = {candidate.chunk.id: i for i, candidate in enumerate(pool.candidates)}
    first, second = ({Unit(places[extract.chunk.id], j) for extract in extracts for j in extract.sentences}
                     for extracts in (mine, theirs))
    return parts(pool, sorted(second - first)), parts(pool, sorted(first - second))


def parts(pool: Pool, chosen: Sequence[Unit]) -> tuple[Part, ...]:
    """Sentences by candidate, both ascending."""
    found: dict[int, list[int]] = {}
    for unit in sorted(chosen):
        found.setdefault(unit.candidate, []).append(unit.sentence)
    return tuple(Part(i + 1, pool.candidates[i].chunk.id, pool.candidates[i].chunk.source, tuple(sentences))
                 for i, sentences in found.items())


def path(space: Space, *, chosen: int, other: int | None) -> SearchPath:
    """The way of the search, for plots. Where greedy ends is found anew, by the set function alone."""
    points = {bits: (space.spent[bits], value) for bits, value in space.known.items() if value > NONE and bits}
    greedy = None
    if space.worth is None and space.rows:
        grown = Space(space.utility, _never, banned=space.banned)
        lazy.search(grown)
        greedy = (grown.spent[grown.best], grown.value) if grown.best else None
    return SearchPath(budget=space.utility.prepared.budget, asked=tuple(points.values()), chosen=points.get(chosen),
                      next_best=None if other is None else points.get(other), greedy=greedy,
                      unlisted=max(0, space.calls - len(points)))


def _never() -> bool:
    return False
