"""Term weights on their way through the cache, the store's segments and their merges, and collections that have none."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexers.embedding_cache import CachedEncoder, EmbeddingCache
from indexers.encoders import term_weights
from indexers.impacts import NOTHING, Impacts, packed, quantised, unpacked
from indexers.snapshot import Snapshot
from rag.errors import SnapshotMismatch
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from tests.fakes import ScriptedReader, WordEncoder
from tests.term_fakes import SCALE, VOCABULARY, WeighingEncoder, terms_of


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02}.txt").write_text(f"Pump {i} moves water. The pump has valve {i}.", encoding="utf-8")
    return folder


def opened(settings: Settings, encoder: WordEncoder) -> ThriftRAG:
    return ThriftRAG.open("kb", settings=settings, encoder=encoder, reader=ScriptedReader())


def held(kb: ThriftRAG) -> dict[int, Impacts]:
    """The term weights of every live row, and that verification finds nothing wrong."""
    assert kb.verify() == []
    with closing(Snapshot(kb.folder)) as snapshot:
        found = {}
        for segment in snapshot.segments:
            assert segment.sparse is not None
            found |= {int(segment.rows[at]): segment.sparse.passage(int(at)) for at in segment.kept}
        return found


def expected(kb: ThriftRAG) -> dict[int, Impacts]:
    with closing(Snapshot(kb.folder)) as snapshot:
        rows = snapshot.rows().tolist()
        texts = ["\n".join(part for part in (c.title, c.heading, c.text) if part) for c in snapshot.chunks(rows)]
    return dict(zip(rows, map(terms_of, texts), strict=True))


def same(one: dict[int, Impacts], other: dict[int, Impacts]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[row][0], other[row][0])
        and np.array_equal(quantised(one[row][1], scale=SCALE)[0], quantised(other[row][1], scale=SCALE)[0]) for row in one)


def test_ingested_changed_deleted_merged_and_rebuilt_chunks_have_their_weights(settings: Settings, docs: Path) -> None:
    with opened(settings, WeighingEncoder()) as kb:
        kb.ingest(docs)
        assert kb.info().terms == "tilde@words001"
        assert same(held(kb), expected(kb))
        (docs / "03.txt").write_text("Something else about turbines entirely.", encoding="utf-8")
        kb.ingest(docs)
        kb.delete(kb.documents()[0].id)
        assert len(held(kb)) == 11
        assert same(held(kb), expected(kb))
        kb.compact()
        with closing(Snapshot(kb.folder)) as snapshot:
            assert len(snapshot.segments) == 1
        assert same(held(kb), expected(kb))
        kb.rebuild()
        assert same(held(kb), expected(kb))


def test_a_snapshot_knows_how_many_passages_hold_each_token(settings: Settings, docs: Path) -> None:
    with opened(settings, WeighingEncoder()) as kb:
        kb.ingest(docs)
        with closing(Snapshot(kb.folder)) as snapshot:
            found = snapshot.statistics
        assert found is not None
        slow = np.zeros(VOCABULARY, np.int64)
        for ids, _ in expected(kb).values():
            slow[ids] += 1
        assert (found.passages, found.holding.tolist()) == (12, slow.tolist())
    with ThriftRAG.open("plain", settings=settings, encoder=WordEncoder(), reader=ScriptedReader()) as kb:
        kb.ingest(docs)
        with closing(Snapshot(kb.folder)) as snapshot:
            assert snapshot.statistics is None


def test_passages_recalled_from_the_cache_have_the_same_weights(settings: Settings, docs: Path) -> None:
    first, second = WeighingEncoder(), WeighingEncoder()
    with opened(settings, first) as kb:
        kb.ingest(docs)
        before = held(kb)
        assert len(first.weighed) == 12
    with ThriftRAG.open("other", settings=settings, encoder=second, reader=ScriptedReader()) as kb:
        report = kb.ingest(docs)
        assert (report.encoded, report.recalled, second.weighed) == (0, 12, [])
        assert same(held(kb), before)


def test_vectors_alone_in_the_cache_are_not_taken_for_term_weights(tmp_path: Path) -> None:
    with closing(EmbeddingCache(tmp_path / "cache", limit_mb=10)) as cache:
        plain = CachedEncoder(WordEncoder(), cache)
        plain.encode(["the pump", "a valve"])
        inner = WeighingEncoder()
        both = CachedEncoder(inner, cache)
        assert term_weights.of(both) is both
        assert term_weights.of(plain) is None
        texts = ["the pump", "a valve", "the pump", ""]
        vectors, impacts = both.encode_with_terms(texts)
        assert inner.weighed == ["the pump", "a valve", ""]
        assert np.array_equal(vectors[0], vectors[2])
        assert [ids.tolist() for ids, _ in impacts] == [terms_of(text)[0].tolist() for text in texts]
        again, _ = CachedEncoder(WeighingEncoder(), cache).encode_with_terms(["", "a valve"])
        assert np.array_equal(again, vectors[[3, 1]])
        # Other weights for the same encoder share vectors with nobody and weights with nobody.
        other = WeighingEncoder(terms="tilde@words002")
        CachedEncoder(other, cache).encode_with_terms(["the pump"])
        assert other.weighed == ["the pump"]


def test_packed_weights_come_back_in_eight_bits_and_nothing_else_does() -> None:
    rng = np.random.default_rng(5)
    for vocabulary in (VOCABULARY, 200_000):
        ids = np.sort(rng.choice(vocabulary, 40, replace=False)).astype(np.int32)
        weights = rng.uniform(0.001, SCALE, 40).astype(np.float32)
        data = packed((ids, weights), vocabulary=vocabulary, scale=SCALE)
        found = unpacked(data, vocabulary=vocabulary, scale=SCALE)
        assert found is not None
        assert np.array_equal(found[0], ids)
        assert packed(found, vocabulary=vocabulary, scale=SCALE) == data
        assert unpacked(data[:-1], vocabulary=vocabulary, scale=SCALE) is None
        assert unpacked(data[:-1] + b"\0", vocabulary=vocabulary, scale=SCALE) is None
        assert unpacked(data, vocabulary=int(ids[-1]), scale=SCALE) is None
        empty = unpacked(packed(NOTHING, vocabulary=vocabulary, scale=SCALE), vocabulary=vocabulary, scale=SCALE)
        assert empty is not None
        assert not len(empty[0])


def test_a_collection_without_term_weights_stays_so_until_it_is_rebuilt(settings: Settings, docs: Path) -> None:
    with opened(settings, WordEncoder()) as kb:
        kb.ingest(docs)
        assert kb.info().terms == ""
    (docs / "new.txt").write_text("A new pump.", encoding="utf-8")
    encoder = WeighingEncoder()
    with opened(settings, encoder) as kb:
        kb.ingest(docs)
        assert (kb.info().terms, encoder.weighed, kb.verify()) == ("", [], [])
        kb.rebuild()
        assert kb.info().terms == "tilde@words001"
        assert same(held(kb), expected(kb))


def test_off_makes_collections_without_term_weights(settings: Settings, docs: Path) -> None:
    encoder = WeighingEncoder()
    with opened(replace(settings, sparse="off"), encoder) as kb:
        kb.ingest(docs)
        assert (kb.info().terms, encoder.weighed) == ("", [])


@pytest.mark.parametrize(("later", "said"), [(WordEncoder(), "none"), (WeighingEncoder(terms="tilde@words002"), "tilde@words002")])
def test_weights_of_different_models_are_never_mixed(settings: Settings, docs: Path, later: WordEncoder, said: str) -> None:
    with opened(settings, WeighingEncoder()) as kb:
        kb.ingest(docs)
    (docs / "new.txt").write_text("A new pump.", encoding="utf-8")
    with opened(settings, later) as kb:
        with pytest.raises(SnapshotMismatch, match=rf"tilde@words001.*{said}") as caught:
            kb.ingest(docs)
        assert "collections rebuild kb" in caught.value.hint
        assert [hit.chunk.text for hit in kb.search("pump 7", mode="bm25", k=1)] == ["Pump 7 moves water. The pump has valve 7."]
        kb.rebuild()
        kb.ingest(docs)
        assert kb.info().documents == 13


def test_a_lost_or_damaged_weight_file_is_named(settings: Settings, docs: Path) -> None:
    with opened(settings, WeighingEncoder()) as kb:
        kb.ingest(docs)
        path = next(kb.folder.glob("segments/*/sparse.bin"))
        whole = path.read_bytes()
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        [problem] = kb.verify()
        assert str(path) in problem
        path.unlink()
        [problem] = kb.verify()
        assert str(path) in problem
        kb.rebuild()
        assert same(held(kb), expected(kb))
