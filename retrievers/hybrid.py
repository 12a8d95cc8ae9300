"""Question to candidates: each origin ranks on its own, then the ranks are fused. A single mode keeps its own scores."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from indexers.encoders import Encoder, Vectors
from indexers.snapshot import Snapshot
from rag.types import Mode, ScoredChunk
from retrievers import dense, fusion
from retrievers.bm25 import Bm25
from retrievers.dense import Ranked

# Each origin contributes this many times the candidates asked for, so that a chunk low in one list can still win in both.
DEPTH = 4


@dataclass(frozen=True)
class Searcher:
    """Searches one snapshot with the encoder that wrote it."""

    snapshot: Snapshot
    encoder: Encoder

    @cached_property
    def bm25(self) -> Bm25:
        return Bm25(self.snapshot)

    def search(self, question: str, *, mode: Mode, k: int, vector: Vectors | None = None) -> list[ScoredChunk]:
        """The best `k` chunks, best first. `origins` holds the BM25 score of those that BM25 found, and, wherever the
        question's vector is known, the cosine of all: `vector`, or made here if the mode needs it."""
        if vector is None and mode != "bm25":
            vector = self.encoder.encode([question])[0]
        depth = DEPTH * k if mode == "hybrid" else k
        rankings: dict[str, Ranked] = {}
        if mode != "bm25" and vector is not None:
            rankings["dense"] = dense.search(self.snapshot, vector, k=depth)
        if mode != "dense":
            rankings["bm25"] = self.bm25.search(question, k=depth)
        ranked = fusion.reciprocal_rank(rankings, k=k) if mode == "hybrid" else rankings[mode]
        rows = [row for row, _ in ranked]
        scores = {origin: dict(ranking) for origin, ranking in rankings.items()}
        if vector is not None:
            scores["dense"] = dict(zip(rows, (self.snapshot.vectors(rows) @ vector).tolist(), strict=True))
        return [ScoredChunk(chunk, score, {origin: by_row[row] for origin, by_row in scores.items() if row in by_row})
                for chunk, (row, score) in zip(self.snapshot.chunks(rows), ranked, strict=True)]
