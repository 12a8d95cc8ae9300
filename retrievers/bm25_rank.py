"""BM25 through rank-bm25, all in memory: the reference that the other engines are tested against, and quick while small.

rank-bm25's own idf is floored at a share of the mean idf, which is negative in tiny collections, and its scores carry the
constant factor k1 + 1; here its idf is replaced by ours over that factor, and its lengths by those that a byte holds.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from indexers import lexical
from retrievers.bm25_statistics import K1, B, Statistics, WordSegment
from retrievers.dense import Ranked, best
from retrievers.segments import Allowed


class RankBm25:
    """Holds the words of every live chunk; thread-safe."""

    engine = "rank-bm25"

    def __init__(self, segments: Sequence[WordSegment]) -> None:
        from rank_bm25 import BM25Okapi

        self._sizes = [segment.lexical.size for segment in segments]
        self._statistics = Statistics(segments)
        bags = [bag if live else [] for segment in segments
                for bag, live in zip(segment.lexical.bags(), _living(segment), strict=True)]
        # Chunks without words can be no hits and must not weigh on the mean length; rank-bm25 divides by zero without any.
        self._at = np.asarray([at for at, bag in enumerate(bags) if bag], np.int64)
        self._rows = np.concatenate([np.zeros(0, np.int64), *(segment.rows for segment in segments)])[self._at]
        self._index = BM25Okapi([bags[at] for at in self._at], k1=K1, b=B) if len(self._at) else None
        if self._index is not None:
            lengths = np.asarray(self._index.doc_len, np.int32)
            self._index.doc_len = lexical.LENGTHS[lexical.length_bytes(lengths)]
            holding = Counter(itertools.chain.from_iterable(self._index.doc_freqs))
            self._index.idf = {word: self._statistics.idf(count) / (K1 + 1) for word, count in holding.items()}

    def search(self, question: str, *, k: int, allowed: Allowed | None = None) -> Ranked:
        words = lexical.words(question)
        if self._index is None or not words or k < 1:
            return []
        # Single precision, like the others: what differs by less is a tie.
        scores = np.asarray(self._index.get_scores(words), np.float64).astype(np.float32).astype(np.float64)
        wanted = scores > 0
        if allowed is not None:
            masks = [np.ones(size, bool) if mask is None else mask for mask, size in zip(allowed, self._sizes, strict=True)]
            wanted &= np.concatenate(masks)[self._at]
        return best(scores[wanted], self._rows[wanted], k=k)

    def idf(self, terms: Sequence[str]) -> dict[str, float]:
        return self._statistics.idf_of(terms)


def _living(segment: WordSegment) -> list[bool]:
    return [True] * segment.lexical.size if segment.live is None else segment.live.tolist()
