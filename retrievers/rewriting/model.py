"""The chance that a candidate of a rewritten search is evidence, and the chance that rewriting finds any: both logistic, with
weights fitted once by `python -m retrievers.training.rewriting` and shipped in `rewriting.json` beside this module."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrievers import second_look_model

TABLE = Path(__file__).with_name("rewriting.json")
FORMAT = 1
# Of a candidate: what a second look says of it (`retrievers.second_look_model`), and
#   moved       cosine to the question's vector as feedback moved it
#   fed         10 / (10 + rank) in the fused feedback searches, ranks from 0
FEEDBACK = ("place", "cosine", "covered", "moved", "fed")
BRIDGE = (*second_look_model.FEATURES, "moved", "fed")
# Of a question and its first look, before anything is rewritten:
#   covered_best    the greatest share of the question's terms, by idf, that one of the first four passages holds
#   covered_first   the same of the first passage
#   cosine_first    of the first passage; cosine_mean: of the first ten
#   second, fifth, tenth    the fused score of these places, as a share of the first one's
#   terms           natural logarithm of the number of the question's terms
#   names           how many names the question has
GATE = ("covered_best", "covered_first", "cosine_first", "cosine_mean", "second", "fifth", "tenth", "terms", "names")
TABLES: Mapping[str, tuple[str, ...]] = {"feedback": FEEDBACK, "bridge": BRIDGE, "gate": GATE}

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chances:
    """`weights`: one for each feature, in their order."""

    weights: tuple[float, ...]
    bias: float

    def of(self, rows: Sequence[Sequence[float]] | Floats) -> Floats:
        """For each row of features a chance from 0 to 1."""
        scores = np.asarray(rows, np.float64).reshape(-1, len(self.weights)) @ np.asarray(self.weights) + self.bias
        found: Floats = 1 / (1 + np.exp(-scores))
        return found


@dataclass(frozen=True, slots=True)
class Model:
    """`open_from`: the chance that rewriting helps from which on it is done, in the way `auto`."""

    feedback: Chances
    bridge: Chances
    gate: Chances
    open_from: float


@lru_cache(maxsize=1)
def shipped() -> Model:
    return read(TABLE)


def read(path: Path) -> Model:
    """
    Raises:
        ValueError: another format, other features, or numbers that are not finite: a fault of the installation.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored.get("format") != FORMAT:
        raise ValueError(f"{path} has format {stored.get('format')}; this code reads {FORMAT}")
    chances = {}
    for name, features in TABLES.items():
        table = stored.get(name, {})
        if tuple(table.get("weights", ())) != features:
            raise ValueError(f"{path} has under {name} weights for {', '.join(table.get('weights', ()))}; this code reads "
                             f"{', '.join(features)}")
        chances[name] = Chances(tuple(float(value) for value in table["weights"].values()), float(table["bias"]))
    found = Model(**chances, open_from=float(stored["open_from"]))
    numbers = [found.open_from, *(value for each in chances.values() for value in (*each.weights, each.bias))]
    if not all(math.isfinite(value) for value in numbers):
        raise ValueError(f"{path} has weights that are not finite: {numbers}")
    return found
