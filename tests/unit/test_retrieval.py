"""Dense, BM25 and fused retrieval against slow, obvious versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexers import lexical, store
from indexers.snapshot import Snapshot
from indexers.writer import writing
from rag.filters import Equals
from rag.settings import Settings
from retrievers import dense, fusion
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
    found = dense.search(snapshot.segments, query, k=7)
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-6)
    assert len(dense.search(snapshot.segments, query, k=500)) == snapshot.size


def test_a_deleted_chunk_never_appears_and_k_results_still_come(folder: Path, settings: Settings) -> None:
    with writing(folder) as writer:
        writer.delete(["a"])
    searcher = Searcher(Snapshot(folder), ENCODER, settings=settings)
    for mode in ("dense", "bm25", "hybrid"):
        found = searcher.search("the heron eats fish", mode=mode, k=5)  # type: ignore[arg-type]
        assert len(found) == 5
        assert all(hit.chunk.doc_id != "a" for hit in found)


def test_reciprocal_rank_fusion_by_hand() -> None:
    fused = fusion.reciprocal_rank({"x": [(1, 9.0), (2, 8.0)], "y": [(2, 0.3), (3, 0.2)]}, k=10)
    assert [row for row, _ in fused] == [2, 1, 3]
    assert dict(fused) == pytest.approx({2: 1 / 62 + 1 / 61, 1: 1 / 61, 3: 1 / 62})
    assert fusion.reciprocal_rank({"x": [(5, 1.0)], "y": [(4, 1.0)]}, k=2) == [(4, 1 / 61), (5, 1 / 61)]


def test_hybrid_gives_each_hit_the_score_of_every_origin(folder: Path, settings: Settings) -> None:
    searcher = Searcher(Snapshot(folder), ENCODER, settings=settings)
    hits = searcher.search("quarterly results", mode="hybrid", k=3)
    assert hits[0].chunk.text == "Quarterly results rose."
    assert set(hits[0].origins) == {"dense", "bm25"}
    assert all("dense" in hit.origins for hit in hits)


def test_every_mode_finds_only_what_a_filter_allows(folder: Path, settings: Settings) -> None:
    searcher = Searcher(Snapshot(folder), ENCODER, settings=settings)
    for mode in ("dense", "bm25", "hybrid"):
        found = searcher.search("the heron eats fish", mode=mode, k=8, where=Equals("source", "b.txt"))  # type: ignore[arg-type]
        assert len(found) == 8
        assert {hit.chunk.doc_id for hit in found} == {"b"}
        assert searcher.search("the heron", mode=mode, k=8, where=Equals("source", "z.txt")) == []  # type: ignore[arg-type]


def test_an_empty_collection_finds_nothing(tmp_path: Path, settings: Settings) -> None:
    store.create(tmp_path / "kb", encoder=ENCODER.name, dimension=ENCODER.dimension, chunk_tokens=200)
    searcher = Searcher(Snapshot(tmp_path / "kb"), ENCODER, settings=settings)
    assert searcher.search("anything", mode="hybrid", k=5) == []


@pytest.mark.parametrize(("text", "expected"), [
    ("The warranties last", ["the", "warranti", "last"]), ("保修期", ["保修", "修期"]), ("x", ["x"]), ("猫", ["猫"]),
    ("Ⅷ ﬁne", ["viii", "fine"]), ("", []), ("--- !", []),
])
def test_words(text: str, expected: list[str]) -> None:
    assert lexical.words(text) == expected
