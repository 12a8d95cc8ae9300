"""Axes: where ticks go, what they are called, and how labels keep clear of each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps figures from `low`..`high` to the pixels `start`..`end`; `ticks` are (figure, label)."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def at(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def log_axis(values: Sequence[float], *, start: float, end: float) -> Axis:
    """A logarithmic axis with a little room on either side of the values, all above 0."""
    low, high = min(values), max(values)
    room = (high / low) ** 0.04 if high > low else 1.5
    low, high = low / room, high * room
    return Axis(low, high, start, end, tuple((tick, label(tick)) for tick in log_ticks(low, high)), log=True)


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of two where they are whole numbers, else 1, 2 and 5 of each power of ten; thinned to at most eight."""
    if low >= 8:
        found = [2.0**power for power in range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)]
    else:
        tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [step * 10.0**ten for ten in tens for step in (1, 2, 5) if low <= step * 10.0**ten <= high]
    return found[::-(-len(found) // 8)] if found else [math.sqrt(low * high)]


def linear_axis(values: Sequence[float], *, start: float, end: float) -> Axis:
    """From a round number below the values to one above, in at most seven steps."""
    low, high = min(values), max(values)
    if high - low < 1e-9:
        low, high = low - 1, high + 1
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, start, end,
                tuple((place * step, label(place * step)) for place in range(first, last + 1)))


def label(value: float) -> str:
    """Short and without an exponent: 0.05, 1.5, 512, 2,048."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Places as near to the wanted ones as they can be at least `gap` apart within `low`..`high`, in the given order.

    Neighbours that are too close form a block around their mean (the pooling of isotonic regression). Where there is no
    room for all, the gap shrinks.
    """
    order = sorted(range(len(wanted)), key=lambda place: (wanted[place], place))
    if not order:
        return []
    gap = min(gap, (high - low) / max(1, len(order) - 1))
    blocks: list[tuple[float, int]] = []  # (sum of the wanted places less their offset in the block, how many)
    for rank, place in enumerate(order):
        blocks.append((wanted[place] - rank * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, many = blocks.pop()
            blocks[-1] = (blocks[-1][0] + total, blocks[-1][1] + many)
    highest = high - (len(order) - 1) * gap
    bases = [min(max(total / many, low), highest) for total, many in blocks for _ in range(many)]
    found = [0.0] * len(wanted)
    for rank, place in enumerate(order):
        found[place] = bases[rank] + rank * gap
    return found
