"""BM25 over the words of a snapshot's chunks. Three engines give one ranking; `retrievers.bm25_statistics` has the formula.

    rank-bm25   the reference, in memory: for small collections
    native      the segments' own inverted indexes, read in place: for all others
    lucene      the Lucene index of each segment through pyserini (extra `lucene`): for who runs Lucene elsewhere, too

k1 and b are Lucene's own defaults: with lengths as kept here, they had the best nDCG@10 of twelve pairs, in the mean of
thirteen data sets (`thriftrag bench bm25`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rag.errors import ConfigError
from retrievers.bm25_native import NativeBm25
from retrievers.bm25_statistics import WordSegment
from retrievers.dense import Ranked
from retrievers.segments import Allowed

# Chunks, deleted ones included, up to which `auto` takes rank-bm25: opening it costs 50 to 100 microseconds a chunk.
SMALL = 500


class Bm25(Protocol):
    """Built once per snapshot; thread-safe."""

    @property
    def engine(self) -> str:
        """native, rank-bm25 or lucene."""

    def search(self, question: str, *, k: int, allowed: Allowed | None = None) -> Ranked:
        """Rows and scores of the best `k` chunks that hold a word of the question and that `allowed` (None: all that live)
        lets through, best first; ties by row. A word counts as often as it is asked."""

    def idf(self, terms: Sequence[str]) -> dict[str, float]:
        """How much each term tells apart the live chunks, from 0 up; terms that none holds are left out."""


def open_bm25(segments: Sequence[WordSegment], *, engine: str) -> Bm25:
    """`engine`: auto (rank-bm25 up to `SMALL` chunks, then native), native, rank-bm25 or lucene.

    Raises:
        ConfigError: an unknown engine, or lucene without the packages of its extra.
        SnapshotMismatch: lucene, where a segment has no Lucene index.
    """
    if engine == "auto":
        engine = "rank-bm25" if sum(segment.lexical.size for segment in segments) <= SMALL else "native"
    if engine == "native":
        return NativeBm25(segments)
    if engine == "rank-bm25":
        from retrievers.bm25_rank import RankBm25

        return RankBm25(segments)
    if engine == "lucene":
        from retrievers.lucene import LuceneBm25

        return LuceneBm25(segments)
    raise ConfigError(f"There is no BM25 engine {engine!r}.", field="lexical", hint="Use auto, native, rank-bm25 or lucene.")
