"""The chance that what was remembered for one question serves another, learnt from cases that were checked; and how often to
check before it is served, so that a promised rate of errors holds.

After vCache (Schroeder et al., arXiv 2502.03771), with observations (s, c): s how alike two questions are, c = 1 if what was
remembered was right.

    L(s; t, g) = 1 / (1 + exp(-g (s - t)))                                                (t, g) by maximum likelihood
    tau(s) = min over eps of ((1 - d) - (1 - eps) L(s; t', g)) / (1 - (1 - eps) L(s; t', g)),   clipped to [0, 1]
    t' = t + z(1 - eps) se(t)                                the pessimistic end: a HIGHER boundary, so L becomes smaller

Serving with probability 1 - tau and checking otherwise keeps the chance of a right answer at 1 - d at least, if cases are alike
and L is a sigmoid. Where we depart: one wrong case that nobody saw is added at the highest score, so that cases without an error do
not promise perfection; and nothing is served where tau is above 0 (`serves`): what lies between is what crafted questions aim at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from optimizers.logistic import newton

# Cases without which nothing is promised: every question is checked until then.
LEAST = 50
_EPSILONS = (1e-6, 1e-5, 1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 7e-3, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.3, 0.5)
_LONGEST = 2.0                  # step of the search: where few cases decide, a longer one overshoots
_STEEPEST = 200.0


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """L with the standard error of its boundary. `n`: cases that it was fitted on; `right`: how many of them."""

    t: float
    g: float
    se: float
    n: int
    right: int

    def chance(self, score: float, *, shift: float = 0.0) -> float:
        """L at `score`, its boundary moved up by `shift`."""
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, self.g * (score - self.t - shift)))))

    def to_dict(self) -> dict[str, float | int]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def fitted(scores: Sequence[float], right: Sequence[bool]) -> Sigmoid | None:
    """The sigmoid of greatest likelihood; None where it would not rise with the score, or there are no cases."""
    if not scores:
        return None
    x = np.asarray([*scores, max(scores)], np.float64)
    y = np.asarray([*map(float, right), 0.0], np.float64)
    middle, spread = float(x.mean()), max(float(x.std()), 1e-6)
    # A weak ridge on the slope keeps cases that a boundary parts without error from running off to infinity.
    found = newton(np.column_stack([(x - middle) / spread, np.ones(len(x))]), y, share=1.0, penalty=np.diag([0.01, 1e-9]),
                   longest=_LONGEST)
    slope, bias = found.weights.tolist()
    if not found.ended or slope <= 0:
        return None
    t = -bias / slope
    # The delta method: t = -b / a moves by (t, 1) . (da, db) / -a.
    gradient = np.asarray([t, 1.0]) / -slope
    variance = float(gradient @ np.linalg.inv(found.curvature) @ gradient)
    return Sigmoid(t=middle + spread * t, g=min(slope / spread, _STEEPEST), se=spread * math.sqrt(max(variance, 0.0)),
                   n=len(scores), right=int(np.sum(y)))


def boundary(model: Sigmoid, *, eps: float) -> float:
    """t': where L is one half at the pessimistic end of the region that holds the true boundary with a chance of 1 - eps."""
    return model.t + _quantile(1 - eps) * model.se


@lru_cache(maxsize=64)
def _quantile(share: float) -> float:
    return NormalDist().inv_cdf(share)


def exploring(model: Sigmoid | None, score: float, *, error: float) -> float:
    """tau: the share of questions of this score that must be checked for at most `error` wrong ones in all; 1 without a model."""
    if model is None or model.n < LEAST:
        return 1.0
    return max(0.0, min(_share(model, score, error, eps) for eps in _EPSILONS))


def _share(model: Sigmoid, score: float, error: float, eps: float) -> float:
    surely = (1 - eps) * model.chance(score, shift=boundary(model, eps=eps) - model.t)
    return ((1 - error) - surely) / (1 - surely) if surely < 1 else 0.0


def serves(model: Sigmoid | None, score: float, *, error: float) -> bool:
    """Whether no check at all is due: even the pessimistic chance reaches the promise."""
    return exploring(model, score, error=error) <= 0.0


def empirical(scores: Sequence[float], right: Sequence[bool], *, error: float, trust: float = 0.9) -> float | None:
    """The least score from which on the cases themselves keep the promise: the upper bound of their share of errors (Wilson's,
    one-sided, at `trust`) is at most `error` among all cases of that score or more. None where no score does."""
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ranked = np.asarray(scores, np.float64)[order]
    wrong = np.cumsum(~np.asarray(right, np.bool_)[order])
    z = NormalDist().inv_cdf(trust)
    least = None
    for n, (score, count) in enumerate(zip(ranked.tolist(), wrong.tolist(), strict=True), 1):
        # Cases of equal score are served together or not at all.
        if (n == len(ranked) or ranked[n] < score) and _upper(count, n, z) <= error:
            least = score
    return least


def _upper(wrong: int, n: int, z: float) -> float:
    share = wrong / n
    return (share + z * z / (2 * n) + z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))) / (1 + z * z / n)
