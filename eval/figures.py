"""Rows of results by group, and which rows each figure rests on.

    shares          where the metric has a meaning: answers where the reader was asked, contexts everywhere
    tokens, money   where the reader was asked, except `context_tokens`, which every question has
    seconds         timed questions only: alone, one at a time, nothing remembered
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from eval.results import Row
from eval.scoring import NAMES, nothing_fitted
from eval.statistics import Interval, macro_means

K = TypeVar("K")

# In percent; every other share is from 0 to 1.
PERCENT = frozenset({"em", "f1"})
SPENT = ("prompt_tokens", "completion_tokens", "cached_tokens", "naive_tokens", "llm_calls", "encoder_passes", "cost_usd",
         "energy_wh", "water_ml")
FIGURES = (*NAMES, "judge", "context_tokens", *SPENT, "seconds")
_READ_ONLY = frozenset(SPENT)
# Significant ones: a figure may be a millionth of a dollar.
_DIGITS = 8

Columns = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one data set, system and budget by question id. `columns` has the values of each figure in that order."""

    rows: tuple[Row, ...]
    columns: Columns

    def by_question(self, name: str) -> dict[object, float]:
        return {row["question"]: value for row in self.rows if (value := value_of(row, name)) is not None}


def group(rows: Iterable[Row]) -> Group:
    """In the order of question ids, so that what is drawn does not depend on the order in which questions were answered."""
    ordered = tuple(sorted(rows, key=lambda row: str(row["question"])))
    columns: dict[str, list[float]] = {name: [] for name in FIGURES}
    for row in ordered:
        for name, column in columns.items():
            value = value_of(row, name)
            if value is not None:
                column.append(value)
    return Group(ordered, MappingProxyType(columns))


def value_of(row: Row, name: str) -> float | None:
    """The row's value of a figure, or None where the figure does not rest on this row."""
    if (name in _READ_ONLY and not row["read"]) or (name == "seconds" and not row["timed"]):
        return None
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) else None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean of `n` values with its 95 % interval; both None of no values. In the unit of the rows: shares from 0 to 1."""

    mean: float | None
    ci: Interval | None
    n: int


def estimates(strata: Mapping[K, Sequence[Columns]], *, names: Sequence[str], seed: int) -> dict[K, dict[str, Estimate]]:
    """The estimate of each figure of `names`, with every stratum weighing the same; one stratum is a plain mean.

    A stratum's place is its number: the same data set has the same place everywhere, with empty columns where it lacks.
    """
    figures = [[columns.get(name, ()) for columns in parts] for parts in strata.values() for name in names]
    drawn = iter(zip(figures, macro_means(figures, seed=seed), strict=True))
    return {key: {name: _estimate(*next(drawn)) for name in names} for key in strata}


def _estimate(parts: Sequence[Sequence[float]], found: tuple[float, Interval] | None) -> Estimate:
    mean, interval = (None, None) if found is None else found
    return Estimate(mean, interval, sum(map(len, parts)))


def rounded(name: str, value: float | None) -> float | None:
    """As a summary has it: `PERCENT` in percent, and the digits that matter whatever the unit."""
    if value is None:
        return None
    return float(f"{100 * value if name in PERCENT else value:.{_DIGITS}g}")


def told(name: str, found: Estimate) -> dict[str, object]:
    """The figure's mean and interval as a summary has them."""
    interval = None if found.ci is None else [rounded(name, bound) for bound in found.ci]
    return {name: rounded(name, found.mean), f"{name}_ci": interval}


def counts(found: Group) -> dict[str, float | None]:
    """Verdicts, failures and what they say about declining: counts of questions that the reader was asked, and shares of them.

    Declining is precise where the question was unanswerable, and recalls the unanswerable questions that were declined. A
    failure declines nothing. `cited`: share of the answers, where the system cites at all, that cite something.
    """
    asked = [row for row in found.rows if row["read"]]
    abstained = [row for row in asked if row["verdict"] == "abstained" and not nothing_fitted(row["reason"])]
    rightly = sum(row["unanswerable"] is True for row in abstained)
    unanswerable = sum(row["unanswerable"] is True for row in asked)
    citing = [row["citations"] for row in asked if row["verdict"] == "answered" and row.get("citations") is not None]
    return {
        "failed": sum(row["error"] is not None for row in found.rows), "read": len(asked),
        "answered": sum(row["verdict"] == "answered" for row in asked), "abstained": len(abstained),
        "degraded": sum(row["verdict"] == "degraded" for row in asked), "abstained_rightly": rightly,
        "unanswerable": unanswerable, "abstention_precision": _share(rightly, len(abstained)),
        "abstention_recall": _share(rightly, unanswerable), "cited": _share(sum(map(bool, citing)), len(citing)),
    }


def stages(found: Group) -> dict[str, float]:
    """Mean seconds of each stage over the timed questions, in the order in which they ran; a stage that did not run took 0."""
    timed = [told for row in found.rows if row["timed"] and isinstance(told := row.get("stages"), Mapping)]
    names = dict.fromkeys(name for seconds in timed for name in seconds)
    return {name: math.fsum(seconds.get(name, 0.0) for seconds in timed) / len(timed) for name in names}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
