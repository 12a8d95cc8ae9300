"""Confidence intervals by the percentile bootstrap (Efron and Tibshirani 1993, chapter 13), free of distributions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
# Indexes drawn at a time: bounds memory to some tens of megabytes whatever the number of values.
_BLOCK = 2_000_000

Interval = tuple[float, float]


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of no values: never NaN."""
    return float(np.mean(values)) if len(values) else None


def bootstrap_interval(values: Sequence[float], *, seed: int, resamples: int = RESAMPLES,
                       level: float = 0.95) -> Interval | None:
    """Percentile interval of the mean; None of no values. Equal values, order and seed give the equal interval."""
    if not len(values):
        return None
    tail = (1 - level) / 2
    low, high = np.quantile(_resampled_means(np.asarray(values, dtype=np.float64), seed, resamples), [tail, 1 - tail])
    return float(low), float(high)


def paired_difference(first: Sequence[float], second: Sequence[float], *, seed: int, resamples: int = RESAMPLES,
                      level: float = 0.95) -> tuple[float, Interval] | None:
    """Mean of first - second and its interval, where equal positions are the same question; None of no pairs.

    Raises:
        ValueError: the lengths differ, so the values cannot be pairs.
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    interval = bootstrap_interval(differences, seed=seed, resamples=resamples, level=level)
    return None if interval is None else (float(np.mean(differences)), interval)


def _resampled_means(values: NDArray[np.float64], seed: int, resamples: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(values))
    blocks = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([values[rng.integers(0, len(values), size=(block, len(values)))].mean(axis=1) for block in blocks])
