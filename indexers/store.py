"""The truth about one collection: documents, chunks and segments in SQLite, index files beside it.

Index files are written aside, synced, renamed to their final name and only then named by the transaction that publishes
them, so a crash at any point leaves the previous state serving. A reader holds one SQLite read transaction and the index
files it opened: it sees one state until it lets go, whatever is published, deleted or compacted meanwhile.

    COLLECTION/store.sqlite          documents, chunks, fields, segments, tombstones, settings that built them
    COLLECTION/segments/NAME/        index files of some chunks, immutable: see `indexers.segments`
    COLLECTION/writer.lock           held by the one writer; writer.json says who it is

A chunk keeps its row for life: merging segments moves no row, so a merge writes index files and a few small records only.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from indexers import fields
from indexers.files import explained
from rag.durable import sync_folder
from rag.errors import CollectionMissing, SnapshotCorrupt, SnapshotMismatch
from rag.types import Document, FieldValue

FORMAT = 2
DATABASE = "store.sqlite"
SEGMENTS = "segments"

TABLES = """
CREATE TABLE files (uri TEXT PRIMARY KEY, content_hash TEXT NOT NULL, size INTEGER NOT NULL, modified_ns INTEGER NOT NULL,
    changed_ns INTEGER NOT NULL, read_ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX files_by_content ON files (content_hash);
CREATE TABLE documents (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, file TEXT NOT NULL, source TEXT NOT NULL, uri TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL, media_type TEXT NOT NULL, language TEXT NOT NULL, content_hash TEXT NOT NULL, text TEXT NOT NULL,
    metadata TEXT NOT NULL, tokens INTEGER NOT NULL, added TEXT NOT NULL);
CREATE INDEX documents_by_file ON documents (file);
CREATE INDEX documents_by_source ON documents (source);
CREATE TABLE segments (name TEXT PRIMARY KEY, size INTEGER NOT NULL, first_row INTEGER NOT NULL, last_row INTEGER NOT NULL,
    files TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE chunks (
    row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document INTEGER NOT NULL, ordinal INTEGER NOT NULL,
    text TEXT NOT NULL, start INTEGER NOT NULL, sentences TEXT NOT NULL, tokens INTEGER NOT NULL, heading TEXT NOT NULL,
    page INTEGER, content_hash TEXT NOT NULL);
CREATE INDEX chunks_by_document ON chunks (document, ordinal);
CREATE TABLE tombstones (row INTEGER PRIMARY KEY);
""" + fields.SCHEMA
_META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
SCHEMA = _META + TABLES


def connect(folder: Path, *, create: bool = False, any_format: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode; transactions are explicit. `any_format`: for the migration alone.

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
        if not create and not any_format:
            _check_format(db, folder)
    except sqlite3.DatabaseError as error:
        raise SnapshotCorrupt(f"{path} is not a readable store: {error}.", hint="Restore it from a backup, or delete the "
                              "collection and ingest again.") from error
    return db


def _check_format(db: sqlite3.Connection, folder: Path) -> None:
    found = format_of(db)
    if found == FORMAT:
        return
    hint = (f"Run `thriftrag collections rebuild {folder.name}`: it brings the collection to the new format."
            if 0 < found < FORMAT else "It was written by a newer version: update thriftrag.")
    raise SnapshotMismatch(f"{folder / DATABASE} has format {found}; this version reads format {FORMAT}.", hint=hint)


def format_of(db: sqlite3.Connection) -> int:
    """0 where the store does not say."""
    row = db.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    return int(row[0]) if row is not None and str(row[0]).isdigit() else 0


def create(folder: Path, *, encoder: str, dimension: int, chunk_tokens: int, terms: str = "") -> None:
    """An empty collection; does nothing where one exists. Built aside and renamed, so it is never half there. `terms`: name of
    the term weights that its chunks get, "" for none."""
    if (folder / DATABASE).is_file():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    with explained(folder):
        (aside / SEGMENTS).mkdir(parents=True)
        try:
            with closing(connect(aside, create=True)) as db:
                db.executescript(SCHEMA)
                facts = {"format": FORMAT, "collection": uuid.uuid4().hex[:8], "generation": 0, "next_row": 0,
                         "next_document": 0, "encoder": encoder, "dimension": dimension, "chunk_tokens": chunk_tokens,
                         "terms": terms, "created": now()}
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


def passage_text(title: str, heading: str, text: str) -> str:
    """What the encoder and BM25 read of a chunk: everything a person would see above and in it, a line each."""
    return "\n".join(part for part in (title, heading, text) if part)


def stored_metadata(text: str) -> dict[str, FieldValue]:
    """Metadata as it was before it was stored: lists are tuples again."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in json.loads(text).items()}


def fields_of(document: Document, *, added: str) -> dict[str, FieldValue]:
    """What filters can ask about a document: its own fields by name, the user's under `metadata.`."""
    own: dict[str, FieldValue] = {"id": document.id, "source": document.source, "title": document.title,
                                  "language": document.language, "media_type": document.media_type, "added": added}
    return own | {f"metadata.{key}": value for key, value in document.metadata.items()}


# The columns that `stored_fields` takes, in its order.
FIELD_COLUMNS = "id, source, title, language, media_type, added, metadata"


def stored_fields(id_: str, source: str, title: str, language: str, media_type: str, added: str, metadata: str
                  ) -> dict[str, FieldValue]:
    """The same of a document in the store."""
    own: dict[str, FieldValue] = {"id": id_, "source": source, "title": title, "language": language,
                                  "media_type": media_type, "added": added}
    return own | {f"metadata.{key}": value for key, value in stored_metadata(metadata).items()}
