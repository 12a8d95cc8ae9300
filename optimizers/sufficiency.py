"""Whether what was chosen suffices to answer: the calibrated chance that one of its sentences holds the answer.

    1 - product over the chosen sentences of (1 - chance)

with the chances of `optimizers.relevance`. A user's threshold on it abstains before the reader is paid for. How well it tells
questions that the documents answer from those they do not: `thriftrag bench abstention`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from optimizers.pool import Pool, Unit
from rag.types import Extract


def sufficiency(pool: Pool, chances: Mapping[Unit, float], extracts: Sequence[Extract]) -> float:
    """In [0, 1); 0 of nothing. Sentences that are in no candidate of the pool count nothing."""
    place = {candidate.chunk.id: i for i, candidate in enumerate(pool.candidates)}
    chosen = (Unit(place[extract.chunk.id], sentence) for extract in extracts if extract.chunk.id in place
              for sentence in extract.sentences)
    return of_chances(chances.get(unit, 0.0) for unit in dict.fromkeys(chosen))


def of_chances(chances: Iterable[float]) -> float:
    return 1 - math.exp(sum(math.log1p(-min(chance, 1 - 1e-9)) for chance in chances))
