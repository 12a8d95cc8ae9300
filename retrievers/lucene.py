"""BM25 through Lucene over the segments' Lucene indexes, which are searched as one, so that its statistics are global.

Masks are given to Lucene as the live documents of each segment: what they exclude is left out inside the search. Statistics
are Lucene's: deleted chunks count in them until a compaction, which the other engines do not need to wait for.
Scores are those of `retrievers.bm25_native`, to the last bit. All searches of a process take turns: see `indexers.lucene_jvm`.
"""

from __future__ import annotations

import bisect
import itertools
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from indexers import lexical, lucene
from indexers.lucene_jvm import bridge, java, keep, kept, later, let_go, on_java
from rag.errors import SnapshotCorrupt, SnapshotMismatch
from retrievers.bm25_statistics import K1, B, Statistics, WordSegment
from retrievers.dense import Ranked, top
from retrievers.segments import Allowed, Mask

_MAKE = "Run `thriftrag collections rebuild` with the setting lexical = lucene, or use another engine."
Hits = list[tuple[int, float]]


class LuceneBm25:
    """Thread-safe; keeps the index files open until it is let go of."""

    engine = "lucene"

    def __init__(self, segments: Sequence[WordSegment]) -> None:
        # Lucene breaks ties by document number, which is the order of rows if that of the segments is.
        self._order = sorted((i for i, segment in enumerate(segments) if segment.lexical.size),
                             key=lambda i: int(segments[i].rows[0]))
        self._segments = [segments[i] for i in self._order]
        self._first = [0, *itertools.accumulate(segment.lexical.size for segment in self._segments)]
        self._statistics = Statistics(segments)
        folders = [(segment.folder, segment.lexical.size) for segment in self._segments]
        self._ticket = on_java(partial(_open, folders, [segment.live for segment in self._segments]))
        weakref.finalize(self, later, partial(_close, self._ticket)).atexit = False  # then the process frees all it has

    def search(self, question: str, *, k: int, allowed: Allowed | None = None) -> Ranked:
        words = lexical.words(question)
        if not words or not self._segments or k < 1:
            return []
        masks = None if allowed is None else [allowed[i] for i in self._order]
        if masks is not None and all(mask is segment.live for mask, segment in zip(masks, self._segments, strict=True)):
            masks = None  # what is open already
        hits = on_java(partial(_search, self._ticket, " ".join(words), min(k, self._first[-1]), masks))
        return top([(self._row(number), score) for number, score in hits], k=k)

    def idf(self, terms: Sequence[str]) -> dict[str, float]:
        """Over live chunks, as the other engines count them."""
        return self._statistics.idf_of(terms)

    def _row(self, number: int) -> int:
        at = bisect.bisect_right(self._first, number) - 1
        return int(self._segments[at].rows[number - self._first[at]])


class _Opened:
    """The readers of all segments and a searcher over what lives of them. On the Java thread only, as all that follows."""

    def __init__(self) -> None:
        self.readers: list[Any] = []
        self.living: Any = None
        self.analyzer = lucene.analyzer()
        self.questions = java("io.anserini.search.query.BagOfWordsQueryGenerator")()
        self.similarity = java("org.apache.lucene.search.similarities.BM25Similarity")(K1, B)

    def searcher(self, masks: Sequence[Mask | None]) -> Any:
        pieces = [_masked(reader, mask) for reader, mask in zip(self.readers, masks, strict=True)]
        together = java("org.apache.lucene.index.MultiReader")(pieces, False)
        searcher = java("org.apache.lucene.search.IndexSearcher")(together, signature="(Lorg/apache/lucene/index/IndexReader;)V")
        searcher.setSimilarity(self.similarity)
        searcher.setQueryCache(None)
        return searcher

    def close(self) -> None:
        for reader in ([self.living.getIndexReader()] if self.living else []) + self.readers:
            reader.close()


def _open(folders: Sequence[tuple[Path, int]], masks: Sequence[Mask | None]) -> int:
    opened = _Opened()
    try:
        for folder, size in folders:
            if not (folder / lucene.FOLDER).is_dir():
                raise SnapshotMismatch(f"The segment {folder.name} has no Lucene index.", hint=_MAKE)
            opened.readers.append(lucene.opened(folder))
            found = opened.readers[-1].maxDoc()
            if found != size:
                raise SnapshotCorrupt(f"{folder / lucene.FOLDER} has {found} chunks instead of {size}.", hint=_MAKE)
        opened.living = opened.searcher(masks)
    except BaseException:
        opened.close()
        raise
    return keep(opened)


def _close(ticket: int) -> None:
    let_go(ticket).close()


def _search(ticket: int, words: str, k: int, masks: Sequence[Mask | None] | None) -> Hits:
    """Document numbers over all segments, with scores."""
    opened: _Opened = kept(ticket)
    # One clause a word, boosted by how often it is asked.
    query = opened.questions.buildQuery(lucene.FIELD, opened.analyzer, words)
    if masks is None:
        return _hits(opened.living, query, k)
    searcher = opened.searcher(masks)
    try:
        return _hits(searcher, query, k)
    finally:
        searcher.getIndexReader().close()  # the segments stay open: it only counted as one of their users


def _hits(searcher: Any, query: Any, k: int) -> Hits:
    return [(hit.doc, hit.score) for hit in searcher.search(query, k).scoreDocs]


def _masked(reader: Any, mask: Mask | None) -> Any:
    """The reader with only these documents alive. Frequencies stay those of all documents."""
    if mask is None:
        return reader
    bits = np.zeros(-(-len(mask) // 64) * 64, bool)
    bits[:len(mask)] = mask
    words = np.packbits(bits, bitorder="little").view("<i8").tolist()
    alive = java("org.apache.lucene.util.FixedBitSet")(words, len(mask))
    leaf = bridge().cast("org.apache.lucene.index.CodecReader", reader.leaves().get(0).reader())
    # Lucene keeps this to its own package, but a call from outside of Java may make it.
    return java("org.apache.lucene.index.FilterCodecReader").wrapLiveDocs(leaf, alive, int(mask.sum()))
