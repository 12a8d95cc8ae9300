"""The retrieval trigger: whether what memory holds is enough for a question, or the index has to be searched (ERM4's fourth module;
Shi et al. 2024, arXiv 2407.10670).

Two rules decide. `count` is the paper's: pop is the number of remembered titles whose cosine to the query is at least tau; search
iff pop < theta. It promises nothing. `calibrated` turns what is known of the remembered passages into one score and serves only
where the chance of that score, taken pessimistically, keeps a promised rate of errors (`retrievers.vcache`), and where the cases it
was fitted on kept it too.

What is fitted stands in `trigger.json`, made by `python -m retrievers.training.trigger` for the embedders it names, or in the
collection's own memory, made by `thriftrag reservoir calibrate` from its own traffic.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, cast

from rag.errors import ConfigError
from retrievers.vcache import Sigmoid, exploring

Decision = Literal["memory", "retrieve", "none"]
Rule = Literal["count", "calibrated"]
WEIGHTS = Path(__file__).with_name("trigger.json")
# What the calibrated rule sees of memory: `rag.recall` says how each is made.
PASSAGES = ("best_passage", "best_sentence", "top_three", "past_question", "nearly_past", "shared", "apart", "coverage",
            "sufficiency", "answer_score")
QUESTIONS = ("past_question", "shared", "apart")


@dataclass(frozen=True, slots=True)
class Model:
    """Features to a score, and the score to a chance. `least`: the score under which the cases themselves broke the promise of
    `error`; None where no score kept it, and then nothing is served."""

    features: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float
    sigmoid: Sigmoid
    least: float | None
    error: float

    def score(self, values: Sequence[float]) -> float:
        return self.bias + math.fsum(weight * value for weight, value in zip(self.weights, values, strict=True))

    def to_dict(self) -> dict[str, object]:
        return {"features": list(self.features), "weights": [round(weight, 6) for weight in self.weights],
                "bias": round(self.bias, 6), "sigmoid": self.sigmoid.to_dict(), "least": self.least, "error": self.error}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`explore`: the share of such questions that have to be checked; None under the count rule."""

    decision: Decision
    why: str
    explore: float | None = None
    chance: float | None = None


def pop(cosines: Sequence[float], *, tau: float) -> int:
    """How many of these cosines, one a title, are at least tau."""
    return sum(cosine >= tau for cosine in cosines)


def counted(found: int, *, theta: int) -> Verdict:
    """The paper's rule: external retrieval iff fewer than theta titles match."""
    if found < theta:
        return Verdict("retrieve", f"{found} remembered titles match; {theta} are needed")
    return Verdict("memory", f"{found} remembered titles match")


def calibrated(model: Model | None, values: Sequence[float], *, error: float, draw: float = 1.0, audit: float = 0.0) -> Verdict:
    """Memory iff no check is due at the promised rate of errors. `draw`: uniform in (0, 1]; at or under `audit` the question is
    checked all the same, so that what is served goes on being measured."""
    if model is None:
        return Verdict("retrieve", "nothing was fitted for this embedder and collection yet: every question is checked", 1.0)
    score = model.score(values)
    explore, chance = exploring(model.sigmoid, score, error=error), model.sigmoid.chance(score)
    if explore > 0:
        return Verdict("retrieve", f"of such questions {explore:.0%} have to be checked to keep {error:.1%} of errors",
                       explore, chance)
    # A fit for a stricter promise holds for a laxer one, not the other way round.
    if model.least is None or score < model.least or error < model.error:
        return Verdict("retrieve", f"too few cases like it were right to promise {error:.1%} of errors", explore, chance)
    if draw <= audit:
        return Verdict("retrieve", "checked although memory would do, to go on measuring its errors", max(explore, audit), chance)
    return Verdict("memory", f"memory is right with a chance of {chance:.3f}", explore, chance)


@lru_cache(maxsize=8)
def shipped(kind: str, embedder: str) -> Model | None:
    """The model of `kind` (passages, passages_unread or questions) that comes with this program for an embedder, or None."""
    if not WEIGHTS.is_file():
        return None
    stored = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    found = stored["models"].get(kind) if stored["embedder"] == embedder else None
    return None if found is None else model_of(found)


def model_of(stored: Mapping[str, object]) -> Model:
    """Raises ConfigError: it is no model of ours."""
    try:
        sigmoid = Sigmoid(**cast("dict[str, float]", stored["sigmoid"]))  # type: ignore[arg-type]  # n and right are whole in JSON
        least = stored["least"]
        names, weights = cast("list[str]", stored["features"]), cast("list[float]", stored["weights"])
        if len(names) != len(weights) or not all(map(math.isfinite, [*weights, sigmoid.t, sigmoid.g, sigmoid.se])):
            raise ValueError("numbers do not fit")
        return Model(tuple(names), tuple(weights), float(cast(float, stored["bias"])), sigmoid,
                     None if least is None else float(cast(float, least)), float(cast(float, stored["error"])))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"What the trigger was fitted to cannot be read: {error}.",
                          hint="Run `thriftrag reservoir calibrate` again.") from error
