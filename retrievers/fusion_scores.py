"""Scores of different origins on one scale, for one query: a convex combination with theoretical minima.

Source: Bruch, Gai and Ingber 2023, "An Analysis of Fusion Functions for Hybrid Retrieval" (ACM TOIS 42:1), section 4: min-max
scaling in which the minimum is the least score that an origin can give, instead of the least one in its list, which changes
with the length of the list. Departure: cosines of all candidates and their sparse scores are looked up, so that only BM25, whose
engines do not look up, has scores that are not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NORMALISATION = "theoretical-minimum"
# The least that each origin can give: a cosine; a passage without a word or token of the query.
MINIMA: Mapping[str, float] = MappingProxyType({"dense": -1.0, "bm25": 0.0, "sparse": 0.0})


def comparable(scores: Mapping[str, Floats]) -> dict[str, Floats]:
    """Scores of one query's candidates, one array for each origin, parallel, NaN where a score is not known, to numbers from
    0 to 1: (score - minimum) / (greatest score - minimum), 0 where not known. All 0 where the greatest is the minimum or none
    is known."""
    return {origin: _scaled(some, MINIMA[origin]) for origin, some in scores.items()}


def _scaled(scores: Floats, least: float) -> Floats:
    above: Floats = np.maximum(np.nan_to_num(scores - least, nan=0.0), 0.0)
    most = float(above.max(initial=0.0))
    return above / most if most > 0 else above
