"""Fitting the trigger to cases that were checked: features to a score, the score to a chance, and the score from which on a promise
was kept.

One half of the cases, by the hash of what each is about, fits the score; the other half, which it has not seen, the chance and the
least score. Cases of the same question stay in one half.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from optimizers.logistic import fitted
from retrievers import trigger, vcache
from retrievers.reservoir import Case
from retrievers.trigger import Model

# Cases without which nothing is fitted: half of them must do for the chance.
LEAST = 2 * vcache.LEAST
FEATURES = {"passages": trigger.PASSAGES, "passages_unread": trigger.PASSAGES[:-1], "questions": trigger.QUESTIONS}
__all__ = ["FEATURES", "LEAST", "Case", "fit"]


def fit(kind: str, cases: Sequence[Case], *, error: float) -> Model | None:
    """The model of these cases for a promise of at most `error`; None where they are too few, of one outcome in the first half, or
    where no score rises with being right."""
    usable = [case for case in cases if len(case.values) == len(FEATURES[kind])]
    halves: tuple[list[Case], list[Case]] = ([], [])
    for case in usable:
        halves[hashlib.sha256(case.about.encode("utf-8", "surrogatepass")).digest()[0] % 2].append(case)
    first, second = halves
    if min(len(first), len(second)) < vcache.LEAST or len({case.right for case in first}) < 2:
        return None
    weights, bias = fitted([(np.asarray([case.values for case in first], np.float64),
                             np.asarray([case.right for case in first], np.float64))])
    scores = (np.asarray([case.values for case in second], np.float64) @ weights + bias).tolist()
    right = [case.right for case in second]
    sigmoid = vcache.fitted(scores, right)
    if sigmoid is None:
        return None
    return Model(FEATURES[kind], tuple(weights.tolist()), bias, sigmoid, vcache.empirical(scores, right, error=error), error)
