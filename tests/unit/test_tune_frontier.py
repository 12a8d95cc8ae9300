"""The recommendation: its rule, its intervals and what it warns of, on results known by heart."""

from __future__ import annotations

import json
import random

import pytest

from eval.tune.frontier import Recommendation, ratio_interval, recommend, rows
from eval.tune.halving import ladder
from eval.tune.pairs import Pair
from eval.tune.search import Contest, Results
from eval.tune.trials import Configuration, Glance, Trial

NAIVE = Configuration(9000, "topk", 5, "hybrid", 0.0)


def tried(budget: int) -> Configuration:
    return Configuration(budget, "greedy", 24, "hybrid", 0.3)


def played(scores: dict[Configuration, list[float]], *, finished: bool = True,
           dropped: tuple[int, ...] = ()) -> tuple[Contest, Results, list[Pair]]:
    """Results with these F1s by question; a configuration's prompt takes its budget and 100 tokens more."""
    n = len(scores[NAIVE])
    names = [f"q{i}" for i in range(n)]
    results = Results(finished=finished)
    for one, values in scores.items():
        results.glances[one] = {name: Glance(1.0, one.budget, one.budget + 100) for name in names}
        results.trials[one] = {name: Trial(value, one.budget + 100, 5, 0.001) for name, value in zip(names, values, strict=True)}
        results.rung[one] = 3
    for budget in dropped:
        results.glances[tried(budget)] = {name: Glance(None, budget, budget + 100) for name in names}
        results.rung[tried(budget)] = 0
    rivals = tuple(one for one in (*scores, *map(tried, dropped)) if one != NAIVE)
    return Contest(rivals, NAIVE, rivals[0], ladder(len(rivals), n)), results, [Pair(name, "Who?", ("x",)) for name in names]


def found(scores: dict[Configuration, list[float]], *, keep: float = 0.95, **more: bool) -> Recommendation | None:
    contest, results, pairs = played(scores, **more)
    return recommend(contest, results, pairs, keep=keep, naive_k=5, seed=13)


FORTY = {NAIVE: [0.5] * 40, tried(64): [0.5] * 40, tried(192): [0.97] * 40, tried(1024): [1.0] * 40}


def test_the_cheapest_that_keeps_enough_is_recommended() -> None:
    best = found(FORTY)
    assert best is not None
    assert (best.chosen, best.best, best.n) == (tried(192), tried(1024), 40)
    assert best.against_best.quality == pytest.approx(0.97)
    assert best.against_best.tokens == pytest.approx(292 / 1124)
    assert best.against_best.f1_difference == pytest.approx(-3.0)
    assert best.warnings == ()
    assert best.sentence == (
        "Budget 192 (greedy, 24 candidates) keeps 97 % [97–97] of the quality of budget 1024 (greedy, 24 candidates) at 26 % of "
        "its tokens, and 194 % [194–194] of the quality of naive top-5 at 3 % of its tokens (n = 40).")
    json.dumps(best.to_dict(), allow_nan=False)


@pytest.mark.parametrize(("keep", "budget"), [(1.0, 1024), (0.98, 1024), (0.97, 192), (0.5, 64), (0.01, 64)])
def test_what_is_enough_is_for_the_user_to_say(keep: float, budget: int) -> None:
    best = found(FORTY, keep=keep)
    assert best is not None
    assert best.chosen == tried(budget)
    assert ("has the best quality" in best.sentence) is (budget == 1024)


def test_of_equals_the_cheaper_is_best_and_naive_is_never_recommended() -> None:
    best = found({NAIVE: [1.0] * 40, tried(64): [0.8] * 40, tried(128): [0.8] * 40})
    assert best is not None
    assert best.chosen == best.best == tried(64)
    assert best.against_naive.quality == pytest.approx(0.8)


def test_nothing_is_recommended_on_nothing() -> None:
    assert found({NAIVE: [1.0] * 4, tried(64): [0.0] * 4}) is None
    contest, results, pairs = played(FORTY)
    results.trials[tried(64)].clear()
    assert recommend(contest, results, pairs, keep=0.95, naive_k=5, seed=13) is None


def test_few_or_scattered_questions_are_warned_of() -> None:
    few = found({NAIVE: [1.0] * 8, tried(64): [1.0] * 8})
    assert few is not None
    assert len(few.warnings) == 1
    assert few.warnings[0].startswith("8 questions are too few")
    noisy = found({NAIVE: [0.5] * 40, tried(64): [1.0, 0.0] * 20, tried(192): [0.0, 1.0] * 20, tried(256): [1.0] * 21 + [0.0] * 19},
                  keep=0.9)
    assert noisy is not None
    assert noisy.chosen == tried(64)
    assert "cannot be ruled out" in noisy.warnings[0]
    assert "about" in noisy.warnings[0]
    cut = found(FORTY, finished=False)
    assert cut is not None
    assert "before its last round" in cut.warnings[-1]


def test_rows_say_which_are_dominated_and_which_dropped_out() -> None:
    contest, results, pairs = played({**FORTY, tried(512): [0.9] * 40}, dropped=(96,))
    table = rows(contest, results, pairs, seed=13)
    assert [(row.configuration.budget, row.final, row.dominated) for row in table] == [
        (64, True, False), (192, True, False), (512, True, True), (1024, True, False), (9000, True, True), (96, False, False)]
    assert [row.role for row in table] == ["current", "", "", "", "naive", ""]
    assert (table[1].f1, table[1].f1_ci, table[1].n) == (97.0, (97.0, 97.0), 40)
    assert (table[-1].f1, table[-1].f1_ci, table[-1].n, table[-1].answer_in_context) == (None, None, 0, None)
    assert table[1].to_dict()["budget"] == 192
    json.dumps([row.to_dict() for row in table], allow_nan=False)


def test_the_ratio_interval_covers_as_often_as_it_says() -> None:
    rng = random.Random(3)
    covered = 0
    for trial in range(200):
        second = [float(rng.random() < 0.7) for _ in range(60)]
        first = [value * float(rng.random() < 0.9) for value in second]     # in truth 0.9 of it
        interval = ratio_interval(first, second, seed=trial)
        assert interval is not None
        covered += interval[0] <= 0.9 <= interval[1]
    assert 175 <= covered <= 200


def test_the_ratio_interval_refuses_what_has_no_ratio() -> None:
    assert ratio_interval([], [], seed=1) is None
    assert ratio_interval([1.0] * 3, [0.0] * 3, seed=1) is None
    assert ratio_interval([1.0] * 5, [1.0, 0.0, 0.0, 0.0, 0.0], seed=1) is None
    assert ratio_interval([0.5] * 9, [1.0] * 9, seed=1) == (0.5, 0.5)
