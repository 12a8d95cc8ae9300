"""A store of format 1, as the first release wrote it, comes to the newest format by `rebuild`, or stays as it is."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from indexers import store
from indexers.ingest import rebuild
from indexers.snapshot import Snapshot
from rag.errors import SnapshotMismatch
from rag.filters import Equals
from rag.settings import Settings
from tests.fakes import WordEncoder

ENCODER = WordEncoder()
FORMAT_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (uri TEXT PRIMARY KEY, content_hash TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id TEXT PRIMARY KEY, file TEXT NOT NULL, source TEXT NOT NULL, uri TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
    media_type TEXT NOT NULL, language TEXT NOT NULL, content_hash TEXT NOT NULL, text TEXT NOT NULL,
    metadata TEXT NOT NULL, tokens INTEGER NOT NULL, added TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX documents_by_file ON documents (file);
CREATE INDEX documents_by_source ON documents (source);
CREATE TABLE segments (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, first_row INTEGER NOT NULL,
    files TEXT NOT NULL);
CREATE TABLE chunks (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, doc_id TEXT NOT NULL, ordinal INTEGER NOT NULL,
    text TEXT NOT NULL, start INTEGER NOT NULL, sentences TEXT NOT NULL, tokens INTEGER NOT NULL, heading TEXT NOT NULL,
    page INTEGER, content_hash TEXT NOT NULL);
CREATE INDEX chunks_by_document ON chunks (doc_id, ordinal);
CREATE TABLE tombstones (row INTEGER PRIMARY KEY);
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two documents of two chunks, the second deleted and written again, as format 1 kept them."""
    folder = tmp_path / "kb"
    (folder / store.SEGMENTS / "0123456789ab").mkdir(parents=True)
    (folder / store.SEGMENTS / "0123456789ab" / "dense.faiss").write_bytes(b"of another format")
    with closing(sqlite3.connect(folder / store.DATABASE, isolation_level=None)) as db:
        db.executescript(FORMAT_1)
        facts = {"format": 1, "collection": "c0ffee00", "generation": 7, "next_row": 6, "encoder": ENCODER.name,
                 "dimension": ENCODER.dimension, "chunk_tokens": 200, "created": "2026-01-01T00:00:00Z"}
        db.executemany("INSERT INTO meta VALUES (?, ?)", [(key, str(value)) for key, value in facts.items()])
        for name, rows in (("a", (0, 1)), ("b", (4, 5))):
            bodies = [f"Document {name} speaks.", f"It ends with {name}."]
            db.execute("INSERT INTO files VALUES (?, ?)", (f"/docs/{name}.txt", name))
            db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                       (name, f"/docs/{name}.txt", f"{name}.txt", f"/docs/{name}.txt", name.upper(), "text/plain", "en", name,
                        "\n".join(bodies), json.dumps({"year": 2020 + len(rows)}), 12, "2026-01-02T00:00:00Z"))
            at = 0
            for ordinal, (row, body) in enumerate(zip(rows, bodies, strict=True)):
                db.execute("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                           (row, f"{name}:{ordinal}", name, ordinal, body, at, json.dumps([[0, len(body)]]), 6, "", None,
                            hashlib.sha256(body.encode()).hexdigest()))
                at += len(body) + 1
        db.executemany("INSERT INTO tombstones VALUES (?)", [(2,), (3,)])
        db.execute("INSERT INTO segments VALUES (1, '0123456789ab', 0, '{}')")
    return folder


def test_an_older_format_is_refused_with_the_command_that_migrates_it(folder: Path) -> None:
    with pytest.raises(SnapshotMismatch, match="format 1; this version reads format 2") as caught:
        Snapshot(folder)
    assert "collections rebuild kb" in caught.value.hint


def test_a_newer_format_is_refused(folder: Path) -> None:
    with closing(sqlite3.connect(folder / store.DATABASE)) as db, db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    with pytest.raises(SnapshotMismatch, match="format 99") as caught:
        Snapshot(folder)
    assert "update thriftrag" in caught.value.hint


def test_rebuilding_brings_everything_over(folder: Path, settings: Settings) -> None:
    rebuild(folder, encoder=ENCODER, settings=settings)
    snapshot = Snapshot(folder)
    assert snapshot.problems() == []
    assert [(c.id, c.text, c.title) for batch in snapshot.all_chunks() for c in batch] == [
        ("a:0", "Document a speaks.", "A"), ("a:1", "It ends with a.", "A"),
        ("b:0", "Document b speaks.", "B"), ("b:1", "It ends with b.", "B")]
    assert snapshot.document("b").text == "Document b speaks.\nIt ends with b."
    assert snapshot.id == "c0ffee00-8"
    masks = snapshot.allowed(Equals("year", 2022))
    assert [4 if mask is None else int(mask.sum()) for mask in masks] == [4]
    assert not (folder / store.SEGMENTS / "0123456789ab").exists()


def test_a_migration_that_fails_leaves_the_old_store_whole(folder: Path, settings: Settings) -> None:
    class Failing(WordEncoder):
        def encode(self, texts, *, on_batch=None):  # type: ignore[no-untyped-def]
            raise RuntimeError("the power went out")

    before = (folder / store.SEGMENTS / "0123456789ab" / "dense.faiss").read_bytes()
    with pytest.raises(RuntimeError, match="power"):
        rebuild(folder, encoder=Failing(), settings=settings)
    with closing(store.connect(folder, any_format=True)) as db:
        assert store.format_of(db) == 1
        assert db.execute("SELECT count(*) FROM chunks").fetchone() == (4,)
    assert before == b"of another format"
    rebuild(folder, encoder=ENCODER, settings=settings)
    assert Snapshot(folder).problems() == []
