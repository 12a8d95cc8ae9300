"""Dense, BM25 and fused retrieval against slow, obvious versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rank_bm25 import BM25Okapi

from indexers import lexical, store
from indexers.snapshot import Snapshot
from indexers.writer import writing
from retrievers import dense, fusion
from retrievers.bm25 import Bm25
from retrievers.hybrid import Searcher
from tests.fakes import WordEncoder
from tests.unit.test_store import indexed, publish

ENCODER = WordEncoder()
TEXTS = [f"The {animal} eats {food} in the {place}." for animal in ("cat", "dog", "heron", "otter")
         for food in ("fish", "bread") for place in ("garden", "river", "kitchen")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store.create(tmp_path / "kb", encoder=ENCODER.name, dimension=ENCODER.dimension, chunk_tokens=200)
    publish(tmp_path / "kb", indexed("a", TEXTS[:10]))
    publish(tmp_path / "kb", indexed("b", TEXTS[10:]), indexed("c", ["Quarterly results rose."]))
    return tmp_path / "kb"


def test_dense_search_over_segments_equals_brute_force(folder: Path) -> None:
    snapshot = Snapshot(folder)
    query = ENCODER.encode(["otter fish river"])[0]
    rows = list(range(snapshot.size))
    cosines = snapshot.vectors(rows) @ query
    expected = sorted(zip(rows, cosines.tolist(), strict=True), key=lambda pair: (-round(pair[1], 6), pair[0]))[:7]
    found = dense.search(snapshot, query, k=7)
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-6)
    assert len(dense.search(snapshot, query, k=500)) == snapshot.size


def test_a_deleted_chunk_never_appears_and_k_results_still_come(folder: Path) -> None:
    with writing(folder) as writer:
        writer.delete(["a"])
    searcher = Searcher(Snapshot(folder), ENCODER)
    for mode in ("dense", "bm25", "hybrid"):
        found = searcher.search("the heron eats fish", mode=mode, k=5)  # type: ignore[arg-type]
        assert len(found) == 5
        assert all(hit.chunk.doc_id != "a" for hit in found)


def test_bm25_scores_are_those_of_rank_bm25(folder: Path) -> None:
    snapshot = Snapshot(folder)
    chunks = [c for batch in snapshot.all_chunks() for c in batch]
    reference = BM25Okapi([lexical.words(store.lexical_text(c)) for c in chunks])
    expected = reference.get_scores(lexical.words("otter in the river"))
    found = Bm25(snapshot).search("otter in the river", k=100)
    assert dict(found) == pytest.approx({row: expected[row] for row, _ in found})
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_bm25_returns_only_chunks_that_share_a_word(folder: Path) -> None:
    index = Bm25(Snapshot(folder))
    assert [row for row, _ in index.search("quarterly", k=10)] == [len(TEXTS)]
    assert index.search("xylophone", k=10) == []
    assert index.search("?!", k=10) == []


def test_bm25_idf_counts_the_chunks_that_hold_a_word(folder: Path) -> None:
    idf = Bm25(Snapshot(folder)).idf(lexical.words("quarterly otter eats unseen"))
    total = len(TEXTS) + 1
    assert idf == pytest.approx({word: np.log(1 + (total - n + 0.5) / (n + 0.5))
                                 for word, n in (("quarter", 1), ("otter", 6), ("eat", 24))})


def test_reciprocal_rank_fusion_by_hand() -> None:
    fused = fusion.reciprocal_rank({"x": [(1, 9.0), (2, 8.0)], "y": [(2, 0.3), (3, 0.2)]}, k=10)
    assert [row for row, _ in fused] == [2, 1, 3]
    assert dict(fused) == pytest.approx({2: 1 / 62 + 1 / 61, 1: 1 / 61, 3: 1 / 62})
    assert fusion.reciprocal_rank({"x": [(5, 1.0)], "y": [(4, 1.0)]}, k=2) == [(4, 1 / 61), (5, 1 / 61)]


def test_hybrid_gives_each_hit_the_score_of_every_origin(folder: Path) -> None:
    searcher = Searcher(Snapshot(folder), ENCODER)
    hits = searcher.search("quarterly results", mode="hybrid", k=3)
    assert hits[0].chunk.text == "Quarterly results rose."
    assert set(hits[0].origins) == {"dense", "bm25"}
    assert all("dense" in hit.origins for hit in hits)


def test_an_empty_collection_finds_nothing(tmp_path: Path) -> None:
    store.create(tmp_path / "kb", encoder=ENCODER.name, dimension=ENCODER.dimension, chunk_tokens=200)
    searcher = Searcher(Snapshot(tmp_path / "kb"), ENCODER)
    assert searcher.search("anything", mode="hybrid", k=5) == []


@pytest.mark.parametrize(("text", "expected"), [
    ("The warranties last", ["the", "warranti", "last"]), ("保修期", ["保修", "修期"]), ("x", ["x"]), ("猫", ["猫"]),
    ("Ⅷ ﬁne", ["viii", "fine"]), ("", []), ("--- !", []),
])
def test_words(text: str, expected: list[str]) -> None:
    assert lexical.words(text) == expected
