"""Intervals: exact where the answer is known, and right as often as they claim where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from eval.statistics import bootstrap_interval, mean, paired_difference


def test_nothing_gives_none_and_never_nan() -> None:
    assert mean([]) is None
    assert bootstrap_interval([], seed=1) is None
    assert paired_difference([], [], seed=1) is None


def test_equal_values_have_an_interval_without_width() -> None:
    assert bootstrap_interval([0.25] * 7, seed=1) == (0.25, 0.25)
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


def test_drawing_in_blocks_keeps_the_number_of_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    from eval import statistics

    monkeypatch.setattr(statistics, "_BLOCK", 70)
    means = statistics._resampled_means(np.arange(20.0), 1, 1000)
    assert means.shape == (1000,)
    assert means.mean() == pytest.approx(9.5, abs=0.3)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(300):
        values = (rng.random(80) < 0.6).astype(float).tolist()
        low, high = bootstrap_interval(values, seed=trial, resamples=500) or (1, 0)
        covered += low <= 0.6 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_paired_difference_uses_the_pairs() -> None:
    hard = np.random.default_rng(2).random(100)
    found = paired_difference((hard + 0.1).tolist(), hard.tolist(), seed=1)
    assert found is not None
    assert found[0] == pytest.approx(0.1)
    assert found[1] == pytest.approx((0.1, 0.1))


def test_unequal_lengths_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 0.0], seed=1)
