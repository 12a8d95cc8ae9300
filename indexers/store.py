"""The truth about one collection: documents, chunks and segments in SQLite, index files beside it.

Index files are written aside, synced, renamed to their final name and only then named by the transaction that publishes
them, so a crash at any point leaves the previous state serving. A reader holds one SQLite read transaction and the index
files it opened: it sees one state until it lets go, whatever is published, deleted or compacted meanwhile.

    COLLECTION/store.sqlite          documents, chunks, segments, tombstones, settings that built them
    COLLECTION/segments/NAME/        dense.faiss, lexical.npz: immutable
    COLLECTION/writer.lock           held by the one writer; writer.json says who it is
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from indexers.files import explained
from rag.durable import sync_folder
from rag.errors import CollectionMissing, SnapshotCorrupt, SnapshotMismatch
from rag.types import Chunk

FORMAT = 1
DATABASE = "store.sqlite"
SEGMENTS = "segments"

_SCHEMA = """
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


def connect(folder: Path, *, create: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode; transactions are explicit.

    Raises:
        CollectionMissing, SnapshotCorrupt, SnapshotMismatch: no store, a broken one, or one of another format.
    """
    path = folder / DATABASE
    if not create and not path.is_file():
        raise CollectionMissing(f"There is no collection in {folder}.", hint="Create it with `thriftrag ingest PATH`.")
    try:
        with explained(path):
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        if not create:
            _check_format(db, path)
    except sqlite3.DatabaseError as error:
        raise SnapshotCorrupt(f"{path} is not a readable store: {error}.", hint="Restore it from a backup, or delete the "
                              "collection and ingest again.") from error
    return db


def _check_format(db: sqlite3.Connection, path: Path) -> None:
    row = db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    if row is None or int(row[0]) != FORMAT:
        found = "none" if row is None else row[0]
        raise SnapshotMismatch(f"{path} has format {found}; this version reads format {FORMAT}.",
                               hint="Ingest the documents again into a new collection.")


def create(folder: Path, *, encoder: str, dimension: int, chunk_tokens: int) -> None:
    """An empty collection; does nothing where one exists. Built aside and renamed, so it is never half there."""
    if (folder / DATABASE).is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    with explained(folder):
        (aside / SEGMENTS).mkdir(parents=True)
        try:
            with closing(connect(aside, create=True)) as db:
                db.executescript(_SCHEMA)
                facts = {"format": FORMAT, "collection": uuid.uuid4().hex[:8], "generation": 0, "next_row": 0,
                         "encoder": encoder, "dimension": dimension, "chunk_tokens": chunk_tokens, "created": now()}
                db.executemany("INSERT INTO meta VALUES (?, ?)", [(key, str(value)) for key, value in facts.items()])
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            os.rename(aside, folder)
            sync_folder(folder.parent)
        except FileExistsError:  # another process made it first, on systems that refuse
            shutil.rmtree(aside)
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)
            if not (folder / DATABASE).is_file():
                raise


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def meta(db: sqlite3.Connection) -> dict[str, str]:
    return dict(db.execute("SELECT key, value FROM meta").fetchall())


def lexical_text(chunk: Chunk) -> str:
    """What BM25 indexes of a chunk: everything a person would see above and in it."""
    return "\n".join(filter(None, (chunk.title, chunk.heading, chunk.text)))
