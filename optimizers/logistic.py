"""Logistic regression with a small ridge, by Newton's method: what all chances here are fitted by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
RIDGE = 1.0
_STEPS = 100
_CLOSE = 1e-9
# Curvature of a row that is all but certain: without it rows that a boundary parts without error leave a singular matrix.
_LEAST = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """`weights`: one for each column. `curvature`: (columns, columns) where the last step began; its inverse is their covariance.
    `ended`: the search came to rest."""

    weights: Matrix
    curvature: Matrix
    ended: bool


def newton(design: Matrix, right: Matrix, *, share: Matrix | float, penalty: Matrix, longest: float = math.inf) -> Solution:
    """The weights of least penalised loss. `design`: (n, columns), a column of ones among them where there is to be a bias;
    `right`: the share of each row that is right (n,); `share`: how much each row counts; `penalty`: (columns, columns).
    `longest`: no weight moves further in one step."""
    weights = np.zeros(design.shape[1])
    curvature = penalty
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        curvature = (design * (share * np.maximum(p * (1 - p), _LEAST))[:, None]).T @ design + penalty
        step = np.linalg.solve(curvature, design.T @ (share * (right - p)) - penalty @ weights)
        weights = weights + np.clip(step, -longest, longest)
        if float(np.abs(step).max()) < _CLOSE:
            return Solution(weights, curvature, ended=True)
    return Solution(weights, curvature, ended=False)


def fitted(sets: Sequence[tuple[Matrix, Matrix]]) -> tuple[Matrix, float]:
    """Weights and bias in the features' own units; the ridge RIDGE is on standardised features. `sets`: rows (n, features) and the
    share of each that is right (n,); each set counts as much as the mean of all."""
    x, y = (np.concatenate([each[part] for each in sets]) for part in (0, 1))
    sizes = [len(labels) for _, labels in sets]
    share = np.repeat([np.mean(sizes) / size for size in sizes], sizes)
    middle, scale = x.mean(0), np.maximum(x.std(0), 1e-9)
    design = np.column_stack([(x - middle) / scale, np.ones(len(x))])
    solution = newton(design, y, share=share, penalty=RIDGE * np.diag([1.0] * x.shape[1] + [0.0])).weights
    weights = solution[:-1] / scale
    return weights, float(solution[-1] - middle @ weights)
