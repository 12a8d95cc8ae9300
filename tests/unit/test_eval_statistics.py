"""Intervals: exact where the answer is known, and right as often as they claim where it is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from eval import statistics
from eval.statistics import bootstrap_interval, bootstrap_intervals, macro_mean, macro_means, mean, paired_difference

TRIALS = 300


def test_nothing_gives_none_and_never_nan() -> None:
    assert mean([]) is None
    assert bootstrap_interval([], seed=1) is None
    assert paired_difference([], [], seed=1) is None
    assert bootstrap_intervals([], seed=1) == []
    assert macro_mean([], seed=1) is None
    assert macro_mean([[], []], seed=1) is None
    assert macro_means([], seed=1) == []


def test_equal_values_have_an_interval_without_width() -> None:
    assert bootstrap_interval([0.1] * 7, seed=1) == (0.1, 0.1)
    assert bootstrap_interval([0.5], seed=1) == (0.5, 0.5)


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    values = np.random.default_rng(0).random(50).tolist()
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_interval_agrees_with_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(0).random(400)
    low, high = bootstrap_interval(values.tolist(), seed=3) or (0, 0)
    margin = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - margin, abs=0.003)
    assert high == pytest.approx(values.mean() + margin, abs=0.003)


def test_interval_agrees_with_drawing_one_value_at_a_time() -> None:
    values = np.random.default_rng(4).exponential(size=40)
    rng = np.random.default_rng(9)
    means = [np.mean([values[rng.integers(len(values))] for _ in values]) for _ in range(3000)]
    assert bootstrap_interval(values.tolist(), seed=3) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_drawing_in_blocks_keeps_the_number_of_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_BLOCK", 70)
    means = statistics.resampled_means(np.arange(20.0)[:, None], seed=1, resamples=1000)
    assert means.shape == (1000, 1)
    assert means.mean() == pytest.approx(9.5, abs=0.3)


def test_many_intervals_at_once_are_those_drawn_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    columns = [rng.random(length).tolist() for length in (5, 30, 5, 0, 30, 1, 7)]
    alone = [bootstrap_interval(column, seed=2, resamples=300) for column in columns]
    for held in (10 ** 6, 600):
        monkeypatch.setattr(statistics, "_MEANS", held)
        for one, other in zip(bootstrap_intervals(columns, seed=2, resamples=300), alone, strict=True):
            assert one == (other if other is None else pytest.approx(other, abs=1e-12))


def bernoulli(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    return (rng.random(size) < 0.6).astype(np.float64)


def skewed(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Like token F1 of a weak reader: mostly 0, some 1, little between. Mean 0.7 * 0 + 0.2 * 1 + 0.1 * 0.4."""
    kind = rng.random(size)
    return np.where(kind < 0.7, 0.0, np.where(kind < 0.9, 1.0, rng.beta(2, 3, size)))


def exponential(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    """Like seconds: never negative, with a long tail."""
    return rng.exponential(size=size)


@pytest.mark.parametrize(("draw", "truth"), [(bernoulli, 0.6), (skewed, 0.24), (exponential, 1.0)])
def test_intervals_cover_the_true_mean_about_as_often_as_they_say(
        draw: Callable[[np.random.Generator, int], NDArray[np.float64]], truth: float) -> None:
    rng = np.random.default_rng(5)
    found = [bootstrap_interval(draw(rng, 150).tolist(), seed=trial, resamples=600) or (1, 0) for trial in range(TRIALS)]
    assert 0.90 <= sum(low <= truth <= high for low, high in found) / TRIALS <= 0.98


def test_intervals_of_paired_differences_cover_the_true_one_and_gain_from_the_pairs() -> None:
    rng = np.random.default_rng(6)
    covered, narrower = 0, 0
    for trial in range(TRIALS):
        # Questions differ in how hard they are; the first system is 0.05 more likely to be right on each.
        hard = rng.uniform(0.1, 0.9, 150)
        luck = rng.random(150)
        first, second = ((luck < hard + gain).astype(float) for gain in (0.05, 0.0))
        found = paired_difference(first.tolist(), second.tolist(), seed=trial, resamples=600)
        assert found is not None
        low, high = found[1]
        covered += low <= 0.05 <= high
        alone = bootstrap_interval(first.tolist(), seed=trial, resamples=600) or (0, 0)
        narrower += high - low < alone[1] - alone[0]
    assert 0.90 <= covered / TRIALS <= 0.98
    assert narrower > 0.95 * TRIALS


def test_intervals_of_macro_means_cover_the_true_one() -> None:
    """Data sets of unequal size and level: the mean of their means, not the mean of all questions."""
    rng = np.random.default_rng(7)
    covered = 0
    for trial in range(TRIALS):
        strata = [(rng.random(size) < level).astype(float).tolist() for size, level in ((150, 0.2), (60, 0.5), (90, 0.8))]
        found = macro_mean(strata, seed=trial, resamples=600)
        assert found is not None
        covered += found[1][0] <= 0.5 <= found[1][1]
    assert 0.90 <= covered / TRIALS <= 0.98


def test_macro_mean_weighs_every_stratum_alike_and_leaves_out_empty_ones() -> None:
    found = macro_mean([[1.0] * 9, [], [0.0]], seed=1)
    assert found == (0.5, (0.5, 0.5))


def test_strata_do_not_share_their_draws() -> None:
    """Equal strata drawn alike would move together, and the interval would be as wide as that of one."""
    values = np.random.default_rng(3).random(100).tolist()
    one = bootstrap_interval(values, seed=1) or (0, 0)
    four = macro_mean([values] * 4, seed=1)
    assert four is not None
    assert four[1][1] - four[1][0] == pytest.approx((one[1] - one[0]) / 2, rel=0.1)


def test_macro_means_at_once_are_those_drawn_alone() -> None:
    rng = np.random.default_rng(8)
    figures = [[rng.random(length).tolist() for length in lengths] for lengths in ((5, 9), (5, 0), (0, 0), (0, 9), (5, 9))]
    together = macro_means(figures, seed=2, resamples=300)
    for figure, found in zip(figures, together, strict=True):
        alone = macro_mean(figure, seed=2, resamples=300)
        if alone is None:
            assert found is None
        else:
            assert found is not None
            assert (found[0], *found[1]) == pytest.approx((alone[0], *alone[1]), abs=1e-12)


def test_paired_difference_uses_the_pairs() -> None:
    hard = np.random.default_rng(2).random(100)
    found = paired_difference((hard + 0.1).tolist(), hard.tolist(), seed=1)
    assert found is not None
    assert found[0] == pytest.approx(0.1)
    assert found[1] == pytest.approx((0.1, 0.1))


def test_unequal_lengths_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 0.0], seed=1)
