"""How much each origin counts in the weighted sum: numbers fitted once, by `python -m retrievers.training.fusion`, and shipped in
`fusion.json` beside this module, for each combination of origins."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from retrievers.fusion_scores import MINIMA, NORMALISATION

TABLE = Path(__file__).with_name("fusion.json")
FORMAT = 1
COMBINATIONS = ("bm25+dense", "bm25+sparse", "dense+sparse", "bm25+dense+sparse")


def combination(origins: Iterable[str]) -> str:
    """The name of a combination in the table: its origins in alphabetical order, joined by a plus sign."""
    return "+".join(sorted(origins))


def weights_of(origins: Iterable[str]) -> Mapping[str, float]:
    """The shipped weight of each of these origins; a single one has 1.

    Raises:
        ValueError: the table is not one of this version, or lacks the combination: a fault of the installation.
    """
    name = combination(origins)
    return _table()[name] if "+" in name else {name: 1.0}


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Mapping[str, float]]:
    return read(TABLE)


def read(path: Path) -> dict[str, dict[str, float]]:
    """Weights by combination.

    Raises:
        ValueError: another format or normalisation, a combination that is missing, or weights that cannot be: each is finite and
            not negative, and one is positive.
    """
    stored = json.loads(path.read_text(encoding="utf-8"))
    if (stored.get("format"), stored.get("normalisation")) != (FORMAT, NORMALISATION):
        raise ValueError(f"{path} has format {stored.get('format')} and normalisation {stored.get('normalisation')!r}; this code "
                         f"reads {FORMAT} and {NORMALISATION!r}")
    found = {name: {origin: float(weight) for origin, weight in entry["weights"].items()}
             for name, entry in stored["combinations"].items()}
    for name in COMBINATIONS:
        if name not in found:
            raise ValueError(f"{path} has no weights for {name}")
    for name, weights in found.items():
        if combination(weights) != name or not set(weights) <= set(MINIMA):
            raise ValueError(f"{path} has under {name} weights for {combination(weights)}")
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()) or not any(weights.values()):
            raise ValueError(f"{path} has under {name} the weights {weights}; they are finite, not negative, and one is positive")
    return found

