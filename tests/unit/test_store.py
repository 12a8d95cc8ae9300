"""The store: publish, replace, delete, compact, and what a reader sees meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from indexers import store, writer
from indexers.chunking import embedding_text
from indexers.dense import FILE
from indexers.snapshot import Snapshot
from indexers.writer import writing
from rag.errors import CollectionMissing, DocumentMissing, Locked, SnapshotCorrupt, SnapshotMismatch
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
        opened.publish(items, finished=[(item.document.uri, item.document.content_hash) for item in items])


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
    assert snapshot.vectors([0, 1]) == pytest.approx(item.vectors)


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
    found, positions = before.segments[0].dense.search(ENCODER.encode(["Alpha."]), 1, without=before.segments[0].dead)
    assert positions[0][0] == 0
    assert found[0][0] == pytest.approx(1.0, abs=0.3)
    assert sorted(texts(folder)) == ["Beta.", "Gamma."]


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
    assert len(snapshot.segments[0].dead) == 0
    rows = [snapshot.segments[0].first_row + i for i in range(snapshot.size)]
    chunks = snapshot.chunks(rows)
    assert snapshot.vectors(rows) == pytest.approx(ENCODER.encode([embedding_text(c) for c in chunks]))
    assert snapshot.problems() == []


def test_segments_are_merged_before_they_grow_many(folder: Path) -> None:
    for i in range(writer.MAX_SEGMENTS + 3):
        publish(folder, indexed(f"d{i}", [f"Text {i}."]))
    snapshot = Snapshot(folder)
    assert len(snapshot.segments) <= writer.MAX_SEGMENTS
    assert snapshot.size == writer.MAX_SEGMENTS + 3


def test_a_failed_publish_changes_nothing_and_leaves_no_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(folder, indexed("a", ["Alpha."]))
    names = sorted(p.name for p in (folder / store.SEGMENTS).iterdir())
    monkeypatch.setattr(writer.lexical, "write", lambda *_: (_ for _ in ()).throw(RuntimeError("boom")))
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


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_index_file_is_refused_by_name_and_rebuilt_from_the_store(folder: Path, damage: str) -> None:
    from indexers.ingest import rebuild

    publish(folder, indexed("a", ["Alpha.", "Beta."]))
    path = next((folder / store.SEGMENTS).glob(f"*/{FILE}"))
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        content[-3] ^= 0x10
        path.write_bytes(content if damage == "flip" else content[:-8])
    with pytest.raises(SnapshotCorrupt, match=str(path)):
        Snapshot(folder)
    rebuild(folder, encoder=ENCODER)
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


def test_a_missing_collection_is_named(tmp_path: Path) -> None:
    with pytest.raises(CollectionMissing, match="nowhere"):
        Snapshot(tmp_path / "nowhere")
