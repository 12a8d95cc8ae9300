"""The chance that one sentence holds the answer, from what retrieval already knows: no model is run.

A logistic regression over six features of a sentence in its pool, fitted by `python -m optimizers.training.relevance`, which
writes `relevance.json` beside this module and prints how well the chances are calibrated on sets it was not fitted on.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimizers.pool import Candidate, Pool, Unit, units

WEIGHTS = Path(__file__).with_name("relevance.json")
FEATURES = ("sentence_cosine", "chunk_cosine", "chunk_coverage", "sentence_coverage", "log_rank", "behind_best")


def chances(pool: Pool) -> dict[Unit, float]:
    """Chance for every sentence of the pool, in (0, 1)."""
    if not pool.candidates:
        return {}
    weights, bias = _model()
    scores = features(pool) @ weights + bias
    return dict(zip(units(pool), (1 / (1 + np.exp(-scores))).tolist(), strict=True))


def features(pool: Pool) -> NDArray[np.float64]:
    """One row per sentence in the order of `units`, one column per name in FEATURES."""
    best = max(candidate.relevance for candidate in pool.candidates)
    rows = [_row(pool, candidate, rank, sentence, best) for rank, candidate in enumerate(pool.candidates)
            for sentence in range(len(candidate.chunk.sentences))]
    return np.asarray(rows, np.float64)


def _row(pool: Pool, candidate: Candidate, rank: int, sentence: int, best: float) -> tuple[float, ...]:
    everywhere = frozenset().union(*candidate.sentence_terms)
    return (candidate.sentence_relevance[sentence], candidate.relevance, _share(pool, everywhere),
            _share(pool, candidate.sentence_terms[sentence]), math.log1p(rank), best - candidate.relevance)


def _share(pool: Pool, terms: frozenset[str]) -> float:
    total = sum(pool.term_weights.values())
    return sum(pool.term_weights[term] for term in sorted(terms)) / total if total else 0.0


@lru_cache(maxsize=1)
def _model() -> tuple[NDArray[np.float64], float]:
    stored = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    if tuple(stored["features"]) != FEATURES:
        raise ValueError(f"{WEIGHTS} was fitted on {stored['features']}, and this code computes {FEATURES}")
    return np.asarray(stored["weights"], np.float64), float(stored["bias"])
