"""Laws of frontiers, whatever the points: what is dominated stays so, better is never less area, units do not matter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.frontier import ENOUGH, Point, area, curves, dominated, least_x

COSTS = st.floats(min_value=1, max_value=4096)
QUALITIES = st.floats(min_value=0, max_value=100)


def made(pairs: list[tuple[float, float]]) -> list[Point]:
    return [Point(budget=place, x=x, y=y, y_ci=None, n=1) for place, (x, y) in enumerate(pairs)]


POINTS = st.lists(st.tuples(COSTS, QUALITIES), min_size=1, max_size=8).map(made)


@given(POINTS, POINTS)
def test_a_dominated_point_stays_dominated_when_points_are_added(points: list[Point], more: list[Point]) -> None:
    for before, after in zip(dominated(points, points), dominated(points, points + more), strict=True):
        assert after or not before


@given(POINTS)
def test_the_best_quality_at_the_least_cost_is_never_dominated(points: list[Point]) -> None:
    cheapest = min(points, key=lambda point: (point.x, -point.y))
    best = max(points, key=lambda point: (point.y, -point.x))
    assert dominated([cheapest, best], points) == [False, False]


@given(POINTS, st.data())
def test_a_system_that_is_better_at_every_point_has_no_less_area(points: list[Point], data: st.DataObject) -> None:
    gains = data.draw(st.lists(st.floats(0, 50), min_size=len(points), max_size=len(points)))
    better = made([(point.x, point.y + gain) for point, gain in zip(points, gains, strict=True)])
    less, more = (area(some, least=1, most=4096) for some in (points, better))
    assert less is not None
    assert more is not None
    assert more >= less - 1e-9


@given(POINTS, st.floats(min_value=0.01, max_value=1))
def test_a_system_that_is_cheaper_at_every_point_has_no_less_area(points: list[Point], factor: float) -> None:
    cheaper = made([(point.x * factor, point.y) for point in points])
    less, more = (area(some, least=0.01, most=4096) for some in (points, cheaper))
    assert less is not None
    assert more is not None
    assert more >= less - 1e-9


@given(POINTS)
def test_area_is_between_nothing_and_the_best_quality(points: list[Point]) -> None:
    found = area(points, least=1, most=8192)
    assert found is not None
    assert -1e-9 <= found <= max(point.y for point in points) + 1e-9


@given(POINTS, POINTS, st.floats(min_value=1e-6, max_value=1e3))
def test_the_unit_of_cost_does_not_matter(one: list[Point], other: list[Point], unit: float) -> None:
    bound = {"one": True, "other": True}
    plain = curves({"one": one, "other": other}, bound=bound)
    scaled = curves({name: made([(point.x * unit, point.y) for point in points])
                     for name, points in (("one", one), ("other", other))}, bound=bound)
    for before, after in zip(plain, scaled, strict=True):
        assert (before.area is None) == (after.area is None) or max(point.x for point in one + other) < 1.0001 * min(
            point.x for point in one + other)
        if before.area is not None and after.area is not None and max(p.x for p in one + other) > 1.01 * min(
                p.x for p in one + other):
            assert after.area == pytest.approx(before.area, rel=1e-6, abs=1e-6)
        assert (before.x_for_95 is None) == (after.x_for_95 is None)
        if before.x_for_95 is not None:
            assert after.x_for_95 == pytest.approx(before.x_for_95 * unit, rel=1e-6)


@given(POINTS, st.floats(min_value=0, max_value=100))
def test_least_cost_is_among_the_points_costs_and_grows_with_the_target(points: list[Point], target: float) -> None:
    found = least_x(points, target)
    assert (found is None) == (target > max(point.y for point in points))
    if found is not None:
        assert min(point.x for point in points) <= found * (1 + 1e-9)
        assert found <= max(point.x for point in points) * (1 + 1e-9)
        less = least_x(points, ENOUGH * target)
        assert less is not None
        assert less <= found * (1 + 1e-9)
