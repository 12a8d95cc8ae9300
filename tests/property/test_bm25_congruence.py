"""Laws of BM25: every engine gives the ranking and the scores of the formula, whatever the segments, masks and deletions.

Lucene has the same laws in tests/integration/test_lucene.py, on fewer and larger collections: each of its indexes takes a
moment to write.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexers import lexical
from indexers.lexical import LexicalIndex
from retrievers.bm25 import open_bm25
from tests.lexical_fakes import WordSegment, agree, segments_of, slow_bm25

# Few words, so that chunks share them; some common, most rare.
WORD = st.sampled_from(["the", "the", "the", "of", "of", "cat", "dog", "heron", "otter", "7", "保修期", "é"])
TEXT = st.lists(WORD, max_size=25).map(" ".join)
SEED = st.none() | st.integers(0, 99)
SEGMENTS = st.lists(st.lists(TEXT, max_size=12), max_size=4)


def randomly(seed: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    rng = np.random.default_rng(seed)
    return rng.random(size) < rng.random()


@settings(max_examples=150, deadline=None)
@given(texts=SEGMENTS, question=TEXT, k=st.integers(1, 30), deleted=SEED, filtered=SEED)
def test_engines_agree_with_the_formula(texts: list[list[str]], question: str, k: int, deleted: int | None,
                                        filtered: int | None) -> None:
    size = sum(map(len, texts))
    dead = [] if deleted is None else np.flatnonzero(randomly(deleted, size)).tolist()
    living = {row: text for row, text in enumerate(text for some in texts for text in some) if row not in dead}
    scores = slow_bm25(living, question)
    with tempfile.TemporaryDirectory() as folder:
        segments = segments_of(Path(folder), texts, dead=dead)
        allowed = None
        if filtered is not None:
            chosen = randomly(filtered, size)
            chosen[dead] = False
            allowed = [chosen[segment.rows] for segment in segments]
            scores = {row: score for row, score in scores.items() if chosen[row]}
        for engine in ("native", "rank-bm25"):
            index = open_bm25(segments, engine=engine)
            found = index.search(question, k=k, allowed=allowed)
            agree(found, scores, k=k)
            # The rest of the ranking never changes its beginning.
            assert index.search(question, k=100, allowed=allowed)[:k] == found


@settings(max_examples=60, deadline=None)
@given(texts=SEGMENTS, question=TEXT, seed=st.integers(0, 99))
def test_compaction_changes_no_score(texts: list[list[str]], question: str, seed: int) -> None:
    dead = np.flatnonzero(randomly(seed, sum(map(len, texts)))).tolist()
    with tempfile.TemporaryDirectory() as folder:
        segments = segments_of(Path(folder), texts, dead=dead)
        kept = [np.arange(segment.size) if segment.live is None else np.flatnonzero(segment.live) for segment in segments]
        merged = Path(folder) / "merged"
        merged.mkdir()
        lexical.merge(merged, [(segment.lexical, at) for segment, at in zip(segments, kept, strict=True)])
        rows = np.concatenate([np.zeros(0, np.int64), *(segment.rows[at] for segment, at in zip(segments, kept, strict=True))])
        compacted = [WordSegment(merged, rows, None, LexicalIndex(merged))]
        for engine in ("native", "rank-bm25"):
            before, after = open_bm25(segments, engine=engine), open_bm25(compacted, engine=engine)
            assert before.search(question, k=50) == after.search(question, k=50)
            assert before.idf(lexical.words(question)) == after.idf(lexical.words(question))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 40))
def test_skipping_words_loses_no_chunk(seed: int, k: int) -> None:
    """Larger collections with a natural spread of words, where most lists are never read; what is common in one segment is
    rare in another."""
    rng = np.random.default_rng(seed)
    texts = []
    for size in (250, 50, 100):
        names = rng.permutation(60) if rng.random() < 0.5 else np.arange(60)
        texts += [" ".join(f"w{names[n]}" for n in rng.zipf(1.3, size=rng.integers(1, 60)) % 60) for _ in range(size)]
    question = " ".join(f"w{n}" for n in rng.zipf(1.2, size=rng.integers(1, 12)) % 60)
    with tempfile.TemporaryDirectory() as folder:
        segments = segments_of(Path(folder), [texts[:250], texts[250:300], texts[300:]])
        chosen = randomly(seed + 1, len(texts))
        everything = slow_bm25(dict(enumerate(texts)), question)
        index = open_bm25(segments, engine="native")
        agree(index.search(question, k=k), everything, k=k)
        agree(index.search(question, k=k, allowed=[chosen[segment.rows] for segment in segments]),
              {row: score for row, score in everything.items() if chosen[row]}, k=k)
