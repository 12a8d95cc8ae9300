"""The chance that a candidate is evidence, from what two looks say of it: logistic, with weights fitted once by
`python -m retrievers.training.second_look` and shipped in `second_look.json` beside this module."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TABLE = Path(__file__).with_name("second_look.json")
FORMAT = 1
# In the order of a feature row; each is 0 where it does not apply.
#   place       10 / (10 + rank) in the first look, ranks from 0
#   cosine      to the question
#   covered     the share of the question's terms, by idf, that its text, title or heading holds
#   linked      1 / (1 + 0.3 * rank of the passage that mentions its title)
#   one_word    1 if that title is a single word
#   rare        1 / (1 + rank) in the search for a passage's rare words, less by the rank of that passage as above
#   named       the same in the search for a name
FEATURES = ("place", "cosine", "covered", "linked", "one_word", "rare", "named")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chances:
    """`weights`: one for each of `FEATURES`, in their order."""

    weights: tuple[float, ...]
    bias: float

    def of(self, rows: Sequence[Sequence[float]]) -> Floats:
        """For each row of features a chance from 0 to 1."""
        scores = np.asarray(rows, np.float64).reshape(len(rows), len(FEATURES)) @ np.asarray(self.weights) + self.bias
        found: Floats = 1 / (1 + np.exp(-scores))
        return found


@lru_cache(maxsize=1)
def shipped() -> Chances:
    return read(TABLE)


def read(path: Path) -> Chances:
    """
    Raises:
        ValueError: another format, other features, or weights that are not finite: a fault of the installation.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored.get("format") != FORMAT or tuple(stored.get("weights", ())) != FEATURES:
        raise ValueError(f"{path} has format {stored.get('format')} and weights for {', '.join(stored.get('weights', ()))}; this "
                         f"code reads {FORMAT} and {', '.join(FEATURES)}")
    weights, bias = tuple(float(value) for value in stored["weights"].values()), float(stored["bias"])
    if not all(math.isfinite(value) for value in (*weights, bias)):
        raise ValueError(f"{path} has weights that are not finite: {weights}, {bias}")
    return Chances(weights, bias)
