"""The coefficients of the set function in `utility`, as fitted by `python -m optimizers.training.utility`."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

WEIGHTS = Path(__file__).with_name("utility.json")
PRICE_TOKENS = 100


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Names as in `utility`. None is negative, so that the gains of a sentence only shrink, but for shared headings."""

    trust: float = 1.0
    coverage: float = 0.1
    redundancy: float = 0.0
    price: float = 0.1          # for each PRICE_TOKENS tokens
    alike_from: float = 0.6


@lru_cache(maxsize=1)
def shipped() -> Coefficients:
    stored = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    return Coefficients(**{field.name: float(stored["coefficients"][field.name]) for field in fields(Coefficients)})
