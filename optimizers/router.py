"""Which of two readers a question is worth: after the routing survey "Doing More with Less" (arXiv 2502.00409).

    m* = argmax over m of  E[score(m)] - lambda * cost(m)

Costs are shares of one call of the large reader, which so costs 1; `share` is that of the small one. Scores are token F1 from 0
to 1, so lambda is the gain in F1 that one call of the large reader must bring. The small reader may be asked first (a cascade):
its answer tells more about both than the question does, and it costs little. Expectations are logistic regressions over the signs
of `optimizers.routing`, fitted by `python -m optimizers.training.router`, which writes `router.json` and prints how well they are
calibrated on sets that they were not fitted on. There are two of each after an answer: one for readers that tell how sure they
are of their words, one for the others.

`first` asks the large reader at once where the cascade would come to it too often to pay: with a chance p of going on, the
cascade costs share + p, so from p > 1 - share on the large reader alone is cheaper. p comes from the gain that the question alone
lets expect, and from how far such expectations were off (`spread`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from optimizers.routing import SURE

WEIGHTS = Path(__file__).with_name("router.json")
Size = Literal["small", "large"]
# Few signs, because sets of another style have to be judged by them: with all that are logged, the expectations of a set that was
# left out were worse than chance.
BEFORE = ("sufficiency", "covered", "best_cosine", "question_words")
AFTER = ("sufficiency", "covered", "declined", "unsupported", "answer_words", "echoes_question")
AFTER_SURE = (*AFTER, *SURE)
# What is expected: the score of each reader's answer, before either has read and after the small one has.
NAMES: Mapping[str, tuple[str, ...]] = {
    "small": BEFORE, "large": BEFORE, "small after small": AFTER, "large after small": AFTER,
    "small after small, sure": AFTER_SURE, "large after small, sure": AFTER_SURE}
_MANY = 60.0


@dataclass(frozen=True, slots=True)
class Expectation:
    """A logistic regression by the names of its features."""

    weights: Mapping[str, float]
    bias: float

    def __call__(self, signs: Mapping[str, float]) -> float:
        """In (0, 1). Raises KeyError for a sign that is missing."""
        odds = self.bias + math.fsum(weight * signs[name] for name, weight in self.weights.items())
        return 1 / (1 + math.exp(-max(min(odds, _MANY), -_MANY)))


@dataclass(frozen=True, slots=True)
class Model:
    """An expectation per name in NAMES; `spread`: the standard deviation of the gain expected after the small reader's answer
    around the one expected before it; `share`: the seconds of a call of the small reader over those of the large one."""

    expectations: Mapping[str, Expectation]
    spread: float
    share: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Whose answer is wanted next or kept, and why. `expected`: the score of each reader's answer."""

    reader: Size
    why: str
    expected: Mapping[Size, float]

    def facts(self) -> dict[str, object]:
        return {"decision": self.reader, "why": self.why,
                "expected": {name: round(value, 4) for name, value in self.expected.items()}}


@lru_cache(maxsize=1)
def shipped() -> Model:
    return of_stored(json.loads(WEIGHTS.read_text(encoding="utf-8")))


def of_stored(stored: Mapping[str, object]) -> Model:
    """Raises KeyError, TypeError or ValueError for what `training.router` did not write."""
    models = stored["models"]
    if not isinstance(models, Mapping) or set(models) != set(NAMES):
        raise ValueError(f"The router's weights are for {sorted(models) if isinstance(models, Mapping) else models}.")
    return Model({name: Expectation({each: float(weight) for each, weight in fitted["weights"].items()}, float(fitted["bias"]))
                  for name, fitted in models.items()}, float(str(stored["spread"])), float(str(stored["share"])))


def first(model: Model, signs: Mapping[str, float], *, cost: float, share: float, cascade: bool) -> Decision:
    """Who is asked first, by the signs of SEEN. `cost` is lambda. With `cascade` always the small reader."""
    expected = _expected(model, signs, small="small", large="large")
    if cascade:
        return Decision("small", "cascade: the small reader is always asked first", expected)
    gain = expected["large"] - expected["small"]
    on = _above((cost - gain) / model.spread) if model.spread > 0 else float(gain > cost)
    if on > 1 - share:
        return Decision("large", f"the small reader's answer would be passed over with a chance of {on:.2f}, more than "
                        f"{1 - share:.2f}, so asking it does not pay", expected)
    return Decision("small", f"the small reader's answer will do with a chance of {1 - on:.2f}", expected)


def onward(model: Model, signs: Mapping[str, float], *, cost: float) -> Decision:
    """Whether the small reader's answer will do, by the signs of SEEN and SAID, and SURE where they are there."""
    after = ", sure" if all(name in signs for name in SURE) else ""
    expected = _expected(model, signs, small=f"small after small{after}", large=f"large after small{after}")
    gain = expected["large"] - expected["small"]
    if gain > cost:
        return Decision("large", f"the large reader's answer is expected to be {gain:.2f} better, more than the {cost:.2f} that it "
                        "must bring", expected)
    return Decision("small", f"the large reader's answer is expected to be {gain:+.2f} better, not the {cost:.2f} that it must "
                    "bring", expected)


def _expected(model: Model, signs: Mapping[str, float], *, small: str, large: str) -> dict[Size, float]:
    return {"small": model.expectations[small](signs), "large": model.expectations[large](signs)}


def _above(deviations: float) -> float:
    """Chance that a normal variable is so many standard deviations above its mean, or more."""
    return 0.5 * math.erfc(deviations / math.sqrt(2))
