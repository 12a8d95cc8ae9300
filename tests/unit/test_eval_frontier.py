"""What is dominated, the area under a frontier, and where it reaches 95 % of the best: cases by hand."""

from __future__ import annotations

import math

import pytest

from eval.frontier import Curve, Point, area, curves, dominated, least_x


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(budget=place, x=x, y=y, y_ci=(y, y), n=10) for place, (x, y) in enumerate(pairs)]


def judged(systems: dict[str, list[Point]], *, free: tuple[str, ...] = ()) -> dict[str, Curve]:
    return {curve.system: curve for curve in curves(systems, bound={name: name not in free for name in systems})}


def test_dominated_is_what_another_point_beats_at_no_more_cost() -> None:
    found = dominated(points((100, 50), (100, 60), (200, 60), (50, 10), (300, 61)),
                      points((100, 50), (100, 60), (200, 60), (50, 10), (300, 61)))
    assert found == [True, False, True, False, False]


def test_equal_points_do_not_dominate_each_other() -> None:
    same = points((100, 50), (100, 50))
    assert dominated(same, same) == [False, False]


def test_area_is_taken_over_doublings_of_cost() -> None:
    # 40 to 60 over one doubling, 60 flat over the next: mean 50 and 60.
    assert area(points((100, 40), (200, 60)), least=100, most=400) == pytest.approx(55)
    # Nothing before the first point: one of two doublings counts.
    assert area(points((200, 60), (400, 60)), least=100, most=400) == pytest.approx(30)
    # More context that makes it worse can be left alone.
    assert area(points((100, 40), (200, 60), (400, 20)), least=100, most=400) == pytest.approx(55)
    assert area(points((400, 20), (100, 40), (200, 60)), least=100, most=400) == pytest.approx(55)


def test_area_of_one_cost_or_of_no_points_is_unknown() -> None:
    assert area(points((100, 40)), least=100, most=100) is None
    assert area([], least=100, most=200) is None


def test_a_point_that_costs_nothing_counts_from_the_least_cost_on() -> None:
    assert area(points((0, 40), (200, 60)), least=100, most=400) == pytest.approx((40 + 60) / 2)
    assert least_x(points((0, 40), (200, 60)), 40) == 0
    assert least_x(points((0, 40), (200, 60)), 41) == 200


def test_least_cost_is_read_off_between_two_points() -> None:
    assert least_x(points((100, 40), (400, 60)), 50) == pytest.approx(200)
    assert least_x(points((100, 40), (400, 60)), 40) == 100
    assert least_x(points((100, 40), (400, 60)), 60) == pytest.approx(400)
    assert least_x(points((100, 40), (200, 20), (400, 60)), 50) == pytest.approx(200 * math.sqrt(2)), "from the best so far"
    assert least_x(points((100, 40), (400, 60)), 61) is None
    assert least_x([], 1) is None


def test_systems_are_judged_against_all_that_a_budget_binds() -> None:
    found = judged({"weak": points((100, 30), (400, 50)), "strong": points((100, 60), (200, 80), (400, 79)),
                    "ceiling": points((50, 95)), "none": []}, free=("ceiling",))
    assert list(found) == ["weak", "strong", "ceiling"]
    assert found["weak"].dominated == (True, True)
    assert found["strong"].dominated == (False, False, True)
    assert found["strong"].x_for_95 == pytest.approx(100 * 2 ** (16 / 20)), "95 % of 80, not of the ceiling"
    assert found["weak"].x_for_95 is None
    assert found["strong"].area == pytest.approx((70 + 80) / 2)
    assert (found["ceiling"].area, found["ceiling"].x_for_95, found["ceiling"].dominated) == (None, None, (False,))


def test_area_begins_in_the_middle_of_a_line_where_others_begin_later() -> None:
    # At 200 the line from 40 at 100 to 60 at 400 has reached 50.
    assert area(points((100, 40), (400, 60)), least=200, most=400) == pytest.approx(55)
    assert area(points((100, 40), (200, 60)), least=300, most=600) == pytest.approx(60)


def test_a_system_that_shows_next_to_nothing_wins_no_area_by_it() -> None:
    found = judged({"empty": points((2, 20), (256, 40)), "full": points((64, 30), (256, 50))})
    assert found["full"].area == pytest.approx(40)
    assert found["empty"].area == pytest.approx((20 + 20 * 5 / 7 + 40) / 2)


def test_a_free_system_can_be_dominated_and_dominates_nothing() -> None:
    found = judged({"thrift": points((100, 50)), "closed_book": points((100, 20)), "gold": points((10, 99))},
                   free=("closed_book", "gold"))
    assert [found[name].dominated for name in found] == [(False,), (True,), (False,)]


def test_without_any_quality_nothing_is_enough() -> None:
    found = judged({"a": points((100, 0), (200, 0))})
    assert (found["a"].area, found["a"].x_for_95) == (0, None)


def test_only_free_systems_span_no_frontier() -> None:
    found = judged({"gold": points((10, 99))}, free=("gold",))
    assert found["gold"].to_dict() == {
        "system": "gold", "bound": False, "area": None, "x_for_95": None,
        "points": [{"budget": 0, "x": 10, "y": 99, "y_ci": [99, 99], "n": 10, "dominated": False}]}
