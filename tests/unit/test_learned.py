"""The learnt worth of a set: its features by hand, its fit, how it is judged, and as the worth of a search."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from optimizers.coefficients import Coefficients
from optimizers.learned import NAMES, LearnedWorth
from optimizers.packed import Packed, packed
from optimizers.pool import Pool, Unit
from optimizers.searching import choose
from optimizers.training import answers
from optimizers.training.answers import Row
from optimizers.utility import SetUtility
from tests.unit.test_selectors import candidate, rendered

COEFFICIENTS = Coefficients()


def a_pool() -> Pool:
    return Pool((candidate("Kettles boil water. Tea is brewed in cups.", .9, .3, name="a", terms=("Kettles", "Tea")),
                 candidate("Otters hold hands while asleep.", .5, name="b", terms=("Otters",))),
                {"Kettles": 2.0, "Tea": 1.0, "Otters": 1.0})


CHANCES = {Unit(0, 0): .6, Unit(0, 1): .1, Unit(1, 0): .3}


def arrays_of(pool: Pool, budget: int = 200) -> Packed:
    found, rows = packed(pool, chances=CHANCES, coefficients=COEFFICIENTS, budget=budget, render=rendered)
    assert rows.units == (Unit(0, 0), Unit(0, 1), Unit(1, 0))
    return found


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_features_by_hand() -> None:
    arrays = arrays_of(a_pool())
    utility = SetUtility(arrays, COEFFICIENTS)
    worth = LearnedWorth(arrays, utility, weights=(np.zeros(len(NAMES)), 0.0))
    found = dict(zip(NAMES, worth.features([0b101])[0].tolist(), strict=True))
    tokens = int(utility.tokens([0b101])[0])
    assert found["odds_any"] == pytest.approx(logit(1 - .4 * .7))
    assert found["odds_best"] == pytest.approx(logit(.6))
    assert found["covered"] == pytest.approx(.5 * math.sqrt(.6) + .25 * math.sqrt(.3))
    assert found["tokens"] == pytest.approx(tokens / 100)
    assert found["log_tokens"] == pytest.approx(math.log1p(tokens))
    assert found["distraction"] == pytest.approx((arrays.tokens[0] * .4 + arrays.tokens[2] * .7) / 100)
    assert found["passages"] == 2
    assert found["mean_chance"] == pytest.approx(.45)
    assert found["behind"] == 0
    later = dict(zip(NAMES, worth.features([0b110])[0].tolist(), strict=True))
    assert later["behind"] == pytest.approx(.3)
    assert worth.features([]).shape == (0, len(NAMES))
    assert worth([0b1, 0b11]).tolist() == [.5, .5]


def test_a_search_goes_by_the_learnt_worth() -> None:
    pool = a_pool()
    arrays = arrays_of(pool)
    utility = SetUtility(arrays, COEFFICIENTS)
    only_tokens = np.asarray([-5.0 if name == "tokens" else 0.0 for name in NAMES])
    everything = np.asarray([5.0 if name == "tokens" else 0.0 for name in NAMES])
    from optimizers import beam

    short, long = (choose(pool, budget=200, render=rendered, stop=lambda: False, search=beam.search, chances=lambda _: CHANCES,
                          coefficients=COEFFICIENTS, worth=LearnedWorth(arrays, utility, weights=(weights, 0.0)))
                   for weights in (only_tokens, everything))
    assert sum(len(each.sentences) for each in short.extracts) == 1
    assert sum(len(each.sentences) for each in long.extracts) == 3
    assert rendered(long.extracts).tokens <= 200


def test_fitting_recovers_known_weights() -> None:
    rng = np.random.default_rng(3)
    truth, bias = np.linspace(-1, 1, len(NAMES)), .4
    x = rng.normal(size=(12_000, len(NAMES)))
    y = (rng.random(len(x)) < 1 / (1 + np.exp(-(x @ truth + bias)))).astype(float)
    rows = [Row(at, x[at], 0.0, 10, 1, float(y[at])) for at in range(len(x))]
    weights, found = answers.fit([rows[:4000], rows[4000:]])
    assert weights == pytest.approx(truth, abs=.12)
    assert found == pytest.approx(bias, abs=.12)


def test_areas_by_hand() -> None:
    assert answers.area(np.asarray([.9, .1, .5, .5]), np.asarray([1., 0, 1, 0])) == pytest.approx(3.5 / 4)
    assert math.isnan(answers.area(np.asarray([.9, .1]), np.asarray([1., 1.])))
    nothing = np.zeros(len(NAMES))
    rows = [Row(0, nothing, 0, 5, 0b1, 1.0), Row(0, nothing, 0, 9, 0b11, 0.0), Row(1, nothing, 0, 5, 0b1, .2),
            Row(1, nothing, 0, 9, 0b101, .8)]
    assert answers.within(rows, np.asarray([.3, .2, .9, .1])) == .5
    assert answers.worsened(rows) == (2, 1, 1)


def test_sets_that_are_read_are_allowed_and_different() -> None:
    arrays = arrays_of(a_pool())
    found = answers.drawn(arrays, SetUtility(arrays, COEFFICIENTS), random.Random(1))
    assert found[0] == 0b1
    assert len(set(found)) == len(found) >= 2
    assert all(0 < bits < 8 for bits in found)
