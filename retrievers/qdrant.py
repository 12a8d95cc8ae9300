"""Searches in the Qdrant mirror of a snapshot: filters and tenants become Qdrant's conditions, and k results come back.

Qdrant finds candidates; the store has the last word. A row that the snapshot does not know (the mirror may be newer) or whose
document does not pass the filter is never returned, and where such rows took places, the search is made again without them.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from indexers.encoders import Vectors
from indexers.impacts import Query
from indexers.qdrant import Mirror, mirror_of
from indexers.qdrant_fields import condition, filtered
from indexers.qdrant_points import Condition, between
from indexers.qdrant_terms import Terms
from indexers.snapshot import Snapshot
from rag.errors import InputError, SnapshotMismatch
from rag.filters import Filter, Range, matches
from rag.settings import Settings
from retrievers import sparse
from retrievers.dense import Ranked, top
from retrievers.sparse_rows import weighed

# More than k, so that what float16 and quantised arithmetic swapped near the end is put right by the stored vectors.
_MARGIN = 8
# Rows named in a condition. A range of strings that matches more is left to the check afterwards.
_NAMED = 20_000
# Equal scores are searched for up to this many times k; past that, which of them come is Qdrant's choice.
_TIES = 16


class QdrantBackend:
    """Fulfils `retrievers.backend.Backend` for one snapshot. Thread-safe."""

    def __init__(self, snapshot: Snapshot, mirror: Mirror) -> None:
        """The mirror holds the snapshot, or a newer state of its collection."""
        held = mirror.held()
        if held is None:
            raise SnapshotMismatch(f"The Qdrant mirror {mirror.points.name!r} holds nothing.", hint="Run the command again.")
        self._snapshot = snapshot
        self._points = mirror.points
        self._weights = mirror.weights
        self._known = frozenset(held.paths)
        self._rows = snapshot.rows()

    @classmethod
    def open(cls, snapshot: Snapshot, *, settings: Settings) -> QdrantBackend:
        """The mirror that the settings name, brought up to date where it is behind: whoever can open it does that.

        Raises:
            ConfigError, Locked, SnapshotMismatch, StorageError, UpstreamError: it cannot be used.
        """
        mirror = mirror_of(snapshot, settings=settings)
        held = mirror.held()
        if held is None or held.generation < int(snapshot.meta["generation"]):
            mirror.sync(snapshot)
        return cls(snapshot, mirror)

    def dense(self, vector: Vectors, *, k: int, where: Filter | None = None) -> Ranked:
        """Cosines come from the stored vectors.

        Raises:
            InputError: the vector has another dimension or a value that is not finite, or `k` is below 1.
            SnapshotMismatch, StorageError, UpstreamError: Qdrant cannot be asked; also from `lexical`.
        """
        if vector.shape != (self._snapshot.dimension,):
            raise InputError(f"A query of shape {vector.shape} does not fit vectors of dimension {self._snapshot.dimension}.",
                             field="query", hint="Encode it with the encoder of the collection.")
        if not np.isfinite(vector).all():
            raise InputError("A query vector holds a value that is not finite.", field="query",
                             hint="The encoder failed on it: try precision f32.")
        found = self._search(vector, k=k, where=where)
        rows = [row for row, _ in found]
        return top(list(zip(rows, (self._snapshot.vectors(rows) @ vector).tolist(), strict=True)), k=k)

    def lexical(self, question: str, *, k: int, where: Filter | None = None) -> Ranked:
        terms = self._weights.question(question)
        return top(self._search(terms, k=k, where=where), k=k) if len(terms.ids) else []

    def sparse(self, query: Query, *, k: int, where: Filter | None = None) -> Ranked:
        """In the snapshot's own index: the mirror holds no term weights."""
        return sparse.search_segments(weighed(self._snapshot.segments), query, k=k, allowed=self._snapshot.allowed(where))

    def _search(self, query: Vectors | Terms, *, k: int, where: Filter | None) -> Ranked:
        """At least the best `k` allowed rows, in no order, or all there are."""
        if k < 1:
            raise InputError(f"k = {k} asks for no results.", field="k", hint="Use 1 or more.")
        if not len(self._rows):
            return []
        asked = _Asked(self._snapshot)
        verdict = True if where is None else condition(where, known=self._known, rows=asked.rows)
        if verdict is False:
            return []
        limit = math.ceil((k + _MARGIN) / asked.share)
        strangers: list[int] = []
        while True:
            found = self._points.search(query, limit=limit, where=self._narrowed(verdict, strangers))
            known = self._live([row for row, _ in found])
            allowed = self._passing([pair for pair, lives in zip(found, known, strict=True) if lives], where)
            if len(found) < limit or (len(allowed) > k and (not _tied(allowed, k) or limit > _TIES * k)):
                return allowed
            strangers += [row for (row, _), lives in zip(found, known, strict=True) if not lives]
            limit *= 4

    def _live(self, rows: list[int]) -> NDArray[np.bool_]:
        wanted = np.asarray(rows, np.int64)
        at = np.minimum(np.searchsorted(self._rows, wanted), len(self._rows) - 1)
        return np.equal(self._rows[at], wanted)

    def _passing(self, found: Ranked, where: Filter | None) -> Ranked:
        if where is None:
            return found
        return [pair for pair, fields in zip(found, self._snapshot.fields([row for row, _ in found]), strict=True)
                if matches(where, fields)]

    def _narrowed(self, verdict: Condition | bool, strangers: Collection[int]) -> Condition | None:
        """The condition, and once rows were found that the snapshot does not know, without those and any newer ones."""
        chosen = None if isinstance(verdict, bool) else filtered(verdict)
        if not strangers:
            return chosen
        newer = between(0, int(self._rows[-1]))
        return {"must": [newer] if chosen is None else [newer, chosen], "must_not": [{"has_id": list(strangers)}]}


class _Asked:
    """Ranges of strings in one filter. `share`: how much of the rows that Qdrant passes will also pass the check, at the least."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.share = 1.0

    def rows(self, where: Range) -> list[int] | None:
        segments, masks = self._snapshot.segments, self._snapshot.allowed(where)
        found = np.concatenate([np.zeros(0, np.int64), *(segment.rows if mask is None else segment.rows[mask]
                                                        for segment, mask in zip(segments, masks, strict=True))])
        if len(found) <= _NAMED:
            return [int(row) for row in found]
        self.share = min(self.share, len(found) / self._snapshot.size)
        return None


def _tied(found: Ranked, k: int) -> bool:
    """Whether the next after the best `k` scores as much as the last of them, and all found do from there."""
    scores = sorted((score for _, score in found), reverse=True)
    return scores[k - 1] == scores[-1]
