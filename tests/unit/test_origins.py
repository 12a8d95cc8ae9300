"""Rankings from scores of all chunks: the same as those of the indexes, fused as searches fuse, and encoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval.datasets import load
from eval.origins.bags import Bags, bags, products
from eval.origins.chunked import chunked, digest_of
from eval.origins.encoded import terms, vectors
from eval.origins.grown import Grown
from eval.origins.judged import difference, judged, macro
from eval.origins.opened import opened
from eval.origins.remembered import Remembered
from eval.origins.scored import bm25
from eval.origins.ways import RERANKED, fused, ways
from indexers.chunking import embedding_text
from indexers.impacts import Impacts
from rag.errors import InputError
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import no_progress
from retrievers import fusion
from retrievers.fusion_scores import comparable
from retrievers.sparse import search
from tests import sparse_fakes
from tests.fakes import WordEncoder
from tests.origins_fakes import scored, world

VOCABULARY = 40


def made(rng: np.random.Generator, count: int) -> list[Impacts]:
    return sparse_fakes.made(rng, count, vocabulary=VOCABULARY)


# --- bags --------------------------------------------------------------------------------------------------------------


def test_products_are_sums_over_common_tokens() -> None:
    rng = np.random.default_rng(1)
    passages, queries = made(rng, 50), made(rng, 9)
    slow = [[sum(dict(zip(*map(np.ndarray.tolist, query), strict=True)).get(token, 0.0) * weight
                 for token, weight in zip(ids.tolist(), weights.tolist(), strict=True)) for ids, weights in passages]
            for query in queries]
    assert products(bags(queries), bags(passages)) == pytest.approx(np.asarray(slow), rel=1e-5)


def test_scores_in_eight_bits_are_those_of_the_index(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    passages = [(ids, weights + rng.random(len(ids)).astype(np.float32)) for ids, weights in made(rng, 200)]
    queries = [each for each in made(rng, 20) if len(each[0])]
    index = sparse_fakes.index_of(tmp_path / "index", passages, vocabulary=VOCABULARY)
    found = products(bags(queries), bags(passages).in_eight_bits(scale=sparse_fakes.SCALE))
    for row, query in zip(found, queries, strict=True):
        ranked = search(index, query, k=200)
        assert sorted(at for at, _ in ranked) == np.flatnonzero(row).tolist()
        assert row[[at for at, _ in ranked]] == pytest.approx([score for _, score in ranked], rel=1e-5)


def test_some_entries_of_bags_are_kept_text_by_text() -> None:
    every = bags([sparse_fakes.passage((1, 1.0), (4, 2.0)), sparse_fakes.passage(), sparse_fakes.passage((2, 3.0))])
    some = every.only(np.asarray([False, True, False]))
    assert (some.counts.tolist(), some.tokens.tolist(), some.weights.tolist()) == ([1, 0, 0], [4], [2.0])
    assert every.of(0)[0].tolist() == [1, 4]
    assert every.of(1)[0].tolist() == []
    assert every.texts.tolist() == [0, 0, 2]
    nothing = bags([])
    assert products(nothing, every).shape == (0, 3)


# --- chunks and encodings ----------------------------------------------------------------------------------------------


def test_chunks_are_those_that_a_collection_holds(settings: Settings, tmp_path: Path) -> None:
    _, _, folder = world(tmp_path, settings)
    dataset, encoder = load(folder), WordEncoder()
    found = chunked(dataset, encoder=encoder, chunk_tokens=settings.chunk_tokens, limit=7)
    with ThriftRAG.open("same", settings=settings, encoder=encoder) as kb:
        kb.ingest(lines=[passage.line() for passage in dataset.passages])
        held = kb.chunks_of([passage.id for passage in dataset.passages])
    assert sorted(zip(found.documents, found.texts, strict=True)) == sorted((one.doc_id, embedding_text(one)) for one in held)
    assert len(found.questions) == 7
    again = chunked(dataset, encoder=encoder, chunk_tokens=settings.chunk_tokens, limit=3)
    assert (again.digest, again.asked) == (found.digest, found.asked[:3])


def test_digests_tell_texts_and_their_borders_apart() -> None:
    assert len({digest_of(texts) for texts in (["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], [])}) == 5


def test_what_was_encoded_is_not_encoded_again(tmp_path: Path) -> None:
    kept, made = Remembered(tmp_path / "kept"), []

    def make() -> dict[str, np.ndarray]:
        made.append(1)
        return {"x": np.arange(3, dtype=np.float32)}

    for model, digest in (("a/b", "1"), ("a/b", "1"), ("a/b", "2"), ("c", "1")):
        assert kept.arrays(model, digest, make)["x"].tolist() == [0, 1, 2]
    assert len(made) == 3
    [file] = (tmp_path / "kept").glob("a-b-1*")
    file.write_bytes(file.read_bytes()[:20])
    assert kept.arrays("a/b", "1", make)["x"].tolist() == [0, 1, 2]
    assert len(made) == 4
    assert not list((tmp_path / "kept").glob("*.part"))
    Remembered(None).arrays("a/b", "1", make)
    assert len(made) == 5


def test_term_weights_bring_the_vectors_and_know_what_expansion_added(settings: Settings, tmp_path: Path) -> None:
    own, weights, folder = world(tmp_path, settings)
    origins = opened(own, scratch=tmp_path / "scratch", weights=weights, home=tmp_path / "home", on_progress=no_progress)
    assert origins.weighing is not None
    chunks = chunked(load(folder), encoder=origins.encoder, chunk_tokens=own.chunk_tokens, limit=None)
    found = terms(origins.weighing, origins.folder, chunks, kept=origins.kept, on_progress=no_progress)
    for at, text in enumerate(chunks.texts):
        held = origins.weighing.query(text)[0]      # every token of these texts has a weight in questions
        ids = found.passages.of(at)[0]
        start = int(found.passages.counts[:at].sum())
        assert np.isin(ids, held).tolist() == found.own[start:start + len(ids)].tolist()
    assert 0 < (~found.own).sum() < len(found.own)
    origins.encoder.encode = None  # type: ignore[assignment, method-assign]  # the pass before left them
    same = vectors(origins.encoder, chunks.texts, chunks.digest, kept=origins.kept, note="", on_progress=no_progress)
    assert np.array_equal(same, origins.plain().encode(chunks.texts))


def test_bm25_scores_every_chunk_as_the_engine_does(tmp_path: Path) -> None:
    texts = ["red fox", "red red hen", "blue hen", "nothing here"]
    found = bm25(texts, ["red hen", "hen", "zzz"], scratch=tmp_path)
    assert (found > 0).tolist() == [[True, True, True, False], [False, True, True, False], [False] * 4]
    assert np.argmax(found[0]) == 1


# --- ways --------------------------------------------------------------------------------------------------------------

WORLD = scored(dense=[[.9, .1, .5, .3], [.2, .8, .1, .4]], bm25=[[0, 3, 1, 0], [2, 0, 0, 0]], sparse=[[1, 0, 4, 0], [0, 0, 0, 0]],
               documents="aabc", gold=["b", "c"], texts=["which one", "какой"], without=[False, True])


def test_an_origin_finds_what_it_scores_and_dense_finds_all() -> None:
    found = ways(list(WORLD.by_origin))
    assert [found[name](WORLD, 0).tolist() for name in ("dense", "bm25", "sparse")] == [[0, 2, 3, 1], [1, 2], [2, 0]]


def test_a_question_without_terms_goes_where_searches_send_it() -> None:
    found = ways(list(WORLD.by_origin))
    assert found["sparse"](WORLD, 1).tolist() == [0]                                    # another script: by words
    stop = scored(dense=[[.1, .2]], bm25=[[1, 0]], sparse=[[0, 0]], documents="ab", gold=["a"], texts=["is it"], without=[True])
    assert found["sparse"](stop, 0).tolist() == [1, 0]                                  # stop words: by meaning
    assert found[RERANKED](stop, 0).tolist() == [0]
    assert found["rrf of bm25+dense+sparse"](stop, 0).tolist() == found["rrf of bm25+dense"](stop, 0).tolist()
    assert found["weighted dense+sparse"](stop, 0).tolist() == [1, 0]


def test_fusion_is_that_of_searches() -> None:
    lists = {"bm25": [(1, 3.0), (2, 1.0)], "dense": [(0, .9), (2, .5), (3, .3), (1, .1)]}
    assert fused(WORLD, 0, origins=["bm25", "dense"], weights=None).tolist() == [
        row for row, _ in fusion.reciprocal_rank(lists, k=9)]
    parts = comparable({"bm25": np.asarray([np.nan, 3, 1, np.nan]), "dense": np.asarray([.9, .1, .5, .3])})
    total = 0.25 * parts["bm25"] + 0.75 * parts["dense"]
    weights = {"bm25": 0.25, "dense": 0.75}
    assert fused(WORLD, 0, origins=["bm25", "dense"], weights=weights).tolist() == np.argsort(-total, kind="stable").tolist()


def test_reranking_orders_what_bm25_found_by_term_weights() -> None:
    assert ways(list(WORLD.by_origin))[RERANKED](WORLD, 0).tolist() == [2, 1]


def test_ways_need_their_origins() -> None:
    assert [*ways(["bm25", "dense"])] == ["bm25", "dense", "rrf of bm25+dense", "weighted bm25+dense"]
    assert "splade" in ways(["bm25", "dense", "splade"])


# --- judging -----------------------------------------------------------------------------------------------------------


def test_documents_are_ranked_by_their_best_chunk() -> None:
    found = judged(WORLD.chunks, lambda question: np.asarray([[0, 1, 2], [0, 1]][question]))
    assert found.values["nDCG@10"] == pytest.approx([0.6309297536, 0])                  # "b" is the second document
    assert found.values["recall@10"] == [1, 0]
    assert found.mean("recall@10") == 0.5
    assert found.only([1]).values["recall@10"] == [0]
    better = judged(WORLD.chunks, lambda question: np.asarray([2, 3]))
    assert macro([found, better], "recall@10", seed=1)[0] == 0.75  # type: ignore[index]
    gap = difference([better], [found], "nDCG@10", seed=1)
    assert gap is not None
    assert gap[0] == pytest.approx((1 - 0.6309297536 + 0.6309297536) / 2)


# --- larger collections ------------------------------------------------------------------------------------------------


def test_grown_passages_begin_with_the_real_ones_and_are_the_same_however_reached() -> None:
    real = [each for each in made(np.random.default_rng(5), 300) if len(each[0])]
    grown = Grown(bags(real), vocabulary=VOCABULARY, seed=3)
    some = list(grown.between(0, 9000))
    assert len(some) == 9000
    for (ids, weights), (others, same) in zip(some[:len(real)], real, strict=True):
        assert (ids.tolist(), weights.tolist()) == (others.tolist(), same.tolist())
    for (ids, weights), (others, same) in zip(grown.between(len(real) - 3, 8900), some[len(real) - 3:8900], strict=True):
        assert (ids.tolist(), weights.tolist()) == (others.tolist(), same.tolist())
    assert all((np.diff(ids) > 0).all() and len(ids) == len(weights) for ids, weights in some)
    pairs = {pair for ids, weights in real for pair in zip(ids.tolist(), weights.tolist(), strict=True)}
    assert all(pair in pairs for ids, weights in some[-50:] for pair in zip(ids.tolist(), weights.tolist(), strict=True))
    [(other, _)] = Grown(bags(real), vocabulary=VOCABULARY, seed=4).between(8000, 8001)
    assert other.tolist() != some[8000][0].tolist()
    assert list(grown.between(5, 5)) == []


def test_a_set_without_evidence_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text('{"id": "a", "title": "", "text": "b c"}\n', encoding="utf-8")
    (folder / "queries.jsonl").write_text('{"id": "q", "question": "b?", "answers": ["c"], "evidence": [], "type": ""}\n',
                                          encoding="utf-8")
    with pytest.raises(InputError, match="evidence"):
        chunked(load(folder), encoder=WordEncoder(), chunk_tokens=200, limit=None)


def test_bags_are_plain_arrays() -> None:
    every = Bags(np.asarray([1]), np.asarray([3], np.int32), np.asarray([9.0], np.float32))
    assert every.in_eight_bits(scale=4.0).weights.tolist() == [4.0]
