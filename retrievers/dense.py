"""Nearest chunks by cosine over the segments of a snapshot; what may not be returned is left out inside each search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexers.encoders import Vectors
from retrievers.segments import Allowed, SegmentView, alive

Ranked = list[tuple[int, float]]


def search(segments: Sequence[SegmentView], query: Vectors, *, k: int, allowed: Allowed | None = None) -> Ranked:
    """Rows and cosines of the best `k` for a unit vector of shape (dimension,), best first, ties by row. `allowed`: the
    positions that may be returned, segment by segment; None for those that live.

    Raises:
        InputError: the query has another dimension than the segments, a value that is not finite, or `k` is below 1.
    """
    rows: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    scores: list[NDArray[np.floating]] = [np.zeros(0)]
    for segment, mask in zip(segments, alive(segments) if allowed is None else allowed, strict=True):
        found, positions = segment.dense.search(query[None, :], k, allowed=mask)
        kept = positions[0] >= 0
        rows.append(segment.rows[positions[0][kept]])
        scores.append(found[0][kept])
    return best(np.concatenate(scores).astype(np.float64), np.concatenate(rows), k=k)


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
