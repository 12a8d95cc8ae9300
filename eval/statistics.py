"""Confidence intervals by the percentile bootstrap (Efron and Tibshirani 1993, chapter 13), free of distributions.

A resample is told by how often it holds each value, so that the means of many columns over many resamples are one matrix
product. Columns resampled together share their draws: each interval is as if drawn alone, and columns whose rows are the
same questions stay paired. Strata (data sets) must not share draws: their number goes into the seed.

Known limits: for a share near 0 or 1 and few questions the interval is somewhat too narrow, and where all values are equal
it has no width; below about 30 questions read it as a lower bound of the uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
# Values drawn at a time: bounds memory to some tens of megabytes whatever the number of values.
_BLOCK = 2_000_000
# Resampled means held at a time.
_MEANS = 8_000_000

Interval = tuple[float, float]
Values = NDArray[np.float64]


def mean(values: Sequence[float]) -> float | None:
    """The mean, or None of no values: never NaN."""
    return float(np.mean(values)) if len(values) else None


def bootstrap_interval(values: Sequence[float], *, seed: int, resamples: int = RESAMPLES,
                       level: float = 0.95) -> Interval | None:
    """Percentile interval of the mean; None of no values. Equal values, order and seed give the equal interval."""
    return bootstrap_intervals([values], seed=seed, resamples=resamples, level=level)[0]


def bootstrap_intervals(columns: Sequence[Sequence[float]], *, seed: int, resamples: int = RESAMPLES,
                        level: float = 0.95) -> list[Interval | None]:
    """The interval of each column's mean, as `bootstrap_interval` gives it, in the order given; lengths may differ."""
    return [None if found is None else found[1]
            for found in macro_means([[column] for column in columns], seed=seed, resamples=resamples, level=level)]


def paired_difference(first: Sequence[float], second: Sequence[float], *, seed: int, resamples: int = RESAMPLES,
                      level: float = 0.95) -> tuple[float, Interval] | None:
    """Mean of first - second and its interval, where equal positions are the same question; None of no pairs.

    Raises:
        ValueError: the lengths differ, so the values cannot be pairs.
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    interval = bootstrap_interval(differences, seed=seed, resamples=resamples, level=level)
    return None if interval is None else (float(np.mean(differences)), interval)


def macro_mean(strata: Sequence[Sequence[float]], *, seed: int, resamples: int = RESAMPLES,
               level: float = 0.95) -> tuple[float, Interval] | None:
    """Mean of the strata's means, and its interval by resampling within each stratum.

    Every stratum weighs the same, whatever its size; strata without values do not count. None where none has any. For
    paired differences pass the differences.
    """
    return macro_means([strata], seed=seed, resamples=resamples, level=level)[0]


def macro_means(figures: Sequence[Sequence[Sequence[float]]], *, seed: int, resamples: int = RESAMPLES,
                level: float = 0.95) -> list[tuple[float, Interval] | None]:
    """`macro_mean` of each figure, in the order given. A stratum's place in the figure is its number, empty or not."""
    found: list[tuple[float, Interval] | None] = []
    # Some figures at a time, or the resampled means of a large summary would fill the memory.
    size = max(1, _MEANS // resamples)
    for start in range(0, len(figures), size):
        found += _macro_means(figures[start:start + size], seed=seed, resamples=resamples, level=level)
    return found


def _macro_means(figures: Sequence[Sequence[Sequence[float]]], *, seed: int, resamples: int,
                 level: float) -> list[tuple[float, Interval] | None]:
    drawn = np.zeros((resamples, len(figures)))
    centre, least, most, known = (np.zeros(len(figures)) for _ in range(4))
    for (stratum, _), places in _alike(figures).items():
        values = np.array([figures[place][stratum] for place in places], dtype=np.float64).T
        drawn[:, places] += resampled_means(values, seed=seed, stratum=stratum, resamples=resamples)
        for total, part in ((centre, values.mean(axis=0)), (least, values.min(axis=0)), (most, values.max(axis=0))):
            total[places] += part
        known[places] += 1
    divisor = np.maximum(known, 1)
    tail = (1 - level) / 2
    # No mean is outside the values, whatever the rounding.
    bounds = np.clip(np.quantile(drawn / divisor, [tail, 1 - tail], axis=0), least / divisor, most / divisor)
    return [(float(middle), (float(low), float(high))) if strata else None
            for middle, low, high, strata in zip(centre / divisor, *bounds, known, strict=True)]


def _alike(figures: Sequence[Sequence[Sequence[float]]]) -> dict[tuple[int, int], list[int]]:
    """Places of the figures by stratum and how many values they have in it, none left out: they can be drawn together."""
    found: dict[tuple[int, int], list[int]] = {}
    for place, strata in enumerate(figures):
        for stratum, values in enumerate(strata):
            if len(values):
                found.setdefault((stratum, len(values)), []).append(place)
    return found


def resampled_means(values: Values, *, seed: int, stratum: int = 0, resamples: int = RESAMPLES) -> Values:
    """Means of the columns of `values` (n >= 1 rows) over resamples of its rows: an array (resamples, columns)."""
    rng = np.random.default_rng([seed, stratum, len(values)])
    count = len(values)
    rows = max(1, _BLOCK // count)
    blocks = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate([_times_drawn(rng, block, count) @ values for block in blocks]) / count


def _times_drawn(rng: np.random.Generator, resamples: int, count: int) -> Values:
    """How often each of `count` values is in each resample of that size."""
    drawn = rng.integers(0, count, size=(resamples, count))
    drawn += np.arange(0, resamples * count, count)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * count).reshape(resamples, count).astype(np.float64)
