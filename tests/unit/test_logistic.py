"""The one fit that all chances come from: at rest where the loss is least, whatever the rows weigh."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from optimizers.logistic import Matrix, fitted, newton


def drawn(seed: int, *, n: int = 60, columns: int = 3) -> tuple[Matrix, Matrix, Matrix]:
    """Rows with a column of ones, which of them are right, and how much each counts."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, columns))
    right = (1 / (1 + np.exp(-(2 * x[:, 0] - x[:, 1]))) > rng.random(n)).astype(np.float64)
    return np.column_stack([x, np.ones(n)]), right, rng.uniform(0.5, 2, n)


def loss_of(design: Matrix, right: Matrix, share: Matrix, penalty: Matrix) -> Callable[[Matrix], float]:
    """Row by row, as the formula says it."""
    def loss(weights: Matrix) -> float:
        total = 0.5 * float(weights @ penalty @ weights)
        for row, label, count in zip(design, right, share, strict=True):
            p = 1 / (1 + np.exp(-float(row @ weights)))
            total -= float(count) * float(label * np.log(p) + (1 - label) * np.log(1 - p))
        return total
    return loss


@pytest.mark.parametrize("longest", [float("inf"), 0.1])
def test_no_other_weights_have_less_loss(longest: float) -> None:
    design, right, share = drawn(1)
    penalty = np.diag([1.0, 1.0, 1.0, 0.0])
    found = newton(design, right, share=share, penalty=penalty, longest=longest)
    assert found.ended
    loss = loss_of(design, right, share, penalty)
    least = loss(found.weights)
    for column in range(4):
        for by in (-1e-3, 1e-3):
            assert loss(found.weights + by * np.eye(4)[column]) > least


def test_the_curvature_is_that_of_the_loss() -> None:
    design, right, share = drawn(2, columns=2)
    penalty = np.diag([0.5, 0.5, 0.0])
    found = newton(design, right, share=share, penalty=penalty)
    loss, by = loss_of(design, right, share, penalty), 1e-4
    slope = by * np.eye(3)
    at = found.weights
    slow = [[(loss(at + a + b) - loss(at + a - b) - loss(at - a + b) + loss(at - a - b)) / (4 * by * by) for b in slope]
            for a in slope]
    assert found.curvature == pytest.approx(np.asarray(slow), rel=1e-4)


def test_what_counts_twice_counts_like_two_rows() -> None:
    design, right, _ = drawn(3, n=20)
    penalty = np.eye(4)
    twice = newton(np.concatenate([design, design[:5]]), np.concatenate([right, right[:5]]), share=1.0, penalty=penalty)
    share = np.where(np.arange(20) < 5, 2.0, 1.0)
    assert newton(design, right, share=share, penalty=penalty).weights == pytest.approx(twice.weights, abs=1e-9)


def test_a_search_that_may_hardly_move_does_not_end() -> None:
    design, right, share = drawn(4)
    assert not newton(design, right, share=share, penalty=np.eye(4), longest=1e-6).ended


def test_the_units_of_features_do_not_matter() -> None:
    design, right, _ = drawn(5)
    x, units = design[:, :3], np.asarray([1000.0, 0.01, 1.0])
    weights, bias = fitted([(x, right)])
    scaled, moved = fitted([(x * units + 7, right)])
    assert x @ weights + bias == pytest.approx((x * units + 7) @ scaled + moved, abs=1e-6)


def test_a_set_counts_the_same_whatever_its_size() -> None:
    """Two sets that say the opposite cancel out, though one says it three times."""
    design, right, _ = drawn(6)
    x = design[:, :3]
    weights, bias = fitted([(np.concatenate([x] * 3), np.concatenate([right] * 3)), (x, 1 - right)])
    assert [*weights, bias] == pytest.approx([0.0] * 4, abs=1e-9)
