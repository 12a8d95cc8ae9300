"""The knowledge filter and the chance that a choice suffices."""

from __future__ import annotations

import pytest

from optimizers import SELECTORS, relevance
from optimizers.knowledge_filter import filtered, threshold
from optimizers.pool import FILTERED, Pool, Unit, best_of, group
from optimizers.sufficiency import of_chances, sufficiency
from tests.unit.test_selectors import candidate, rendered


def a_pool() -> Pool:
    return Pool((candidate("Kettles boil water. Tea is brewed.", .8, .3, name="a"), candidate("Otters hold hands.", .5, name="b"),
                 candidate("Clocks tick.", .1, name="c"), candidate("Dust.", .05, name="d")), {})


def test_unlikely_candidates_are_dropped_but_for_the_best() -> None:
    pool = a_pool()
    chances = relevance.chances(pool)
    best = best_of(chances)
    assert best == {i: max(p for unit, p in chances.items() if unit.candidate == i) for i in range(4)}
    assert best[0] > best[1] > best[2] > best[3]
    between = (best[0] + best[1]) / 2
    assert filtered(pool, chances, below=between, floor=0).dropped == {1, 2, 3}
    assert filtered(pool, chances, below=between, floor=2).dropped == {2, 3}
    assert filtered(pool, chances, below=between, floor=9).dropped == frozenset()
    assert filtered(pool, chances, below=best[1], floor=0).dropped == {2, 3}
    assert filtered(Pool((), {}), {}, below=.5, floor=1).dropped == frozenset()


@pytest.mark.parametrize("name", ["greedy", "lazy", "beam", "exact", "mcts"])
def test_what_was_dropped_is_never_chosen_and_says_so(name: str) -> None:
    pool = filtered(a_pool(), relevance.chances(a_pool()), below=1.0, floor=1)
    assert {unit.candidate for unit in relevance.chances(pool)} == {0}
    found = SELECTORS[name](pool, budget=200, render=rendered, stop=lambda: False)
    assert {extract.chunk.doc_id for extract in found.extracts} == {"a"}
    assert [row.why == FILTERED for row in found.considered] == [False, True, True, True]


def test_a_threshold_keeps_the_share_that_was_asked_for() -> None:
    right = [.9, .1, .5, .7, .3]
    for keep, expected in ((1.0, .1), (.8, .3), (.81, .1), (.2, .9), (.01, .9)):
        assert threshold(right, keep=keep) == expected
        assert sum(p >= expected for p in right) >= keep * len(right)
    for none, keep in (([], .5), (right, 0), (right, 1.1)):
        with pytest.raises(ValueError, match="no threshold"):
            threshold(none, keep=keep)


def test_sufficiency_is_that_of_independent_sentences() -> None:
    pool = a_pool()
    chances = relevance.chances(pool)
    extracts = group(pool, [Unit(0, 0), Unit(1, 0)], order=[1, 0])
    assert sufficiency(pool, chances, extracts) == pytest.approx(1 - (1 - chances[Unit(0, 0)]) * (1 - chances[Unit(1, 0)]))
    assert sufficiency(pool, chances, [*extracts, *extracts]) == pytest.approx(sufficiency(pool, chances, extracts))
    assert sufficiency(pool, chances, ()) == 0
    assert sufficiency(Pool((), {}), {}, extracts) == 0
    assert of_chances([1.0, .5]) == pytest.approx(1, abs=1e-6)
