"""Successive halving: who goes on, what that takes, and trials through the real pipeline with a scripted reader."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from eval.tune import halving, trials
from eval.tune.bounds import BoundedReader
from eval.tune.halving import Point, Rung, fitting, ladder, non_dominated, promoted, reads
from eval.tune.pairs import Pair
from eval.tune.search import Contest, Results, search
from eval.tune.trials import Configuration
from rag.errors import BudgetError, ConfigError, InputError, ModelUnavailable
from rag.settings import Settings
from tests.tune_fakes import COLOURS, LighthouseReader, filled, opened

PAIRS = [Pair(name, f"What colour was the {name} lighthouse painted?", (colour,)) for name, colour in COLOURS.items()]


def obvious_front(points: dict[int, Point]) -> set[int]:
    """By comparing all with all; of equal points the first key stays."""
    def beats(one: int, other: int) -> bool:
        p, q = points[one], points[other]
        better = p.cost <= q.cost and p.quality >= q.quality
        return better and ((p.cost, p.quality) != (q.cost, q.quality) or one < other)

    return {key for key in points if not any(beats(other, key) for other in points if other != key)}


def test_the_front_is_that_of_comparing_all_with_all() -> None:
    rng = random.Random(5)
    for _ in range(200):
        points = {key: Point(rng.randrange(6), rng.randrange(6)) for key in rng.sample(range(99), rng.randrange(1, 15))}
        front = non_dominated(points)
        assert set(front) == obvious_front(points)
        assert [points[key].cost for key in front] == sorted(points[key].cost for key in front)


def test_those_promoted_are_whole_fronts_and_then_spread_along_the_cost() -> None:
    points = {1: Point(10, 0.1), 2: Point(20, 0.2), 3: Point(40, 0.3), 4: Point(80, 0.4), 5: Point(160, 0.5), 6: Point(170, 0.2)}
    assert promoted(points, count=9) == [1, 2, 3, 4, 5, 6]
    assert promoted(points, count=5) == [1, 2, 3, 4, 5]
    assert promoted(points, count=3) == [1, 3, 5]      # the best, the cheapest, and the middle in the logarithm
    assert promoted(points, count=1) == [5]
    assert promoted({}, count=3) == []


@pytest.mark.parametrize(("configurations", "questions"), [(1, 1), (5, 3), (8, 40), (9, 40), (24, 12), (72, 40), (200, 500)])
def test_a_ladder_narrows_to_the_finalists_on_all_questions(configurations: int, questions: int) -> None:
    first, *rest = ladder(configurations, questions)
    assert first == Rung(configurations, questions, reads=False)
    assert rest[-1] == Rung(min(configurations, halving.FINALISTS), questions, reads=True)
    assert all(one.configurations >= other.configurations and one.questions <= other.questions
               for one, other in pairwise(rest))
    assert all(rung.questions >= min(questions, halving.FEWEST_QUESTIONS) for rung in rest)


def counted(rungs: tuple[Rung, ...], beside: int) -> int:
    """Reader answers by playing the rungs through: those that go on are the first ones."""
    asked = {(who, question) for rung in rungs if rung.reads
             for who in [*range(rung.configurations), *(-1 - i for i in range(beside))] for question in range(rung.questions)}
    return len(asked)


@pytest.mark.parametrize("beside", [0, 2])
def test_reads_are_those_of_playing_it_through(beside: int) -> None:
    for configurations in (1, 8, 24, 72):
        for questions in (1, 7, 12, 40):
            rungs = ladder(configurations, questions)
            assert reads(rungs, beside=beside) == counted(rungs, beside)


def test_a_ladder_is_fitted_to_what_is_allowed() -> None:
    whole = reads(ladder(24, 40), beside=2)
    assert fitting(24, 40, most_reads=math.inf, beside=2) == fitting(24, 40, most_reads=whole, beside=2) == ladder(24, 40)
    fitted = fitting(24, 40, most_reads=whole - 1, beside=2)
    assert fitted[0].questions == 39
    assert fitting(24, 40, most_reads=0, beside=2) == ladder(24, 1)


def test_the_grid_is_every_combination_and_the_current_settings(settings: Settings) -> None:
    made = trials.grid(settings, selectors=["topk", "greedy", "topk"], budgets=[64, 128], candidates=[12], modes=["hybrid"])
    assert [(one.budget, one.selector) for one in made] == [(64, "greedy"), (64, "topk"), (128, "greedy"), (128, "topk"),
                                                            (256, "greedy")]
    assert made[-1] == trials.current(settings)
    assert str(made[0]) == "budget 64 (greedy, 12 candidates)"
    assert made[0].settings == {"budget_tokens": 64, "selector": "greedy", "candidates": 12, "mode": "hybrid", "abstain_below": 0.3}


@pytest.mark.parametrize(("changes", "error", "message"), [
    ({"selectors": ["gredy"]}, InputError, "The selector 'gredy' is unknown"),
    ({"modes": ["clustered"]}, InputError, "The mode 'clustered' is unknown"),
    ({"budgets": [0]}, BudgetError, "A budget of 0 tokens"),
    ({"budgets": []}, InputError, "nothing to try"),
    ({"candidates": [9999]}, ConfigError, "candidates = 9999"),
])
def test_what_cannot_be_tried_is_refused(settings: Settings, changes: dict[str, list[int]], error: type[Exception],
                                         message: str) -> None:
    wanted: dict[str, list[object]] = {"selectors": ["topk"], "budgets": [64], "candidates": [12], "modes": ["hybrid"], **changes}
    with pytest.raises(error, match=message):
        trials.grid(settings, **wanted)  # type: ignore[arg-type]


@pytest.fixture
def lighthouses(settings: Settings) -> Settings:
    chosen = replace(settings, abstain_below=0.0, budget_tokens=60)
    filled(chosen)
    return chosen


def contest(settings: Settings, *, budgets: tuple[int, ...] = (8, 30, 60, 200), questions: int = len(PAIRS)) -> Contest:
    made = trials.grid(settings, selectors=["topk", "sentences", "greedy"], budgets=budgets, candidates=[5, 24], modes=["hybrid"])
    return Contest(made, trials.naive(settings, window=2000), trials.current(settings), ladder(len(made), questions))


def played(settings: Settings, reader: LighthouseReader | BoundedReader, *, stop_after: int = 10**9) -> Results:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > stop_after

    with opened(settings, reader, keep_pools=8) as kb:
        return search(kb, PAIRS, contest(settings), cancelled=cancelled)


def test_every_configuration_gets_a_glance_and_the_finalists_all_questions(lighthouses: Settings) -> None:
    reader = LighthouseReader()
    results = played(lighthouses, reader)
    parts = contest(lighthouses)
    assert results.finished
    assert set(results.glances) == {*parts.configurations, parts.naive}
    assert all(len(seen) == len(PAIRS) for seen in results.glances.values())
    assert len(results.finalists) <= halving.FINALISTS + 2
    assert {parts.naive, parts.current} <= set(results.finalists)
    assert results.common(PAIRS) == PAIRS
    assert reader.calls == sum(trial.prompt_tokens > 0 for tried in results.trials.values() for trial in tried.values())
    assert reader.calls <= reads(parts.rungs, beside=2)


def test_what_holds_the_answer_wins_and_what_cannot_loses(lighthouses: Settings) -> None:
    results = played(lighthouses, LighthouseReader())
    f1 = {tried: sum(one.f1 for one in seen.values()) / len(seen) for tried, seen in results.trials.items()}
    parts = contest(lighthouses)
    assert f1[parts.naive] == 1.0
    assert f1[Configuration(60, "greedy", 24, "hybrid", 0.0)] == 1.0
    tight = [seen for tried, seen in results.glances.items() if tried.budget == 8]
    assert all(glance.answer_in_context == 0.0 and glance.context_tokens <= 8 for seen in tight for glance in seen.values())


def test_the_same_search_again_is_the_same(lighthouses: Settings) -> None:
    assert played(lighthouses, LighthouseReader()) == played(lighthouses, LighthouseReader())


def test_when_the_calls_are_spent_all_of_a_rung_were_asked_the_same(lighthouses: Settings) -> None:
    bounded = BoundedReader(LighthouseReader())
    bounded.bound(max_calls=60, max_seconds=None)
    results = played(lighthouses, bounded)
    assert (results.finished, bounded.calls) == (False, 60)
    common = results.common(PAIRS)
    assert 0 < len(common) < len(PAIRS)
    most = max(len(results.trials[tried]) for tried in results.finalists)
    assert most - len(common) <= 1


def test_a_cancelled_search_says_so(lighthouses: Settings) -> None:
    results = played(lighthouses, LighthouseReader(), stop_after=3)
    assert (results.cancelled, results.finished) == (True, False)


def test_a_reader_that_fails_ends_the_search(lighthouses: Settings) -> None:
    with pytest.raises(ModelUnavailable):
        played(lighthouses, LighthouseReader(fails_at=5))
