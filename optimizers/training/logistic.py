"""Logistic regression with a small ridge, by Newton's method: what all chances here are fitted by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
RIDGE = 1.0
_STEPS = 60


def fitted(sets: Sequence[tuple[Matrix, Matrix]]) -> tuple[Matrix, float]:
    """Weights and bias in the features' own units; the ridge RIDGE is on standardised features. `sets`: rows (n, features) and the
    share of each that is right (n,); each set counts as much as the mean of all."""
    x, y = (np.concatenate([each[part] for each in sets]) for part in (0, 1))
    sizes = [len(labels) for _, labels in sets]
    share = np.repeat([np.mean(sizes) / size for size in sizes], sizes)
    middle, scale = x.mean(0), np.maximum(x.std(0), 1e-9)
    design = np.column_stack([(x - middle) / scale, np.ones(len(x))])
    penalty = RIDGE * np.diag([1.0] * x.shape[1] + [0.0])
    solution = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ solution, -30, 30)))
        gradient = design.T @ (share * (y - p)) - penalty @ solution
        curvature = (design * (share * p * (1 - p))[:, None]).T @ design + penalty
        solution = solution + np.linalg.solve(curvature, gradient)
    weights = solution[:-1] / scale
    return weights, float(solution[-1] - middle @ weights)
