"""The store: publish, replace, delete, compact, and what a reader sees meanwhile."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from indexers import merging, segments, store, writer
from indexers.chunking import embedding_text
from indexers.snapshot import Snapshot
from indexers.writer import FileState, writing
from rag.errors import CollectionMissing, DocumentMissing, Locked, SnapshotCorrupt, SnapshotMismatch
from rag.filters import Equals, Exists, Filter, Not, Range
from rag.settings import Settings
from rag.types import Document
from tests.fakes import WordEncoder, make_chunk

ENCODER = WordEncoder()


def indexed(name: str, texts: Sequence[str], *, version: int = 1) -> writer.Indexed:
    text = "\n".join(texts)
    document = Document(id=name, source=f"{name}.txt", uri=f"/docs/{name}.txt", title=name, text=text,
                        content_hash=f"{name}-{version}", blocks=())
    chunks, at = [], 0
    for i, body in enumerate(texts):
        made = make_chunk(body, id=f"{name}:{i}:{version}", doc_id=name, title=name, start=at)
        chunks.append(dataclasses.replace(made, ordinal=i))
        at += len(body) + 1
    return writer.Indexed(document, document.uri, tuple(chunks), ENCODER.encode([embedding_text(c) for c in chunks]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store.create(tmp_path / "kb", encoder=ENCODER.name, dimension=ENCODER.dimension, chunk_tokens=200)
    return tmp_path / "kb"


def publish(folder: Path, *items: writer.Indexed) -> None:
    with writing(folder) as opened:
        opened.publish(items, finished=[FileState(item.document.uri, item.document.content_hash) for item in items])


def texts(folder: Path) -> list[str]:
    snapshot = Snapshot(folder)
    try:
        assert snapshot.problems() == []
        return [chunk.text for batch in snapshot.all_chunks() for chunk in batch]
    finally:
        snapshot.close()


def test_a_published_document_reads_back_as_it_was(folder: Path) -> None:
    item = indexed("a", ["One fish.", "Two fish."])
    publish(folder, item)
    snapshot = Snapshot(folder)
    stored = snapshot.chunks_of(["a"])
    assert [(c.id, c.text, c.span, c.sentences) for c in stored] == [(c.id, c.text, c.span, c.sentences) for c in item.chunks]
    assert snapshot.document("a.txt").text == item.document.text
    assert [(d.id, d.chunks) for d in snapshot.documents()] == [("a", 2)]
    assert snapshot.vectors([0, 1]) == pytest.approx(item.vectors, abs=1e-3)


def test_publishing_a_document_again_replaces_its_chunks(folder: Path) -> None:
    publish(folder, indexed("a", ["Old text.", "More old text."]), indexed("b", ["Kept."]))
    publish(folder, indexed("a", ["New text."], version=2))
    assert sorted(texts(folder)) == ["Kept.", "New text."]


def test_a_reader_keeps_its_state_while_others_publish_delete_and_compact(folder: Path) -> None:
    publish(folder, indexed("a", ["Alpha."]), indexed("b", ["Beta."]))
    before = Snapshot(folder)
    assert before.is_current()
    publish(folder, indexed("c", ["Gamma."]))
    with writing(folder) as opened:
        opened.delete(["a"])
        opened.compact()
    assert not before.is_current()
    assert sorted(c.text for batch in before.all_chunks() for c in batch) == ["Alpha.", "Beta."]
    found, positions = before.segments[0].dense.search(ENCODER.encode(["Alpha."]), 1)
    assert positions[0][0] == 0
    assert found[0][0] == pytest.approx(1.0, abs=0.3)
    assert sorted(texts(folder)) == ["Beta.", "Gamma."]


def test_a_look_at_what_is_published_holds_no_writer_up_and_keeps_no_state(folder: Path) -> None:
    publish(folder, indexed("a", ["Alpha."]))
    before = Snapshot(folder, indexes=False)
    for number in range(3):     # a connection that kept a transaction would see one state for ever
        assert before.is_current() == (number == 0)
        publish(folder, indexed(f"n{number}", ["Beta."]))
    before.close()
    with closing(sqlite3.connect(folder / store.DATABASE)) as db:
        assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)


def test_a_store_that_was_replaced_by_an_equal_one_is_another(folder: Path, tmp_path: Path) -> None:
    publish(folder, indexed("a", ["Alpha."]))
    before = Snapshot(folder)
    assert before.is_current()
    shutil.copy(folder / store.DATABASE, tmp_path / "copy")
    os.replace(tmp_path / "copy", folder / store.DATABASE)
    assert not before.is_current()
    (folder / store.DATABASE).unlink()
    assert not before.is_current()


def test_deleting_names_every_unknown_document_and_deletes_nothing(folder: Path) -> None:
    publish(folder, indexed("a", ["Alpha."]))
    with writing(folder) as opened, pytest.raises(DocumentMissing, match="'x'"):
        opened.delete(["a", "x"])
    assert texts(folder) == ["Alpha."]


def test_compaction_keeps_vectors_and_words_and_frees_space(folder: Path) -> None:
    for name in "abcdef":
        publish(folder, indexed(name, [f"Document {name} speaks.", "Filler text that is long enough to weigh."]))
    with writing(folder) as opened:
        opened.delete(["a", "c"])
        freed = opened.compact()
    snapshot = Snapshot(folder)
    assert freed > 0
    assert len(snapshot.segments) == 1
    assert snapshot.segments[0].live is None
    rows = snapshot.rows().tolist()
    chunks = snapshot.chunks(rows)
    assert snapshot.vectors(rows) == pytest.approx(ENCODER.encode([embedding_text(c) for c in chunks]), abs=1e-3)
    assert snapshot.problems() == []


def test_segments_are_merged_before_they_grow_many(folder: Path) -> None:
    for i in range(3 * merging.FACTOR):
        publish(folder, indexed(f"d{i}", [f"Text {i}."]))
    snapshot = Snapshot(folder)
    assert len(snapshot.segments) < merging.FACTOR
    assert snapshot.rows().tolist() == list(range(3 * merging.FACTOR))
    assert snapshot.problems() == []


def test_a_failed_publish_changes_nothing_and_leaves_no_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(folder, indexed("a", ["Alpha."]))
    names = sorted(p.name for p in (folder / store.SEGMENTS).iterdir())
    monkeypatch.setattr(segments.lexical, "write", lambda *_: (_ for _ in ()).throw(RuntimeError("boom")))
    with pytest.raises(RuntimeError, match="boom"):
        publish(folder, indexed("b", ["Beta."]))
    assert sorted(p.name for p in (folder / store.SEGMENTS).iterdir()) == names
    assert texts(folder) == ["Alpha."]


def test_the_second_writer_is_told_who_holds_the_lock(folder: Path) -> None:
    with writing(folder), pytest.raises(Locked, match=r"process \d+ on ") as caught, writing(folder):
        pass
    assert "Wait" in caught.value.hint
    with writing(folder):
        pass


@pytest.mark.parametrize("file", ["vectors.npy", "rows.npy", "documents.npy", "segment.json", "lexical.bin"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_index_file_is_refused_by_name_and_rebuilt_from_the_store(folder: Path, damage: str, file: str,
                                                                            settings: Settings) -> None:
    from indexers.ingest import rebuild

    publish(folder, indexed("a", ["Alpha.", "Beta."]))
    path = next((folder / store.SEGMENTS).glob(f"*/{file}"))
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[-3] ^= 0x10
        path.write_bytes(content if damage == "flip" else content[:-8])
    with pytest.raises(SnapshotCorrupt, match=str(path)):
        Snapshot(folder)
    rebuild(folder, encoder=ENCODER, settings=settings)
    assert texts(folder) == ["Alpha.", "Beta."]


def test_a_damaged_or_foreign_store_is_refused(folder: Path) -> None:
    db = store.connect(folder)
    db.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    db.close()
    with pytest.raises(SnapshotMismatch, match="format 99"):
        Snapshot(folder)
    (folder / store.DATABASE).write_bytes(b"not a database at all" * 100)
    for extra in ("-wal", "-shm"):
        (folder / (store.DATABASE + extra)).unlink(missing_ok=True)
    with pytest.raises(SnapshotCorrupt, match=r"store\.sqlite"):
        Snapshot(folder)


def test_a_segment_in_which_little_lives_is_rewritten(folder: Path) -> None:
    publish(folder, indexed("a", [f"Sentence {i}." for i in range(6)]), indexed("b", ["Beta.", "More beta."]))
    publish(folder, indexed("c", ["Gamma."]))
    with writing(folder) as opened:
        opened.delete(["a"])
    snapshot = Snapshot(folder)
    assert [segment.size for segment in snapshot.segments] == [2, 1]
    assert snapshot.rows().tolist() == [6, 7, 8]
    assert snapshot.problems() == []


def test_a_collection_of_which_nothing_is_left_can_be_searched_and_filled_again(folder: Path) -> None:
    publish(folder, indexed("a", ["Alpha."]))
    with writing(folder) as opened:
        opened.delete(["a"])
        opened.compact()
    assert texts(folder) == []
    publish(folder, indexed("a", ["Alpha again."]))
    assert texts(folder) == ["Alpha again."]


def test_filters_mark_the_positions_of_matching_documents(folder: Path) -> None:
    items = [dataclasses.replace(item, document=dataclasses.replace(item.document, metadata={"year": year, "tags": ("x", name)}))
             for name, year, item in (("a", 2019, indexed("a", ["Alpha.", "More alpha."])), ("b", 2021, indexed("b", ["Beta."])))]
    publish(folder, items[0])
    publish(folder, items[1], indexed("c", ["Gamma."]))

    def allowed(where: Filter) -> list[str]:
        snapshot = Snapshot(folder)
        masks = snapshot.allowed(where)
        rows = [row for segment, mask in zip(snapshot.segments, masks, strict=True)
                for row in (segment.rows if mask is None else segment.rows[mask]).tolist()]
        return [chunk.text for chunk in snapshot.chunks(rows)]

    assert allowed(Range("year", gte=2020)) == ["Beta."]
    assert allowed(Equals("tags", "a")) == ["Alpha.", "More alpha."]
    assert allowed(Not(Exists("year"))) == ["Gamma."]
    assert allowed(Equals("source", "b.txt")) == ["Beta."]
    publish(folder, indexed("a", ["Alpha without a year."], version=2))
    assert allowed(Exists("year")) == ["Beta."]
    assert allowed(Equals("id", "a")) == ["Alpha without a year."]
    with writing(folder) as opened:
        opened.delete(["b"])
    assert allowed(Exists("year")) == []
    assert Snapshot(folder).fields(Snapshot(folder).rows().tolist())[0]["source"] == "c.txt"


def test_a_new_snapshot_shares_what_is_unchanged_with_the_one_before(folder: Path) -> None:
    publish(folder, indexed("a", ["Alpha."]), indexed("b", ["Beta."]))
    first = Snapshot(folder)
    publish(folder, indexed("c", ["Gamma."]))
    with writing(folder) as opened:
        opened.delete(["b"])
    second = Snapshot(folder, reuse=first)
    assert second.segments[0].dense is first.segments[0].dense
    assert first.segments[0].live is None
    assert second.rows().tolist() == [0, 2]


def test_verify_names_disagreements_between_store_and_indexes(folder: Path) -> None:
    publish(folder, indexed("a", ["Alpha.", "More alpha."]), indexed("b", ["Beta."]))
    db = store.connect(folder)
    db.execute("DELETE FROM chunks WHERE row = 1")
    db.execute("UPDATE chunks SET text = 'Changed.' WHERE row = 0")
    db.execute("UPDATE chunks SET document = 0 WHERE row = 2")
    db.execute("DELETE FROM fields WHERE document = 1")
    db.close()
    found = "; ".join(Snapshot(folder).problems())
    for expected in ("1 index entries have no chunk", "chunks differ from the span", "name another document", "cannot be filtered"):
        assert expected in found


def test_a_missing_collection_is_named(tmp_path: Path) -> None:
    with pytest.raises(CollectionMissing, match="nowhere"):
        Snapshot(tmp_path / "nowhere")
