"""Question to candidates: each origin ranks on its own, then ranks or scores are fused. A single mode keeps its own scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from indexers.encoders import Encoder, Vectors
from indexers.snapshot import Snapshot
from rag.filters import Filter
from rag.settings import Settings, listed
from rag.types import Chunk, Mode, ScoredChunk, TermMatch
from retrievers import fusion, sparse_rows
from retrievers.backend import Backend, Local, open_backend
from retrievers.bm25 import Bm25
from retrievers.dense import Ranked
from retrievers.explain import explained
from retrievers.fusion_scores import Floats
from retrievers.fusion_weights import weights_of
from retrievers.origins import Plan, planned
from retrievers.origins import weights_of as term_weights_of


@dataclass(frozen=True, slots=True)
class Found:
    """What one search found, best first, the row of each, and what was searched for it."""

    hits: tuple[ScoredChunk, ...]
    rows: tuple[int, ...]
    plan: Plan


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
        """The hits of `find` with the searcher's own settings."""
        return list(self.find(question, mode=mode, k=k, vector=vector, where=where).hits)

    def find(self, question: str, *, mode: Mode, k: int, vector: Vectors | None = None, where: Filter | None = None,
             settings: Settings | None = None) -> Found:
        """The best `k` chunks that `where` allows, best first. `origins` of each holds the scores of BM25 and sparse search where
        those found it, and, wherever the question's vector is known, the cosine of all: `vector`, or made here if it is needed.
        `settings`: others than the searcher's own say what hybrid fuses, and how.

        Raises:
            SnapshotMismatch: see `retrievers.origins.planned`.
        """
        chosen = self._settings if settings is None else settings
        plan = planned(question, mode=mode, origins=listed(chosen.origins), snapshot=self.snapshot, encoder=self.encoder)
        if vector is None and "dense" in plan.origins:
            vector = self.encoder.encode([question])[0]
        weighted = mode == "hybrid" and chosen.fusion == "weighted"
        depth = k if mode != "hybrid" else fusion.depth(k) if weighted else fusion.DEPTH * k
        rankings = {origin: self._ranking(origin, question, plan, vector, k=depth, where=where) for origin in plan.origins}
        if weighted:
            ranked = self._weighted(rankings, plan, vector, k=k)
        else:
            ranked = fusion.reciprocal_rank(rankings, k=k) if mode == "hybrid" else rankings[plan.origins[0]]
        rows = tuple(row for row, _ in ranked)
        scores = {origin: dict(ranking) for origin, ranking in rankings.items()}
        if vector is not None:
            scores["dense"] = dict(zip(rows, (self.snapshot.vectors(rows) @ vector).tolist(), strict=True))
        hits = [ScoredChunk(chunk, score, {origin: by_row[row] for origin, by_row in scores.items() if row in by_row})
                for chunk, (row, score) in zip(self.snapshot.chunks(rows), ranked, strict=True)]
        return Found(tuple(hits), rows, plan)

    def explain(self, question: str, found: Found, *, chunks: Sequence[Chunk] | None = None) -> list[tuple[TermMatch, ...]] | None:
        """What each term of the question adds to the sparse score of the chunks found, or of these of them, in their order; None
        where terms were not searched."""
        if found.plan.terms is None:
            return None
        rows = {hit.chunk.id: row for hit, row in zip(found.hits, found.rows, strict=True)}
        wanted = [hit.chunk for hit in found.hits] if chunks is None else chunks
        return explained(question, found.plan.terms, rows=[rows[chunk.id] for chunk in wanted], chunks=wanted,
                         segments=self.snapshot.segments, encoder=term_weights_of(self.snapshot, self.encoder))

    def _ranking(self, origin: str, question: str, plan: Plan, vector: Vectors | None, *, k: int, where: Filter | None) -> Ranked:
        if origin == "dense" and vector is not None:
            return self.backend.dense(vector, k=k, where=where)
        if origin == "sparse" and plan.terms is not None:
            return self.backend.sparse(plan.terms, k=k, where=where)
        return self.backend.lexical(question, k=k, where=where)

    def _weighted(self, rankings: dict[str, Ranked], plan: Plan, vector: Vectors | None, *, k: int) -> Ranked:
        """Scores that a row lacks are looked up where that is cheap: cosines and sparse scores."""
        rows = fusion.union(rankings)
        scores: dict[str, Floats] = {}
        for origin, ranking in rankings.items():
            if origin == "dense" and vector is not None:
                scores[origin] = (self.snapshot.vectors(rows.tolist()) @ vector).astype(np.float64)
            elif origin == "sparse" and plan.terms is not None:
                scores[origin] = sparse_rows.scores(sparse_rows.weighed(self.snapshot.segments), plan.terms, rows)
            else:
                known = dict(ranking)
                scores[origin] = np.asarray([known.get(row, np.nan) for row in rows.tolist()], np.float64)
        return fusion.weighted(scores, rows=rows, weights=weights_of(plan.origins), k=k)
