"""What each further unit of cost buys: for every system its points of quality `y` at cost `x`, and what sums them up.

Only systems that a budget binds span a frontier. Those that none binds (ceilings, the closed book) have one point each; it
can be dominated, but it dominates nothing and counts in no area. Between two budgets of a system its quality is read off
the line over log2 x, of the best that it has reached so far: a budget that makes it worse can be left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from eval.statistics import Interval

# The share of the best quality for which `least_x` is told.
ENOUGH = 0.95


@dataclass(frozen=True, slots=True)
class Point:
    """Quality `y` over `n` questions at cost `x` >= 0. `budget` is None for systems that no budget binds."""

    budget: int | None
    x: float
    y: float
    y_ci: Interval | None
    n: int


@dataclass(frozen=True, slots=True)
class Curve:
    """One system. `bound`: a budget binds it. `dominated` in the order of `points`; see `curves` for the rest."""

    system: str
    bound: bool
    points: tuple[Point, ...]
    dominated: tuple[bool, ...]
    area: float | None
    x_for_95: float | None

    def to_dict(self) -> dict[str, object]:
        points = [
            {"budget": point.budget, "x": point.x, "y": point.y, "y_ci": None if point.y_ci is None else list(point.y_ci),
             "n": point.n, "dominated": dominated} for point, dominated in zip(self.points, self.dominated, strict=True)]
        return {"system": self.system, "bound": self.bound, "points": points, "area": _short(self.area),
                "x_for_95": _short(self.x_for_95)}


def curves(systems: Mapping[str, Sequence[Point]], *, bound: Mapping[str, bool]) -> list[Curve]:
    """One curve for each system with points, in the order given, judged against all bounded systems together.

    `area` is taken from the cost, above 0, at which the last of the bounded systems has its first point up to the largest cost of
    any: before that, one that shows next to nothing would be compared with ones that were not tried so cheap. None where no
    costs lie between.
    `x_for_95` is the least cost at which a system reaches 95 % of the best quality of any bounded one. None, as `area`, for
    systems that no budget binds.
    """
    rivals = [point for system, points in systems.items() if bound[system] for point in points]
    costs = [point.x for point in rivals if point.x > 0]
    firsts = [min(above) for system, points in systems.items()
              if bound[system] and (above := [point.x for point in points if point.x > 0])]
    best = max((point.y for point in rivals), default=0.0)
    found = []
    for system, points in systems.items():
        if points:
            judged = bound[system] and bool(costs)
            found.append(Curve(
                system=system, bound=bound[system], points=tuple(points), dominated=tuple(dominated(points, rivals)),
                area=area(points, least=max(firsts), most=max(costs)) if judged else None,
                x_for_95=least_x(points, ENOUGH * best) if judged and best > 0 else None))
    return found


def dominated(points: Iterable[Point], rivals: Sequence[Point]) -> list[bool]:
    """Whether some rival costs no more and is no worse, one of them strictly. A point does not dominate itself."""
    return [any(rival.x <= point.x and rival.y >= point.y and (rival.x, rival.y) != (point.x, point.y) for rival in rivals)
            for point in points]


def area(points: Sequence[Point], *, least: float, most: float) -> float | None:
    """Mean quality over log2 x from `least` to `most` (0 < least), in the unit of y; None if they are equal.

    0 before the system's first point, and flat after its last. A point that costs nothing counts from `least` on.
    """
    if not points or least >= most:
        return None
    low, high = math.log2(least), math.log2(most)
    path = [(-math.inf if x <= 0 else math.log2(x), y) for x, y in _best_so_far(points)]
    path.append((math.inf, path[-1][1]))
    total = 0.0
    for (left, before), (right, after) in pairwise(path):
        start, end = max(left, low), min(right, high)
        if start < end:
            # From a cost of 0, and after the last point, there is no line over log2 x: the quality stays what it was.
            slope = (after - before) / (right - left) if math.isfinite(right - left) else 0.0
            total += (end - start) * (before + slope * ((start + end) / 2 - left) if slope else before)
    return total / (high - low)


def least_x(points: Sequence[Point], target: float) -> float | None:
    """The least cost at which the quality reaches `target`, on the line over log2 x between two points; None if never."""
    before: tuple[float, float] | None = None
    for x, y in _best_so_far(points):
        if y >= target:
            if before is None or before[0] <= 0:
                return x
            share = (target - before[1]) / (y - before[1])
            return float(before[0] * (x / before[0]) ** share)
        before = x, y
    return None


def _best_so_far(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Cost and best quality up to it, by rising cost."""
    found: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point.x, point.y)):
        found.append((point.x, max(point.y, found[-1][1]) if found else point.y))
    return found


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.8g}")
