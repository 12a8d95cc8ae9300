"""The chance that a question takes two steps, by its form alone: how long it is, how many names and relations it strings together,
and whether it asks about something that it only describes ("the director of the film that ..."). English: questions of other
languages hold few of the words that are counted, and are taken for simple ones.

A logistic regression, fitted by `python -m optimizers.training.steps`, which writes `steps.json` beside this module.
"""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from pathlib import Path

WEIGHTS = Path(__file__).with_name("steps.json")
FEATURES = ("words", "names", "relatives", "relations", "verbs")
_NAME = re.compile(r"\b[A-Z][\w.]*(?:\s+(?:of|the|and|de|von)?\s*[A-Z][\w.]*)*")
_RELATIVE = re.compile(r"\b(?:that|which|who|whom|whose|where|when)\b", re.IGNORECASE)
_RELATION = re.compile(r"\b(?:of|by|in|from|with|for|as|at|on)\b|['’]s\b", re.IGNORECASE)
# An auxiliary, and later a verb that describes.
_VERBS = re.compile(
    r"\b(?:was|is|are|were|did|does|do|has|had)\b.*\b(?:was|is|are|were|did|does|has|had|born|founded|directed|starred|made|named|"
    r"known|called|located|played|written|created)\b", re.IGNORECASE)


def features(question: str) -> tuple[float, ...]:
    """One value for each of FEATURES, of the order of 1. The first word, which is often a question word, is no name or relative."""
    words = question.split()
    inner = " ".join(words[1:])
    return (min(len(words), 30) / 10, min(len(_NAME.findall(inner)), 4) / 2, float(min(len(_RELATIVE.findall(inner)), 3)),
            min(len(_RELATION.findall(inner)), 5) / 2, float(bool(_VERBS.search(question))))


def chance(question: str) -> float:
    """In (0, 1)."""
    weights, bias = _model()
    return 1 / (1 + math.exp(-(bias + sum(weight * value for weight, value in zip(weights, features(question), strict=True)))))


@lru_cache(maxsize=1)
def _model() -> tuple[tuple[float, ...], float]:
    stored = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    if tuple(stored["features"]) != FEATURES:
        raise ValueError(f"{WEIGHTS} is over {stored['features']}, and this code computes {FEATURES}")
    return tuple(map(float, stored["weights"])), float(stored["bias"])
