"""Which configurations deserve more questions: successive halving (Jamieson and Talwalkar 2016, algorithm 1).

All start with few questions, a share of them goes on to twice as many, until a few have all. Departures: quality is traded
against tokens here, so those that go on are chosen by fronts of non-dominated points and spread along the tokens, as in
multi-objective successive halving (Schmucker et al. 2021), and not by quality alone, which would drop every cheap one; and
the first rung asks no reader, but how often the context holds the answer, on all questions, which costs next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

# Configurations on all questions at the end: enough to see where quality stops paying.
FINALISTS = 8
# Fewer say nothing about a configuration.
FEWEST_QUESTIONS = 8
_HALF = 2
T = TypeVar("T")


class Ordered(Protocol):
    """A key that sorts among its like."""

    def __lt__(self: T, other: T, /) -> bool: ...

    def __hash__(self) -> int: ...


K = TypeVar("K", bound=Ordered)


@dataclass(frozen=True, slots=True)
class Rung:
    """So many configurations on the first so many questions; `reads`: the reader answers."""

    configurations: int
    questions: int
    reads: bool


@dataclass(frozen=True, slots=True)
class Point:
    cost: float
    quality: float


def ladder(configurations: int, questions: int) -> tuple[Rung, ...]:
    """The rungs, the first without a reader. Both numbers are at least 1."""
    sizes = [configurations if configurations <= FINALISTS else max(FINALISTS, math.ceil(configurations / _HALF))]
    while sizes[-1] > FINALISTS:
        sizes.append(max(FINALISTS, math.ceil(sizes[-1] / _HALF)))
    steps = len(sizes) - 1
    counts = [min(questions, max(FEWEST_QUESTIONS, math.ceil(questions / _HALF**(steps - step)))) for step in range(steps + 1)]
    return (Rung(configurations, questions, reads=False),
            *(Rung(size, count, reads=True) for size, count in zip(sizes, counts, strict=True)))


def reads(rungs: Sequence[Rung], *, beside: int) -> int:
    """Most reader answers that the rungs take, when a question answered in one rung is known in the next.

    `beside`: configurations that go through all rungs whatever they score, and are not counted in them.
    """
    total = before = 0
    for rung in rungs:
        if rung.reads:
            total += (rung.configurations + beside) * (rung.questions - before)
            before = rung.questions
    return total


def fitting(configurations: int, questions: int, *, most_reads: float, beside: int) -> tuple[Rung, ...]:
    """The ladder over the most questions that takes no more reader answers than `most_reads`; over one if none does."""
    fits = (made for count in range(questions, 0, -1) if reads(made := ladder(configurations, count), beside=beside) <= most_reads)
    return next(fits, ladder(configurations, 1))


def promoted(points: Mapping[K, Point], *, count: int) -> list[K]:
    """The `count` best keys, in their own order: front after front, and of a front that does not fit whole, its best
    and then each time the one farthest from those chosen, in the logarithm of cost."""
    chosen: list[K] = []
    left = dict(points)
    while left and len(chosen) < count:
        front = non_dominated(left)
        room = count - len(chosen)
        chosen += front if len(front) <= room else _spread({key: left[key] for key in front}, room)
        left = {key: point for key, point in left.items() if key not in front}
    return sorted(chosen)


def non_dominated(points: Mapping[K, Point]) -> list[K]:
    """The keys that no other beats: none costs no more and is no worse, one of them strictly. Of equal points the first
    key alone stays. By ascending cost."""
    front: list[K] = []
    best = -math.inf
    for key in sorted(sorted(points), key=lambda key: (points[key].cost, -points[key].quality)):  # stable: ties by key
        if points[key].quality > best:
            front.append(key)
            best = points[key].quality
    return front


def _spread(points: Mapping[K, Point], count: int) -> list[K]:
    """The best one, then each time whichever lies farthest from those chosen (the cheapest, to begin with)."""
    place = {key: math.log2(1 + point.cost) for key, point in points.items()}
    order = sorted(points)
    chosen = [max(order, key=lambda key: points[key].quality)]
    while len(chosen) < count:
        rest = [key for key in order if key not in chosen]
        chosen.append(max(rest, key=lambda key: min(abs(place[key] - place[other]) for other in chosen)))
    return chosen
