"""BM25 (Okapi, k1 1.5, b 0.75) over the snapshot's words, through rank-bm25.

Only chunks that share a word with the question are hits: rank-bm25 floors the idf of words that most chunks hold at a share
of the mean idf, which is negative in tiny collections, so the sign of a score says nothing about a match.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from indexers import lexical
from indexers.snapshot import Snapshot
from retrievers.dense import Ranked, best


class Bm25:
    """Built once per snapshot, in memory; thread-safe."""

    def __init__(self, snapshot: Snapshot) -> None:
        from rank_bm25 import BM25Okapi

        vocabulary, ids, offsets, self._rows = snapshot.words
        self._known = {word: i for i, word in enumerate(vocabulary)}
        corpus = [ids[start:end].tolist() for start, end in itertools.pairwise(offsets)]
        self._index = BM25Okapi(corpus) if ids.size else None
        chunk_of = np.repeat(np.arange(len(corpus)), np.diff(offsets))
        once = np.unique(chunk_of * max(1, len(vocabulary)) + ids)
        self._holding = np.bincount(once % max(1, len(vocabulary)), minlength=len(vocabulary))

    def search(self, question: str, *, k: int) -> Ranked:
        """Rows and BM25 scores of the best `k` chunks that hold a word of the question; ties by row."""
        terms = [self._known[word] for word in lexical.words(question) if word in self._known]
        if self._index is None or not terms:
            return []
        scores = np.asarray(self._index.get_scores(terms), np.float64)
        wanted = set(terms)
        matched = np.asarray([not wanted.isdisjoint(frequencies) for frequencies in self._index.doc_freqs])
        return best(scores[matched], self._rows[matched], k=k)

    def idf(self, terms: Sequence[str]) -> dict[str, float]:
        """How much each term tells apart the chunks of this collection, from 0 up; unseen terms are left out."""
        total = len(self._rows)
        found = {}
        for term in dict.fromkeys(terms):
            if term in self._known:
                holding = self._holding[self._known[term]]
                found[term] = math.log(1 + (total - holding + 0.5) / (holding + 0.5))
        return found
