"""Queries made of what the first look found: pseudo-relevance feedback over vectors, term weights and words. No model is asked, and
nothing is encoded.

    dense     unit(q + BETA * mean of the best passages' vectors)        Rocchio 1971, without the negative part
    sparse    the question's weights, and the best passages' impacts     RM3 (Abdul-Jaleel et al. 2004), over learned weights
    bm25      the question's words, and the passages' most telling       RM3, over words

Departures: an impact index cannot be read by passage, so candidate tokens come from the passages' text and their impacts are looked
up; BM25 takes a text, so the question's words count more by being repeated.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from indexers import lexical
from indexers.chunking import embedding_text
from indexers.encoders import Vectors
from indexers.impacts import Query
from rag.filters import Filter
from rag.types import Chunk
from retrievers import sparse_rows
from retrievers.dense import Ranked
from retrievers.hybrid import Found, Searcher
from retrievers.origins import weights_of

# Passages that are believed.
BELIEVED = 4
BETA = 1.0
# Words and tokens that are added, and the share of a sparse query's weight that they get.
WORDS = 10
TOKENS = 20
SHARE = 0.5
_REPEATED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Expanded:
    """The question as each origin is asked it now. `vector`: of length 1; `terms`: None where term weights were not searched;
    `words`: those that came to `text`, which BM25 is asked, the most telling first."""

    vector: Vectors
    terms: Query | None
    words: tuple[str, ...]
    text: str


def expanded(question: str, first: Found, *, searcher: Searcher, vector: Vectors) -> Expanded:
    """By the best `BELIEVED` of the first look, which holds one at least."""
    rows, chunks = first.rows[:BELIEVED], [hit.chunk for hit in first.hits[:BELIEVED]]
    moved = vector + BETA * np.asarray(searcher.snapshot.vectors(rows), np.float32).mean(0)
    words = _telling(question, chunks, searcher=searcher)
    return Expanded((moved / np.linalg.norm(moved)).astype(np.float32),
                    _terms(first.plan.terms, rows, chunks, searcher=searcher), words, " ".join([*[question] * _REPEATED, *words]))


def searched(query: Expanded, *, searcher: Searcher, k: int, where: Filter | None) -> dict[str, Ranked]:
    """The best `k` by each origin."""
    found = {"dense": searcher.backend.dense(query.vector, k=k, where=where),
             "bm25": searcher.backend.lexical(query.text, k=k, where=where)}
    if query.terms is not None:
        found["sparse"] = searcher.backend.sparse(query.terms, k=k, where=where)
    return found


def _telling(question: str, chunks: Sequence[Chunk], *, searcher: Searcher) -> tuple[str, ...]:
    """Words of the passages that the question lacks, by the mean share of a passage that they are, times idf; ties by spelling."""
    asked = set(lexical.words(question))
    shares: defaultdict[str, float] = defaultdict(float)
    for chunk in chunks:
        words = lexical.words(embedding_text(chunk))
        for word, count in Counter(words).items():
            shares[word] += count / len(words)
    idf = searcher.bm25.idf(sorted(shares.keys() - asked))
    return tuple(sorted(idf, key=lambda word: (-shares[word] * idf[word], word))[:WORDS])


def _terms(query: Query | None, rows: Sequence[int], chunks: Sequence[Chunk], *, searcher: Searcher) -> Query | None:
    """The question's weights and those of the passages' most telling tokens, each part divided by its sum."""
    if query is None:
        return None
    text = "\n".join(embedding_text(chunk) for chunk in chunks)
    tokens, asked = weights_of(searcher.snapshot, searcher.encoder).query(text, statistics=searcher.snapshot.statistics)
    impacts = sparse_rows.weights(sparse_rows.weighed(searcher.snapshot.segments), (tokens, np.ones(len(tokens), np.float32)),
                                  np.asarray(rows, np.int64))
    telling = (impacts / np.maximum(impacts.sum(1, keepdims=True), 1e-9)).mean(0) * asked
    best = np.lexsort((tokens, -telling))[:TOKENS]
    best = best[telling[best] > 0]
    merged: defaultdict[int, float] = defaultdict(float)
    for ids, weights, share in ((query[0], query[1], 1 - SHARE), (tokens[best], telling[best], SHARE)):
        total = float(weights.sum())
        for token, weight in zip(ids.tolist(), weights.tolist(), strict=True):
            merged[token] += share * weight / total
    ids = sorted(merged)
    return np.asarray(ids, np.int32), np.asarray([merged[token] for token in ids], np.float32)
