"""Nearest chunks by cosine over the snapshot's FAISS segments; deleted chunks are excluded inside the search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexers.encoders import Vectors
from indexers.snapshot import Snapshot

Ranked = list[tuple[int, float]]


def search(snapshot: Snapshot, query: Vectors, *, k: int) -> Ranked:
    """Rows and cosines of the best `k` live chunks for a unit vector of shape (dimension,); ties by row."""
    found: Ranked = []
    for segment in snapshot.segments:
        scores, positions = segment.dense.search(query[None, :], k, without=segment.dead)
        kept = positions[0] >= 0
        found.extend(zip((segment.first_row + positions[0][kept]).tolist(), scores[0][kept].tolist(), strict=True))
    return top(found, k=k)


def top(scored: Ranked, *, k: int) -> Ranked:
    """The best `k`, equal scores by row: same input, same order."""
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:k]


def best(scores: NDArray[np.float64], rows: NDArray[np.int64], *, k: int) -> Ranked:
    """The best `k` of parallel arrays, without sorting all of them."""
    if len(scores) > 4 * k:
        keep = np.argpartition(-scores, k - 1)[:k]
        keep = np.flatnonzero(scores >= scores[keep].min())  # all ties of the last, so that the cut does not depend on layout
        scores, rows = scores[keep], rows[keep]
    return top(list(zip(rows.tolist(), scores.tolist(), strict=True)), k=k)
