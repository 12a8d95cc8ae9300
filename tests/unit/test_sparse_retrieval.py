"""Sparse search in a collection: modes, origins, fusion and what happens where term weights cannot serve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from indexers.chunking import embedding_text
from indexers.encoders import Encoder
from indexers.snapshot import Snapshot
from rag.errors import ConfigError, SnapshotMismatch
from rag.settings import Settings, overridden
from rag.thriftrag import ThriftRAG
from rag.types import Chunk, Mode
from retrievers import fusion, sparse_rows
from retrievers.backend import Local
from retrievers.fusion_scores import comparable
from retrievers.fusion_weights import weights_of as shipped
from retrievers.hybrid import Searcher
from tests.fakes import ScriptedReader, WordEncoder
from tests.piece_fakes import PieceEncoder, asked, pieces, weights_of
from tests.sparse_fakes import impact
from tests.term_fakes import SCALE

ENCODER = PieceEncoder()
TEXTS = {f"{animal}-{food}-{place}": f"The {animal} eats {food} in the {place}. It is {animal}."
         for animal in ("cat", "dog", "heron", "otter") for food in ("fish", "bread", "watermelon")
         for place in ("garden", "river")}
QUERIES = ["otter in the river", "what animal eats watermelon", "heron heron bread", "dog fish cat"]


def opened(settings: Settings, encoder: Encoder = ENCODER, name: str = "kb") -> ThriftRAG:
    return ThriftRAG.open(name, settings=settings, encoder=encoder, reader=ScriptedReader())


def fill(kb: ThriftRAG, texts: dict[str, str]) -> None:
    kb.ingest(lines=[json.dumps({"id": name, "title": "", "text": text}) for name, text in texts.items()])


@pytest.fixture
def kb(settings: Settings) -> Iterator[ThriftRAG]:
    """Two segments, and some documents deleted."""
    with opened(settings) as kb:
        half = len(TEXTS) // 2
        fill(kb, dict(list(TEXTS.items())[:half]))
        fill(kb, dict(list(TEXTS.items())[half:]))
        kb.delete("cat-fish-river", "otter-bread-garden")
        yield kb


@pytest.fixture
def searcher(kb: ThriftRAG, settings: Settings) -> Iterator[Searcher]:
    with closing(Snapshot(kb.folder)) as snapshot:
        assert len(snapshot.segments) == 2
        yield Searcher(snapshot, ENCODER, settings=settings)


def slow_scores(query: str, chunks: list[Chunk]) -> dict[str, float]:
    """Sparse scores of the chunks that match, by document, by the formula."""
    wanted = [piece for piece in pieces(query) if asked(piece)]
    scores = {}
    for chunk in chunks:
        held = weights_of(embedding_text(chunk))
        scores[chunk.doc_id] = sum(asked(piece) * impact(held[piece], SCALE) * SCALE / 255 for piece in wanted if piece in held)
    return {name: score for name, score in scores.items() if score > 0}


@pytest.mark.parametrize("query", QUERIES)
def test_sparse_search_finds_the_best_living_chunks_and_exactly_k(kb: ThriftRAG, query: str) -> None:
    chunks = [chunk for name in TEXTS if name not in ("cat-fish-river", "otter-bread-garden") for chunk in kb.chunks_of([name])]
    scores = slow_scores(query, chunks)
    for k in (1, 5, 100):
        hits = kb.search(query, mode="sparse", k=k)
        assert len(hits) == min(k, len(scores))
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True)[:k], rel=1e-5)
        assert all(hit.score == pytest.approx(scores[hit.chunk.doc_id], rel=1e-5) for hit in hits)
        assert all(hit.origins == {"sparse": hit.score} for hit in hits)


def test_a_filter_acts_inside_sparse_search(kb: ThriftRAG) -> None:
    some = "dog-fish-river, otter-fish-river, otter-fish-garden, cat-fish-river"
    hits = kb.search("river", mode="sparse", k=4, where=f"id in ({some})")
    assert {hit.chunk.doc_id for hit in hits} == {"dog-fish-river", "otter-fish-river"}
    assert kb.search("river", mode="sparse", k=4, where="id = nowhere") == []


def test_an_added_word_is_found_by_sparse_search_alone(kb: ThriftRAG) -> None:
    assert {hit.chunk.doc_id.split("-")[0] for hit in kb.search("animal", mode="sparse")} == {"otter"}
    assert kb.search("animal", mode="bm25") == []


@pytest.mark.parametrize("query", QUERIES)
def test_hybrid_fuses_the_ranks_of_all_its_origins(searcher: Searcher, query: str) -> None:
    chosen = overridden(searcher._settings, {"origins": "dense,bm25,sparse", "fusion": "rrf"})
    found = searcher.find(query, mode="hybrid", k=2, settings=chosen)
    assert found.plan.origins == ("dense", "bm25", "sparse")
    modes: tuple[Mode, ...] = ("dense", "bm25", "sparse")
    slow: dict[int, float] = {}
    for mode in modes:
        for rank, row in enumerate(searcher.find(query, mode=mode, k=8).rows, 1):
            slow[row] = slow.get(row, 0.0) + 1 / (60 + rank)
    expected = sorted(slow.items(), key=lambda pair: (-pair[1], pair[0]))[:2]
    assert list(found.rows) == [row for row, _ in expected]
    assert [hit.score for hit in found.hits] == pytest.approx([score for _, score in expected])


@pytest.mark.parametrize("origins", ["dense,bm25", "bm25,sparse", "dense,sparse", "dense,bm25,sparse", "sparse"])
@pytest.mark.parametrize("query", QUERIES)
def test_a_weighted_sum_is_that_of_all_scores(searcher: Searcher, query: str, origins: str) -> None:
    chosen = overridden(searcher._settings, {"origins": origins, "fusion": "weighted"})
    found = searcher.find(query, mode="hybrid", k=5, settings=chosen)
    parts = []
    for origin, weight in shipped(origins.split(",")).items():
        every = searcher.find(query, mode=origin, k=100)  # type: ignore[arg-type]
        least = -1.0 if origin == "dense" else 0.0
        most = max(hit.score for hit in every.hits)
        parts.append({row: weight * (hit.score - least) / (most - least) for row, hit in zip(every.rows, every.hits, strict=True)})
    rows = {row for part in parts for row in part}
    slow = {row: sum(part.get(row, 0.0) for part in parts) for row in rows}
    scores = [hit.score for hit in found.hits]
    assert scores == pytest.approx(sorted(slow.values(), reverse=True)[:5], rel=1e-6)
    assert scores == pytest.approx([slow[row] for row in found.rows], rel=1e-6)


def test_origins_tell_which_search_found_a_hit(kb: ThriftRAG) -> None:
    found = kb.find("watermelon animal", mode="hybrid", k=30, changes={"origins": "sparse,bm25,dense"})
    by_words = {hit.chunk.doc_id for hit in kb.search("watermelon animal", mode="bm25", k=30)}
    by_terms = {hit.chunk.doc_id for hit in kb.search("watermelon animal", mode="sparse", k=30)}
    assert by_words < by_terms
    for hit in found.hits:
        assert ("bm25" in hit.origins) == (hit.chunk.doc_id in by_words)
        assert ("sparse" in hit.origins) == (hit.chunk.doc_id in by_terms)
        assert "dense" in hit.origins
    assert found.origins == ("dense", "bm25", "sparse")
    assert found.notes == ()


def test_scores_and_weights_of_given_rows_are_those_of_search(searcher: Searcher) -> None:
    query = ENCODER.query("otter watermelon river")
    segments = sparse_rows.weighed(searcher.snapshot.segments)
    found = dict(Local(searcher.snapshot, engine="native").sparse(query, k=100))
    rows = np.random.default_rng(3).permutation(searcher.snapshot.rows())
    scores = sparse_rows.scores(segments, query, rows)
    assert scores.tolist() == [found.get(int(row), 0.0) for row in rows]
    assert (sparse_rows.weights(segments, query, rows) @ query[1]).tolist() == pytest.approx(scores.tolist(), rel=1e-5)
    assert sparse_rows.scores(segments, query, np.asarray([10_000_000])).tolist() == [0.0]
    assert sparse_rows.scores(segments, query, np.zeros(0, np.int64)).tolist() == []


# --- where term weights cannot serve -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("query", "instead", "why"), [
    ("what is it", "dense", "only common ones"), ("???", "dense", "only common ones"),
    ("Выдра в реке", "bm25", "Cyrillic script"), ("水獭", "bm25", "Chinese characters"), ("القندس", "bm25", "Arabic script"),
    ("かわうそ", "bm25", "Japanese script")])
def test_a_query_without_terms_is_searched_otherwise_and_that_is_said(kb: ThriftRAG, query: str, instead: str, why: str) -> None:
    fill(kb, {"ru": "Выдра ест рыбу в реке.", "zh": "水獭在河里吃鱼。", "ar": "القندس يأكل السمك",
              "ja": "かわうそは川で魚を食べる。"})
    found = kb.find(query, mode="sparse", k=3)
    assert found.origins == (instead,)
    assert [hit.chunk.id for hit in found.hits] == [hit.chunk.id for hit in kb.search(query, mode=instead, k=3)]
    assert found.hits
    [note] = found.notes
    assert why in note
    assert f"({instead})" in note
    fused = kb.find(query, mode="hybrid", k=3, changes={"origins": "dense,bm25,sparse"})
    assert fused.origins == ("dense", "bm25")
    assert [hit.chunk.id for hit in fused.hits] == [hit.chunk.id for hit in kb.search(query, mode="hybrid", k=3)]
    [note] = fused.notes
    assert note.endswith("sparse search was left out.")


def test_hybrid_of_sparse_alone_falls_back_as_sparse_does(kb: ThriftRAG) -> None:
    found = kb.find("what is it", mode="hybrid", changes={"origins": "sparse"})
    assert (found.origins, len(found.notes)) == (("dense",), 1)


def test_a_query_in_two_scripts_is_searched_by_what_is_readable(kb: ThriftRAG) -> None:
    found = kb.find("otter Выдра", mode="sparse")
    assert found.origins == ("sparse",)
    assert {hit.chunk.doc_id.split("-")[0] for hit in found.hits} == {"otter"}
    assert found.notes == ("Term weights do not cover Cyrillic script: sparse search read only the rest of the query.",)
    assert kb.find("otter Выдра", changes={"origins": "dense,bm25,sparse"}).notes == ()
    mostly = kb.find("где живёт otter в реке", mode="sparse")
    assert (mostly.origins, len(mostly.notes)) == (("bm25",), 1)
    assert kb.find("где живёт otter в реке").origins == ("dense", "bm25")


@pytest.mark.parametrize("query", ["naïve otter", "otter Ｏtter ﬁsh", "otter’s 10 µm", "3ª otter"])
def test_latin_letters_of_all_kinds_are_no_other_script(kb: ThriftRAG, query: str) -> None:
    found = kb.find(query, mode="sparse")
    assert found.origins == ("sparse",)
    assert len(found.notes) == ("µ" in query)


def test_a_collection_without_term_weights(settings: Settings) -> None:
    with opened(settings, WordEncoder(), "plain") as plain:
        fill(plain, TEXTS)
        with pytest.raises(SnapshotMismatch, match=r"'plain' holds no term weights") as caught:
            plain.search("otter", mode="sparse")
        assert "There are none for its encoder words@1" in caught.value.hint
        every = plain.find("otter", changes={"origins": "dense,bm25,sparse"})
        assert (every.origins, every.notes) == (("dense", "bm25"), ())
        assert [hit.chunk.id for hit in every.hits] == [hit.chunk.id for hit in plain.search("otter")]
        with pytest.raises(SnapshotMismatch, match="holds no term weights"):
            plain.search("otter", changes={"origins": "sparse"})
    with opened(settings, ENCODER, "plain") as plain, pytest.raises(SnapshotMismatch) as caught:
        plain.search("otter", mode="sparse")
    assert "`thriftrag collections rebuild plain` adds them" in caught.value.hint


@pytest.mark.parametrize(("later", "said"), [
    (PieceEncoder(terms="tilde@other001"), "not of tilde@other001"), (WordEncoder(), "has none")])
def test_term_weights_of_another_model_are_never_searched(kb: ThriftRAG, settings: Settings, later: WordEncoder, said: str) -> None:
    with opened(settings, later) as other:
        for mode, changes in (("sparse", {}), ("hybrid", {"origins": "sparse"})):
            with pytest.raises(SnapshotMismatch, match=said) as caught:
                other.search("otter", mode=mode, changes=changes)
            assert "collections rebuild kb" in caught.value.hint
        without = other.find("otter", changes={"origins": "dense,sparse"})
        assert without.origins == ("dense",)
        assert len(without.notes) == 1
        assert said in without.notes[0]
        assert "collections rebuild kb" in without.notes[0]
        assert other.search("otter", mode="dense")
        assert other.search("otter")


def test_an_empty_collection_finds_nothing_by_terms(settings: Settings) -> None:
    with opened(settings) as kb:
        fill(kb, {"only": "An otter."})
        kb.delete("only")
        assert kb.search("otter", mode="sparse") == []
        assert kb.search("otter", changes={"origins": "dense,bm25,sparse", "fusion": "weighted"}) == []


# --- settings and trace ------------------------------------------------------------------------------------------------


def test_what_hybrid_fuses_may_differ_from_question_to_question(kb: ThriftRAG) -> None:
    def retrieve(**changes: object) -> dict[str, object]:
        answer = kb.ask("Which animal eats watermelon in the river?", changes=changes)
        return next(dict(step.facts) for step in answer.trace if step.stage == "retrieve")

    assert (retrieve()["origins"], retrieve()["fusion"]) == (["dense", "bm25", "sparse"], "weighted")
    facts = retrieve(origins="sparse,dense", fusion="rrf")
    assert (facts["mode"], facts["origins"], facts["fusion"]) == ("hybrid", ["dense", "sparse"], "rrf")
    facts = retrieve(mode="sparse")
    assert (facts["mode"], facts["origins"]) == ("sparse", ["sparse"])
    assert not {"fusion", "notes"} & set(facts)


def test_the_trace_tells_of_a_fallback(kb: ThriftRAG) -> None:
    answer = kb.ask("What is it?", changes={"mode": "sparse"})
    facts = next(step.facts for step in answer.trace if step.stage == "retrieve")
    assert facts["origins"] == ["dense"]
    [note] = facts["notes"]
    assert note.endswith("it was searched by meaning (dense) instead.")


@pytest.mark.parametrize(("changes", "message"), [
    ({"origins": "dense,bm26"}, "names 'bm26', which is not one of dense, bm25, sparse"), ({"origins": " , "}, "names none"),
    ({"origins": ""}, "names none"), ({"fusion": "sum"}, "'sum'"), ({"origins": 3}, "names '3'")])
def test_impossible_origins_and_fusions_are_refused(kb: ThriftRAG, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        kb.search("otter", changes=changes)
    assert caught.value.field == next(iter(changes))
    assert caught.value.hint.startswith("It is: ")


def test_candidates_of_a_fusion_are_the_union_of_its_lists() -> None:
    rows = fusion.union({"dense": [(5, 0.9), (2, 0.8)], "bm25": [(2, 7.0), (9, 1.0)], "sparse": []})
    assert rows.tolist() == [2, 5, 9]
    assert (fusion.depth(10), fusion.depth(100)) == (100, 400)


def test_scores_become_comparable_by_hand() -> None:
    found = comparable({"dense": np.asarray([0.5, -1.0, 0.2]), "bm25": np.asarray([np.nan, 4.0, 1.0]),
                        "sparse": np.asarray([0.0, 0.0, np.nan])})
    assert found["dense"].tolist() == pytest.approx([1.0, 0.0, 0.8])
    assert found["bm25"].tolist() == [0.0, 1.0, 0.25]
    assert found["sparse"].tolist() == [0.0, 0.0, 0.0]
    assert comparable({"bm25": np.zeros(0)})["bm25"].tolist() == []
    ranked = fusion.weighted({"dense": np.asarray([0.5, -1.0, 0.2]), "bm25": np.asarray([np.nan, 4.0, 1.0])},
                             rows=np.asarray([3, 7, 8]), weights={"dense": 0.5, "bm25": 0.5}, k=2)
    assert ranked == [(8, pytest.approx(0.525)), (3, pytest.approx(0.5))]


def test_sparse_search_beside_a_qdrant_mirror_is_that_of_the_segments(kb: ThriftRAG, settings: Settings) -> None:
    with opened(overridden(settings, {"backend": "qdrant"})) as mirrored:
        for query in QUERIES:
            for where in (None, "id in (dog-fish-river, otter-fish-river)"):
                local, there = (each.find(query, mode="sparse", k=5, where=where) for each in (kb, mirrored))
                assert [(hit.chunk.id, hit.score) for hit in there.hits] == [(hit.chunk.id, hit.score) for hit in local.hits]
        assert mirrored.find("otter", changes={"origins": "bm25,sparse"}).origins == ("bm25", "sparse")
