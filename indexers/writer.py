"""The one writer of a collection: publishes, deletes, compacts and rebuilds, each as one durable transaction."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from indexers import fields, heap, migration, segments
from indexers.encoders import Vectors
from indexers.files import explained
from indexers.impacts import Weighed
from indexers.merging import Standing, due
from indexers.segments import DEFAULT, IndexOptions, Numbers, Segment, Written
from indexers.store import FIELD_COLUMNS, SEGMENTS, connect, fields_of, meta, now, passage_text, stored_fields
from rag.durable import tree_bytes
from rag.errors import DocumentMissing, Locked
from rag.types import Chunk, Document, OnProgress, Progress, no_progress

# Chunks encoded and written as one segment when indexes are rebuilt.
_REBUILT_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True)
class Indexed:
    """A document, its chunks and their vectors, shape (len(chunks), dimension); `weighed` where the collection has term
    weights."""

    document: Document
    file: str
    chunks: tuple[Chunk, ...]
    vectors: Vectors
    weighed: Weighed | None = None


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was when it was read: content by `content_hash`, and what tells cheaply that it is still the same."""

    uri: str
    content_hash: str
    size: int = 0
    modified_ns: int = 0
    changed_ns: int = 0
    read_ns: int = 0            # wall clock before reading



@contextmanager
def writing(folder: Path, *, options: IndexOptions = DEFAULT, migrate: bool = False) -> Iterator[Writer]:
    """The one writer of the collection. `options`: for the segments it writes. `migrate`: an older format is accepted, for
    `Writer.rebuild` alone.

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
        with closing(connect(folder, any_format=migrate)) as db:
            yield Writer(folder, db, options)
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

    def __init__(self, folder: Path, db: sqlite3.Connection, options: IndexOptions) -> None:
        self._folder = folder
        self._root = folder / SEGMENTS
        self._db = db
        self._options = options
        segments.sweep(self._root, named=self._names())

    def publish(self, batch: Sequence[Indexed], *, finished: Sequence[FileState] = (), gone: Sequence[str] = ()) -> None:
        """Adds or replaces the documents of `batch`, forgets those with a uri in `gone`, and records `finished` files:
        all or nothing."""
        facts = meta(self._db)
        row, number = int(facts["next_row"]), int(facts["next_document"])
        chunks = [chunk for item in batch for chunk in item.chunks]
        written = self._write(batch, chunks, row=row, number=number) if chunks else None
        with explained(self._folder), _transaction(self._db):
            # One document may be meant by both: a moved record keeps its id.
            self._forget({*self._numbers("id", [item.document.id for item in batch]), *self._numbers("uri", gone)})
            self._insert(batch, row=row, number=number)
            if written:
                self._name(written)
            self._db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
                                 [(f.uri, f.content_hash, f.size, f.modified_ns, f.changed_ns, f.read_ns) for f in finished])
            if batch or gone:       # readers need not open again because a file was touched
                self._advance(next_row=row + len(chunks), next_document=number + len(batch))
        if batch or gone:
            self._tidy()

    def forget_files(self, uris: Sequence[str]) -> int:
        """Forgets the documents that came from these files, and the files. Returns how many documents."""
        with explained(self._folder), _transaction(self._db):
            numbers = self._numbers("file", uris)
            self._forget(numbers)
            self._db.executemany("DELETE FROM files WHERE uri = ?", [(uri,) for uri in uris])
            self._advance()
        self._tidy()
        return len(numbers)

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
            self._forget(self._numbers("id", list(known)))
            self._advance()
        self._tidy()
        return len(known)

    def compact(self) -> int:
        """Merges all segments into one without the deleted chunks. Returns the bytes freed on disk."""
        before = tree_bytes(self._folder)
        opened = self._opened(self._names())
        if len(opened) > 1 or any(segment.live is not None for segment in opened):
            self._merge(opened)
        # Whoever still reads the old state keeps its log alive: then the next compaction shortens it, and nobody waits.
        self._db.execute("PRAGMA busy_timeout=0")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.execute("PRAGMA busy_timeout=30000")
        return max(0, before - tree_bytes(self._folder))

    def rebuild(self, encode: Callable[[Sequence[str]], tuple[Vectors, Weighed | None]], *, encoder: str, dimension: int,
                terms: str = "", on_progress: OnProgress = no_progress) -> None:
        """Makes every index again from the stored chunks and records the encoder that did it, and its term weights. A store of an
        older format is brought to the newest in the same transaction, so that a crash leaves it whole."""
        with explained(self._folder), _transaction(self._db):
            migration.upgrade(self._db)
            total = int(self._db.execute("SELECT count(*) FROM chunks").fetchone()[0])
            written = []
            for done, (rows, documents, texts) in self._passages():
                on_progress(Progress("encode", done, total))
                encoded, weighed = encode(texts)
                written.append(segments.write(self._root, rows=rows, documents=documents, encoded=encoded, texts=texts,
                                              weighed=weighed, options=self._options))
            self._db.execute("DELETE FROM tombstones")
            self._db.execute("DELETE FROM segments")
            for segment in written:
                self._name(segment)
            self._advance()
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)",
                                 [("encoder", encoder), ("dimension", str(dimension)), ("terms", terms)])
        on_progress(Progress("encode", total, total))
        self._tidy()
        segments.sweep(self._root, named=self._names())

    def _passages(self) -> Iterator[tuple[int, tuple[Numbers, Numbers, list[str]]]]:
        """Row, document and text of all chunks in row order, a block at a time, and how many came before."""
        done, last = 0, -1
        while True:
            found = self._db.execute("""SELECT c.row, c.document, d.title, c.heading, c.text FROM chunks c
                JOIN documents d ON d.number = c.document WHERE c.row > ? ORDER BY c.row LIMIT ?""",
                                     (last, _REBUILT_AT_ONCE)).fetchall()
            if not found:
                return
            rows, documents, *parts = zip(*found, strict=True)
            yield done, (np.asarray(rows, np.int64), np.asarray(documents, np.int64), list(map(passage_text, *parts)))
            done, last = done + len(found), rows[-1]

    def _write(self, batch: Sequence[Indexed], chunks: Sequence[Chunk], *, row: int, number: int) -> Written:
        documents = np.repeat(np.arange(number, number + len(batch)), [len(item.chunks) for item in batch])
        texts = [passage_text(chunk.title, chunk.heading, chunk.text) for chunk in chunks]
        return segments.write(self._root, rows=np.arange(row, row + len(chunks)), documents=documents, texts=texts,
                              encoded=np.concatenate([item.vectors for item in batch]), options=self._options,
                              weighed=_joined([item.weighed for item in batch]))

    def _insert(self, batch: Sequence[Indexed], *, row: int, number: int) -> None:
        added = now()
        for at, item in enumerate(batch, number):
            self._db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                             _document_row(at, item, added))
            self._db.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)",
                                 [(*made, at) for made in fields.rows_of(fields_of(item.document, added=added))])
            self._db.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                 [_chunk_row(row + i, at, chunk) for i, chunk in enumerate(item.chunks)])
            row += len(item.chunks)

    def _tidy(self) -> None:
        """Merges what the merge policy says is due, until nothing is."""
        while True:
            standing = self._db.execute("""SELECT name, size, size - (SELECT count(*) FROM tombstones
                WHERE row BETWEEN first_row AND last_row) FROM segments ORDER BY first_row""").fetchall()
            wanted = due([Standing(size, living) for _, size, living in standing])
            if not wanted:
                return
            self._merge(self._opened([standing[i][0] for i in wanted]))
            heap.trim()

    def _merge(self, parts: Sequence[Segment]) -> None:
        """Puts one segment in the place of `parts`."""
        written = segments.merge(self._root, parts, options=self._options) if any(len(p.kept) for p in parts) else None
        with explained(self._folder), _transaction(self._db):
            for part in parts:
                self._db.execute("DELETE FROM segments WHERE name = ?", (part.name,))
                if part.live is not None:
                    self._db.executemany("DELETE FROM tombstones WHERE row = ?",
                                         [(int(row),) for row in part.rows[~part.live]])
            if written:
                self._name(written)
            self._advance()
        segments.sweep(self._root, named=self._names())

    def _name(self, written: Written) -> None:
        """Makes a written segment part of the published state, with the checksums that readers will hold it to."""
        self._db.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?)",
                         (written.name, written.size, written.first_row, written.last_row, json.dumps(dict(written.files))))

    def _names(self) -> list[str]:
        return [name for (name,) in self._db.execute("SELECT name FROM segments ORDER BY first_row").fetchall()]

    def _opened(self, names: Sequence[str]) -> list[Segment]:
        """Their files are held to their checksums first: a merge must not pass damage on."""
        dead = np.asarray([row for (row,) in self._db.execute("SELECT row FROM tombstones ORDER BY row")], np.int64)
        files = dict(self._db.execute("SELECT name, files FROM segments").fetchall())
        return [segments.open_segment(self._root, name, files=json.loads(files[name]), dead=dead) for name in names]

    def _advance(self, **counters: int) -> None:
        self._db.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
        self._db.executemany("UPDATE meta SET value = ? WHERE key = ?", [(str(n), name) for name, n in counters.items()])

    def _forget(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            record = self._db.execute(f"SELECT {FIELD_COLUMNS} FROM documents WHERE number = ?", (number,)).fetchone()
            # Found by their values, so that no index by document is needed.
            self._db.executemany("DELETE FROM fields WHERE key = ? AND kind = ? AND value = ? AND document = ?",
                                 [(*held, number) for held in fields.rows_of(stored_fields(*record))])
            self._db.execute("INSERT INTO tombstones SELECT row FROM chunks WHERE document = ?", (number,))
            self._db.execute("DELETE FROM chunks WHERE document = ?", (number,))
            self._db.execute("DELETE FROM documents WHERE number = ?", (number,))

    def _numbers(self, column: str, values: Sequence[str]) -> list[int]:
        found = self._select(f"SELECT number FROM documents WHERE {column} IN", list(dict.fromkeys(values)))
        return [number for (number,) in found]

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


def _joined(parts: Sequence[Weighed | None]) -> Weighed | None:
    found = [part for part in parts if part is not None]
    if not found:
        return None
    if len(found) < len(parts) or len({(part.vocabulary, part.scale) for part in found}) > 1:
        raise ValueError("documents of one batch have term weights of one model, or none has any")
    return replace(found[0], impacts=[one for part in found for one in part.impacts])


def _document_row(number: int, item: Indexed, added: str) -> tuple[object, ...]:
    document = item.document
    return (number, document.id, item.file, document.source, document.uri, document.title, document.media_type,
            document.language, document.content_hash, document.text, json.dumps(dict(document.metadata), ensure_ascii=False),
            sum(chunk.tokens for chunk in item.chunks), added)


def _chunk_row(row: int, document: int, chunk: Chunk) -> tuple[object, ...]:
    return (row, chunk.id, document, chunk.ordinal, chunk.text, chunk.span[0], json.dumps(chunk.sentences), chunk.tokens,
            chunk.heading, chunk.page, chunk.content_hash)
