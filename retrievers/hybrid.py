"""Question to candidates: each origin ranks on its own, then the ranks are fused. A single mode keeps its own scores."""

from __future__ import annotations

from functools import cached_property

from indexers.encoders import Encoder, Vectors
from indexers.snapshot import Snapshot
from rag.filters import Filter
from rag.settings import Settings
from rag.types import Mode, ScoredChunk
from retrievers import fusion
from retrievers.backend import Backend, Local, open_backend
from retrievers.bm25 import Bm25
from retrievers.dense import Ranked

# Each origin contributes this many times the candidates asked for, so that a chunk low in one list can still win in both.
DEPTH = 4


class Searcher:
    """Searches one snapshot with the encoder that wrote it."""

    def __init__(self, snapshot: Snapshot, encoder: Encoder, *, settings: Settings) -> None:
        self.snapshot = snapshot
        self.encoder = encoder
        self._settings = settings

    @cached_property
    def _local(self) -> Local:
        return Local(self.snapshot, engine=self._settings.lexical)

    @cached_property
    def backend(self) -> Backend:
        return open_backend(self.snapshot, self._local, settings=self._settings)

    @property
    def bm25(self) -> Bm25:
        """The snapshot's own word statistics, wherever searches run."""
        return self._local.bm25

    def search(self, question: str, *, mode: Mode, k: int, vector: Vectors | None = None,
               where: Filter | None = None) -> list[ScoredChunk]:
        """The best `k` chunks that `where` allows, best first. `origins` holds the BM25 score of those that BM25 found, and,
        wherever the question's vector is known, the cosine of all: `vector`, or made here if the mode needs it."""
        if vector is None and mode != "bm25":
            vector = self.encoder.encode([question])[0]
        depth = DEPTH * k if mode == "hybrid" else k
        rankings: dict[str, Ranked] = {}
        if mode != "bm25" and vector is not None:
            rankings["dense"] = self.backend.dense(vector, k=depth, where=where)
        if mode != "dense":
            rankings["bm25"] = self.backend.lexical(question, k=depth, where=where)
        ranked = fusion.reciprocal_rank(rankings, k=k) if mode == "hybrid" else rankings[mode]
        rows = [row for row, _ in ranked]
        scores = {origin: dict(ranking) for origin, ranking in rankings.items()}
        if vector is not None:
            scores["dense"] = dict(zip(rows, (self.snapshot.vectors(rows) @ vector).tolist(), strict=True))
        return [ScoredChunk(chunk, score, {origin: by_row[row] for origin, by_row in scores.items() if row in by_row})
                for chunk, (row, score) in zip(self.snapshot.chunks(rows), ranked, strict=True)]
