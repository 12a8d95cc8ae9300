"""How far a judge can be believed: its verdicts beside exact match and token F1 on the same answers.

Cohen's kappa (Cohen 1960) is agreement beyond what two graders who grade blindly at their own rates would reach: 0 is
chance, 1 is full agreement, negative is worse than chance. Spearman's rank correlation gives ties the mean of their ranks.
Only answers that the judge really saw count: neither questions without accepted answers nor replies that declined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eval.figures import value_of
from eval.results import Row

# From here on an answer counts as right: by token F1, and by the judge.
_RIGHT = 0.5


def agreements(rows: Sequence[Row]) -> list[dict[str, object]]:
    """One row for each data set with judged answers, by name, and where there are several one for "all" of their answers.

    `judge`, `em`, `f1`: mean grades from 0 to 1 of the same `n` answers. `kappa_em`, `kappa_f1` (F1 of at least 0.5) and
    `spearman_f1` are None where one grader gave everything the same grade. Systems and budgets are taken together.
    """
    found: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        grades = [value_of(row, name) for name in ("judge", "em", "f1")]
        judge, em, f1 = grades
        if judge is not None and em is not None and f1 is not None and not row["unanswerable"] and row["verdict"] != "abstained":
            found.setdefault(str(row["dataset"]), []).append((judge, em, f1))
    parts = sorted(found.items())
    if len(parts) > 1:
        parts.append(("all", [grades for _, some in parts for grades in some]))
    return [_row(name, np.array(grades, dtype=np.float64)) for name, grades in parts]


def _row(dataset: str, grades: NDArray[np.float64]) -> dict[str, object]:
    judge, em, f1 = grades.T
    return {"dataset": dataset, "n": len(grades), "judge": round(float(judge.mean()), 6), "em": round(float(em.mean()), 6),
            "f1": round(float(f1.mean()), 6), "kappa_em": _rounded(kappa(judge >= _RIGHT, em >= _RIGHT)),
            "kappa_f1": _rounded(kappa(judge >= _RIGHT, f1 >= _RIGHT)), "spearman_f1": _rounded(spearman(judge, f1))}


def kappa(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float | None:
    """Cohen's kappa of two graders' verdicts on the same answers; None where chance alone would make them agree on all."""
    if not len(one):
        return None
    expected = float(one.mean() * other.mean() + (1 - one.mean()) * (1 - other.mean()))
    return None if expected == 1 else (float((one == other).mean()) - expected) / (1 - expected)


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """Rank correlation, ties at the mean of their ranks; None where either has only equal values."""
    if not len(one):
        return None
    first, second = (ranks - ranks.mean() for ranks in (_ranks(one), _ranks(other)))
    scale = float(np.sqrt((first ** 2).sum() * (second ** 2).sum()))
    return float((first * second).sum()) / scale if scale else None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[place], dtype=np.float64)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
