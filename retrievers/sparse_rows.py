"""Term weights of given rows, in whatever segments they lie: what fusion completes its lists with and explanations read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexers.impacts import MOST, Query
from indexers.sparse import SparseIndex
from rag.errors import SnapshotMismatch
from retrievers import sparse
from retrievers.segments import Mask, SegmentView

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """A segment with term weights: fulfils `retrievers.sparse.SparseSegment`."""

    rows: Rows
    live: Mask | None
    sparse: SparseIndex


def weighed(segments: Sequence[SegmentView]) -> list[Weighed]:
    """The same segments, each with its term weights.

    Raises:
        SnapshotMismatch: one has none.
    """
    found = []
    for segment in segments:
        if segment.sparse is None:
            raise SnapshotMismatch(f"Segment {segment.folder.name!r} holds no term weights.",
                                   hint="Run `thriftrag collections rebuild`, or use another mode.", code="no_term_weights")
        found.append(Weighed(segment.rows, segment.live, segment.sparse))
    return found


def scores(segments: Sequence[Weighed], query: Query, rows: Rows) -> NDArray[np.float64]:
    """The sparse score of each row, in the order given, the same to the last bit as search gives; 0 where no token matches and
    for rows that are in no segment."""
    found = np.zeros(len(rows))
    for segment, inside, positions in _located(segments, rows):
        found[inside] = sparse.score(segment.sparse, query, positions)
    return found


def weights(segments: Sequence[Weighed], query: Query, rows: Rows) -> NDArray[np.float64]:
    """The weight of each token of the query, in its order, in each row, shape (rows, tokens); 0 where it does not occur."""
    found = np.zeros((len(rows), len(query[0])))
    for segment, inside, positions in _located(segments, rows):
        found[inside] = sparse.matched(segment.sparse, query, positions) * (segment.sparse.scale / MOST)
    return found


def _located(segments: Sequence[Weighed], rows: Rows) -> Iterator[tuple[Weighed, Mask, Rows]]:
    """For each segment that holds some of the rows: which of them, and their positions."""
    for segment in segments:
        at = np.minimum(np.searchsorted(segment.rows, rows), len(segment.rows) - 1)
        inside: Mask = segment.rows[at] == rows
        if inside.any():
            yield segment, inside, at[inside]
