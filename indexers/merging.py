"""Which segments to merge: neighbours of about one size, so that a chunk is copied a few times in its life and not each time.

Logarithmic merging, as in Lucene's LogMergePolicy: segments fall into levels by size, each level FACTOR times the one below;
FACTOR neighbours of a level become one of the next. A collection of n chunks then has at most about
(FACTOR - 1) * log_FACTOR(n / BASE) segments, and adding one document costs work in proportion to it, spread over time.
Only neighbours merge, so the rows of segments never interleave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FACTOR = 8
BASE = 64                       # all smaller segments share the lowest level
# A segment of which less than this share lives is rewritten: dead chunks cost search time and space.
LIVING = 0.5


@dataclass(frozen=True, slots=True)
class Standing:
    """A segment's positions, and how many of them live."""

    size: int
    living: int


def due(standing: Sequence[Standing]) -> list[int]:
    """Indexes of segments to merge into one, neighbours in row order; empty when all is well."""
    for i, segment in enumerate(standing):
        if segment.living < LIVING * segment.size:
            return [i]
    levels = [level(segment.living) for segment in standing]
    for at in sorted(set(levels)):
        for run in _runs(levels, at):
            own = [i for i in run if levels[i] == at]
            if len(own) >= FACTOR:
                return list(range(own[0], own[-1] + 1))     # smaller ones between them go along
    return []


def level(size: int) -> int:
    """0 up to BASE, and one more for each further FACTOR."""
    found, limit = 0, BASE
    while size > limit:
        found, limit = found + 1, limit * FACTOR
    return found


def _runs(levels: Sequence[int], at: int) -> list[list[int]]:
    """Neighbours none of which is above a level."""
    runs: list[list[int]] = [[]]
    for i, found in enumerate(levels):
        if found <= at:
            runs[-1].append(i)
        elif runs[-1]:
            runs.append([])
    return runs
