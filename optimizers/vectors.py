"""Vectors of texts longer than a sentence, from those of their sentences: no model is run.

The pool holds the vector of every sentence and each chunk's cosine to the question, but no vectors of chunks. Where chunks are
compared with each other, the normalised mean of a chunk's sentence vectors stands for its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from optimizers.pool import Pool

_LEAST = 1e-9
_BLOCK = 512        # rows compared at once, so that a large pool takes no square of its size


def sums(pool: Pool, chosen: Sequence[int]) -> NDArray[np.float64]:
    """The sum of each of these candidates' sentence vectors, shape (len(chosen), dimension)."""
    if not chosen:
        return np.zeros((0, 0))
    return np.asarray([pool.candidates[i].sentence_vectors.sum(axis=0, dtype=np.float64) for i in chosen])


def means(pool: Pool, chosen: Sequence[int]) -> NDArray[np.float64]:
    """The normalised means of their sentence vectors, shape (len(chosen), dimension)."""
    rows = sums(pool, chosen)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _LEAST)
    return rows


def mean_likeness(rows: NDArray[np.float64]) -> float:
    """The mean cosine of two different ones of these unit vectors, negative cosines counted as 0; 0 for fewer than two."""
    n = len(rows)
    if n < 2:
        return 0.0
    total = sum(float(np.maximum(rows[start:start + _BLOCK] @ rows.T, 0.0).sum()) for start in range(0, n, _BLOCK))
    own = float(np.einsum("ij,ij->", rows, rows))
    return max(0.0, total - own) / (n * (n - 1))


def relevances(pool: Pool, chosen: Sequence[int]) -> NDArray[np.float64]:
    """Cosines of these candidates to the question, as retrieval gave them."""
    return np.asarray([pool.candidates[i].relevance for i in chosen], np.float64)
