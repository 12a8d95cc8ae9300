"""The one writer of a collection: publishes, deletes, compacts and rebuilds, each as one durable transaction."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexers import dense, lexical
from indexers.encoders import Vectors
from indexers.files import explained
from indexers.store import SEGMENTS, connect, lexical_text, meta, now
from rag.durable import sha256_of, sync_folder, sync_tree, tree_bytes
from rag.errors import DocumentMissing, Locked
from rag.types import Chunk, Document

# More live segments than this are merged into one when the next is published: every search visits each of them.
MAX_SEGMENTS = 16


@dataclass(frozen=True, slots=True)
class Indexed:
    """A document, its chunks and their vectors, shape (len(chunks), dimension)."""

    document: Document
    file: str
    chunks: tuple[Chunk, ...]
    vectors: Vectors


@contextmanager
def writing(folder: Path) -> Iterator[Writer]:
    """The one writer of the collection.

    Raises:
        Locked: another process writes; the message names it.
    """
    import filelock

    lock = filelock.FileLock(str(folder / "writer.lock"), timeout=0)
    holder = folder / "writer.json"
    with explained(folder):
        try:
            lock.acquire()
        except filelock.Timeout as error:  # before OSError, which it is
            raise Locked(f"Collection {folder.name!r} is being written by {_describe(holder)}.",
                         hint="Wait for it to finish, or stop it: what it published stays.") from error
    try:
        with explained(holder):
            holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now()}), encoding="utf-8")
        with closing(connect(folder)) as db:
            yield Writer(folder, db)
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _describe(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {facts['pid']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"


class Writer:
    """Publishes and deletes; each call is one transaction, durable when it returns. Use through `writing`."""

    def __init__(self, folder: Path, db: sqlite3.Connection) -> None:
        self._folder = folder
        self._db = db
        self._sweep()

    def file_hash(self, uri: str) -> str | None:
        """Hash of the file as of its last complete ingestion, None if there was none."""
        row = self._db.execute("SELECT content_hash FROM files WHERE uri = ?", (uri,)).fetchone()
        return None if row is None else str(row[0])

    def documents_of(self, file: str) -> dict[str, str]:
        """Content hash by uri of the documents that came from `file`."""
        return dict(self._db.execute("SELECT uri, content_hash FROM documents WHERE file = ?", (file,)).fetchall())

    def owner(self, document_id: str) -> str | None:
        """The uri of the document with this id, None if there is none."""
        row = self._db.execute("SELECT uri FROM documents WHERE id = ?", (document_id,)).fetchone()
        return None if row is None else str(row[0])

    def publish(self, batch: Sequence[Indexed], *, finished: Sequence[tuple[str, str]] = (),
                gone: Sequence[str] = ()) -> None:
        """Adds or replaces the documents of `batch`, forgets those with a uri in `gone`, and records `finished` files
        as (uri, hash): all or nothing."""
        chunks = [chunk for item in batch for chunk in item.chunks]
        first = int(meta(self._db)["next_row"])
        segment = self._write_segment(chunks, np.concatenate([item.vectors for item in batch])) if chunks else None
        with explained(self._folder), _transaction(self._db):
            self._forget([item.document.id for item in batch] + self._ids_of(gone))
            self._db.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                 [_document_row(item) for item in batch])
            self._db.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                 [_chunk_row(first + i, chunk) for i, chunk in enumerate(chunks)])
            if segment:
                self._name_segment(segment, first)
            self._db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", finished)
            self._advance(next_row=first + len(chunks))
        if self._db.execute("SELECT count(*) FROM segments").fetchone()[0] > MAX_SEGMENTS:
            self.compact()

    def delete(self, document_ids: Sequence[str]) -> int:
        """Forgets documents in one pass; the files they came from will be read again when next ingested.

        Raises:
            DocumentMissing: one is not there; then nothing is deleted.
        """
        known = self._existing(document_ids)
        missing = [document_id for document_id in document_ids if document_id not in known]
        if missing:
            raise DocumentMissing(f"No document {', '.join(map(repr, missing[:5]))} in this collection; nothing was deleted.",
                                  hint="`thriftrag documents list` shows their ids.")
        with explained(self._folder), _transaction(self._db):
            files = {file for (file,) in self._select("SELECT file FROM documents WHERE id IN", list(known))}
            self._db.executemany("DELETE FROM files WHERE uri = ?", [(file,) for file in files])
            self._forget(list(known))
            self._advance()
        return len(known)

    def compact(self) -> int:
        """Merges all segments into one without the deleted chunks. Returns the bytes freed on disk."""
        before = tree_bytes(self._folder)
        live = self._db.execute("SELECT row, id FROM chunks ORDER BY row").fetchall()
        name = self._write_merged(np.asarray([row for row, _ in live], np.int64)) if live else None
        with explained(self._folder), _transaction(self._db):
            self._swap_segments(name, [chunk_id for _, chunk_id in live])
        self._sweep()
        # Whoever still reads the old state keeps its log alive: then the next compaction shortens it, and nobody waits.
        self._db.execute("PRAGMA busy_timeout=0")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.execute("PRAGMA busy_timeout=30000")
        return max(0, before - tree_bytes(self._folder))

    def replace_indexes(self, batches: Iterator[tuple[Sequence[Chunk], Vectors]], *, encoder: str, dimension: int) -> None:
        """Rebuilds every index from the stored chunks, which arrive in row order, and records the encoder that did it."""
        chunks: list[Chunk] = []
        vectors: list[Vectors] = []
        for some, encoded in batches:
            chunks.extend(some)
            vectors.append(encoded)
        name = self._write_segment(chunks, np.concatenate(vectors)) if chunks else None
        with explained(self._folder), _transaction(self._db):
            self._swap_segments(name, [chunk.id for chunk in chunks])
            self._db.executemany("UPDATE meta SET value = ? WHERE key = ?",
                                 [(encoder, "encoder"), (str(dimension), "dimension")])
        self._sweep()

    def _swap_segments(self, name: str | None, chunk_ids: Sequence[str]) -> None:
        """Puts one segment, which holds all live chunks in this order, in the place of all there are; None for no chunks."""
        first = int(meta(self._db)["next_row"])
        # New rows lie above all old ones, so no update meets a row that is still taken.
        self._db.executemany("UPDATE chunks SET row = ? WHERE id = ?", [(first + i, id_) for i, id_ in enumerate(chunk_ids)])
        self._db.execute("DELETE FROM tombstones")
        self._db.execute("DELETE FROM segments")
        if name:
            self._name_segment(name, first)
        self._advance(next_row=first + len(chunk_ids))

    def _name_segment(self, name: str, first: int) -> None:
        """Makes a written segment part of the published state, with the checksums that readers will hold it to."""
        files = {path.name: sha256_of(path) for path in sorted((self._folder / SEGMENTS / name).iterdir())}
        self._db.execute("INSERT INTO segments (name, first_row, files) VALUES (?, ?, ?)", (name, first, json.dumps(files)))

    def _write_segment(self, chunks: Sequence[Chunk], vectors: Vectors) -> str:
        with self._segment() as (name, folder):
            dense.write(folder, vectors)
            lexical.write(folder, [lexical_text(chunk) for chunk in chunks])
        return name

    def _write_merged(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> str:
        """One segment holding the live `rows`, taken from the segments there are: nothing is encoded again."""
        vectors: list[Vectors] = []
        texts: list[list[str]] = []
        for name, first in self._db.execute("SELECT name, first_row FROM segments ORDER BY first_row").fetchall():
            folder = self._folder / SEGMENTS / name
            index = dense.DenseIndex(folder)
            keep = rows[(rows >= first) & (rows < first + index.size)] - first
            vectors.append(index.vectors()[keep])
            vocabulary, ids, offsets = lexical.load(folder)
            texts.extend([vocabulary[i] for i in ids[offsets[at]:offsets[at + 1]]] for at in keep)
        known: dict[str, int] = {}
        flat = [known.setdefault(word, len(known)) for text in texts for word in text]
        offsets = np.cumsum([0, *map(len, texts)])
        with self._segment() as (name, folder):
            dense.write(folder, np.concatenate(vectors))
            lexical.save(folder / lexical.FILE, known, ids=np.asarray(flat, np.int32), offsets=offsets)
        return name

    @contextmanager
    def _segment(self) -> Iterator[tuple[str, Path]]:
        """A folder to fill, synced and renamed to its final name on success, removed on any failure."""
        name = uuid.uuid4().hex[:12]
        root = self._folder / SEGMENTS
        aside = root / f".{name}"
        with explained(root):
            aside.mkdir()
            try:
                yield name, aside
                sync_tree(aside)
                os.rename(aside, root / name)
                sync_folder(root)
            except BaseException:
                shutil.rmtree(aside, ignore_errors=True)
                raise

    def _sweep(self) -> None:
        """Removes segment folders that no published state names: what a crash or a merge left behind."""
        named = {name for (name,) in self._db.execute("SELECT name FROM segments")}
        for path in (self._folder / SEGMENTS).iterdir():
            if path.name not in named:
                shutil.rmtree(path, ignore_errors=True)

    def _advance(self, *, next_row: int | None = None) -> None:
        self._db.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
        if next_row is not None:
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'next_row'", (str(next_row),))

    def _forget(self, ids: Sequence[str]) -> None:
        rows = self._select("SELECT row FROM chunks WHERE doc_id IN", ids)
        self._db.executemany("INSERT INTO tombstones VALUES (?)", list(rows))
        self._db.executemany("DELETE FROM chunks WHERE doc_id = ?", [(document_id,) for document_id in ids])
        self._db.executemany("DELETE FROM documents WHERE id = ?", [(document_id,) for document_id in ids])

    def _ids_of(self, uris: Sequence[str]) -> list[str]:
        return [document_id for (document_id,) in self._select("SELECT id FROM documents WHERE uri IN", uris)]

    def _existing(self, ids: Sequence[str]) -> dict[str, None]:
        return dict.fromkeys(row[0] for row in self._select("SELECT id FROM documents WHERE id IN", ids))

    def _select(self, query: str, values: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """`query` ends in IN; long lists are asked for in pieces, because SQLite bounds the variables of a statement."""
        for start in range(0, len(values), 500):
            piece = values[start:start + 500]
            yield from self._db.execute(f"{query} ({', '.join('?' * len(piece))})", piece).fetchall()


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk makes SQLite roll back by itself
            db.execute("ROLLBACK")
        raise


def _document_row(item: Indexed) -> tuple[object, ...]:
    document = item.document
    return (document.id, item.file, document.source, document.uri, document.title, document.media_type, document.language,
            document.content_hash, document.text, json.dumps(dict(document.metadata), ensure_ascii=False),
            sum(chunk.tokens for chunk in item.chunks), now())


def _chunk_row(row: int, chunk: Chunk) -> tuple[object, ...]:
    return (row, chunk.id, chunk.doc_id, chunk.ordinal, chunk.text, chunk.span[0], json.dumps(chunk.sentences), chunk.tokens,
            chunk.heading, chunk.page, chunk.content_hash)
