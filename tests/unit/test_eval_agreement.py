"""Agreement of a judge with exact match and F1: published and hand-made cases."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from eval.agreement import agreements, kappa, spearman


def row(judge: float | None, em: float | None, f1: float | None, *, dataset: str = "alpha", **changes: object) -> dict[str, object]:
    return {"dataset": dataset, "judge": judge, "em": em, "f1": f1, "read": True, "timed": False, "unanswerable": False,
            "verdict": "answered", **changes}


def test_kappa_of_a_known_table() -> None:
    # 20 times both yes, 15 both no, 5 and 10 apart: agreement 0.7, 0.5 by chance.
    one = np.array([True] * 25 + [False] * 25)
    other = np.array([True] * 20 + [False] * 5 + [True] * 10 + [False] * 15)
    assert kappa(one, other) == pytest.approx(0.4)


def test_kappa_of_full_agreement_and_of_none() -> None:
    yes_no = np.array([True, False, True, False])
    assert kappa(yes_no, yes_no) == 1
    assert kappa(yes_no, ~yes_no) == -1
    assert kappa(np.array([True, True]), np.array([True, True])) is None
    assert kappa(np.array([], dtype=bool), np.array([], dtype=bool)) is None


def test_spearman_equals_that_of_scipy_with_ties() -> None:
    for other in permutations([0.0, 0.5, 0.5, 1.0, 0.2]):
        one = [0.0, 0.0, 1.0, 1.0, 0.0]
        assert spearman(np.array(one), np.array(other)) == pytest.approx(float(stats.spearmanr(one, other).statistic))


def test_spearman_of_equal_grades_is_unknown() -> None:
    assert spearman(np.array([1.0, 1.0]), np.array([0.0, 1.0])) is None
    assert spearman(np.array([]), np.array([])) is None


def test_only_answers_that_the_judge_saw_count() -> None:
    rows = [row(1.0, 1.0, 1.0), row(0.0, 0.0, 0.2), row(1.0, 0.0, 0.6), row(0.0, 0.0, 0.0, verdict="abstained"),
            row(None, 1.0, 1.0), row(1.0, 1.0, 1.0, unanswerable=True), row(1.0, None, None)]
    found, = agreements(rows)
    assert (found["dataset"], found["n"], found["judge"], found["em"]) == ("alpha", 3, pytest.approx(2 / 3, abs=1e-6),
                                                                           pytest.approx(1 / 3, abs=1e-6))
    assert found["kappa_f1"] == 1
    assert found["kappa_em"] == pytest.approx(0.4)


def test_several_data_sets_are_also_told_together() -> None:
    found = agreements([row(1.0, 1.0, 1.0, dataset="beta"), row(0.0, 0.0, 0.0), row(1.0, 1.0, 1.0)])
    assert [(one["dataset"], one["n"]) for one in found] == [("alpha", 2), ("beta", 1), ("all", 3)]
    assert (found[1]["kappa_em"], found[1]["spearman_f1"]) == (None, None)


def test_no_judge_no_agreement() -> None:
    assert agreements([row(None, 1.0, 1.0)]) == []
