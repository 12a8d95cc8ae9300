"""Where a long section is divided: even pieces within a limit, paragraphs whole if possible.

A shortest path over the places where a chunk may end (the optimum line breaking of Knuth and Plass, with tokens for
widths): a chunk costs the square of its distance from an even share, an end inside a paragraph costs extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, inf

# What it costs to end a chunk before an atom that follows a paragraph's end, a line's end, a sentence's end in a
# paragraph, or nothing at all (inside a sentence that was too long). A chunk at half its even share costs 0.25.
AFTER_PARAGRAPH, AFTER_LINE, AFTER_SENTENCE, INSIDE_SENTENCE = 0.0, 0.3, 1.0, 1.5
# At most about this many places are looked at for the start of each chunk, so that time grows with the text only.
_PLACES = 24


@dataclass(frozen=True, slots=True)
class Atom:
    """A sentence or table row, never divided. `penalty`: of ending a chunk just before it."""

    start: int
    end: int
    tokens: int
    penalty: float


def divide(atoms: Sequence[Atom], *, limit: int) -> list[Sequence[Atom]]:
    """Runs of atoms in order, each of at most `limit` tokens if every atom is. Deterministic; linear in the atoms."""
    total = sum(atom.tokens for atom in atoms)
    if total <= limit:
        return [atoms] if atoms else []
    starts = _places(atoms, limit)
    bounds = [*starts, len(atoms)]
    sizes = [sum(atom.tokens for atom in atoms[start:end]) for start, end in pairwise(bounds)]
    share = total / ceil(total / limit)
    cost, previous = [0.0, *[inf] * len(starts)], [0] * len(bounds)
    for end in range(1, len(bounds)):
        size = 0
        for start in range(end - 1, -1, -1):
            size += sizes[start]
            if size > limit and start < end - 1:
                break
            value = cost[start] + (1 - size / share) ** 2 + (atoms[starts[start]].penalty if start else 0.0)
            if value < cost[end]:
                cost[end], previous[end] = value, start
    return _followed(atoms, bounds, previous)


def _followed(atoms: Sequence[Atom], bounds: Sequence[int], previous: Sequence[int]) -> list[Sequence[Atom]]:
    runs: list[Sequence[Atom]] = []
    end = len(bounds) - 1
    while end:
        runs.append(atoms[bounds[previous[end]]:bounds[end]])
        end = previous[end]
    return runs[::-1]


def _places(atoms: Sequence[Atom], limit: int) -> list[int]:
    """Atoms that a chunk may start with: where they are small, the best of each few. Runs between fit half a chunk."""
    step = max(1, limit // _PLACES)
    starts = [0]
    before = held = 0           # tokens of the last whole run between places, and since the last place
    for index, atom in enumerate(atoms):
        better = len(starts) > 1 and atom.penalty < atoms[starts[-1]].penalty
        if better and held < step and before + held <= limit // 2:
            starts[-1] = index  # a few tokens on is a better place
            before, held = before + held, 0
        elif index and (better or held >= step or held + atom.tokens > limit // 2):
            starts.append(index)
            before, held = held, 0
        held += atom.tokens
    return starts
