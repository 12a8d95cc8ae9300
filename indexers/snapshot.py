"""One published state of a collection, opened for reading: what retrievers search and citations point into.

A snapshot never changes. It holds a SQLite read transaction and the opened index files, so deletes, publishes and
compactions by others do not touch it; close it to let go of the old state.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers import lexical, store
from indexers.dense import DenseIndex
from indexers.encoders import Vectors
from rag.durable import sha256_of
from rag.errors import DocumentMissing, RagError, SnapshotCorrupt
from rag.types import Chunk, Document

# What SQLite returns is typed by the schema, which no checker reads.
Row = tuple[Any, ...]
_CHUNK = """SELECT c.row, c.id, c.doc_id, c.ordinal, c.text, c.start, c.sentences, c.tokens, c.heading, c.page,
    c.content_hash, d.title, d.source, d.metadata FROM chunks c JOIN documents d ON d.id = c.doc_id"""


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    id: str
    source: str
    title: str
    chunks: int
    tokens: int
    added: str

    def to_dict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Segment:
    """Index files of one segment; the chunk at position `i` has row `first_row + i`. `dead`: positions now deleted."""

    name: str
    folder: Path
    first_row: int
    dead: NDArray[np.int64]
    dense: DenseIndex


class Snapshot:
    """Open with `Snapshot(folder)`. Safe to use from several threads. `indexes=False` opens the store alone, which works
    when index files are broken and is all that rebuilding them needs."""

    def __init__(self, folder: Path, *, indexes: bool = True) -> None:
        self.folder = folder
        self._db = store.connect(folder)
        self._lock = threading.Lock()
        self._db.execute("BEGIN")
        self.meta: Mapping[str, str] = store.meta(self._db)  # the first read fixes the state this snapshot sees
        self.id = f"{self.meta['collection']}-{self.meta['generation']}"
        try:
            self.segments = tuple(self._open_segments()) if indexes else ()
        except RagError:
            self.close()
            raise

    def close(self) -> None:
        self._db.close()

    @property
    def dimension(self) -> int:
        return int(self.meta["dimension"])

    @cached_property
    def size(self) -> int:
        """Live chunks."""
        return int(self._all("SELECT count(*) FROM chunks")[0][0])

    def is_current(self) -> bool:
        """Whether nothing was published since; cheap enough to ask before every question."""
        try:
            db = sqlite3.connect(f"{(self.folder / store.DATABASE).as_uri()}?mode=ro", uri=True)
        except sqlite3.OperationalError:
            return False
        try:
            row = db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        finally:
            db.close()
        return row is not None and str(row[0]) == self.meta["generation"]

    def chunks(self, rows: Sequence[int]) -> list[Chunk]:
        """The chunks of these rows, in the order given."""
        found: dict[int, Chunk] = {}
        for start in range(0, len(rows), 500):
            piece = [int(row) for row in rows[start:start + 500]]
            for record in self._all(f"{_CHUNK} WHERE c.row IN ({', '.join('?' * len(piece))})", piece):
                found[record[0]] = _chunk(record)
        return [found[int(row)] for row in rows]

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """The stored unit vectors of these rows, shape (len(rows), dimension), in the order given."""
        wanted = np.asarray(rows, np.int64)
        found = np.zeros((len(wanted), self.dimension), np.float32)
        for segment in self.segments:
            inside = (wanted >= segment.first_row) & (wanted < segment.first_row + segment.dense.size)
            if inside.any():
                found[inside] = segment.dense.vectors_at(wanted[inside] - segment.first_row)
        return found

    def chunks_of(self, document_ids: Sequence[str]) -> list[Chunk]:
        """All chunks of these documents, document by document in the order given."""
        return [_chunk(record) for document_id in document_ids
                for record in self._all(f"{_CHUNK} WHERE c.doc_id = ? ORDER BY c.ordinal", [document_id])]

    def all_chunks(self, *, batch: int = 512) -> Iterator[list[Chunk]]:
        """Every live chunk in row order."""
        last = -1
        while True:
            records = self._all(f"{_CHUNK} WHERE c.row > ? ORDER BY c.row LIMIT ?", [last, batch])
            if not records:
                return
            last = records[-1][0]
            yield [_chunk(record) for record in records]

    def documents(self) -> list[DocumentInfo]:
        """All documents by source, with their live chunks counted."""
        records = self._all("""SELECT d.id, d.source, d.title, count(c.row), d.tokens, d.added FROM documents d
            LEFT JOIN chunks c ON c.doc_id = d.id GROUP BY d.id ORDER BY d.source, d.id""")
        return [DocumentInfo(*record) for record in records]

    def resolve_all(self, names: Sequence[str]) -> list[str]:
        """Document ids for ids or sources, each once.

        Raises:
            DocumentMissing: names every one that is no document, or the source of several.
        """
        found: dict[str, None] = {}
        wrong: list[str] = []
        for name in names:
            ids = [row[0] for row in self._all("SELECT id FROM documents WHERE id = ?", [name])
                   or self._all("SELECT id FROM documents WHERE source = ? LIMIT 2", [name])]
            if len(ids) == 1:
                found[ids[0]] = None
            else:
                wrong.append(f"{name!r}{' (several have this source)' if ids else ''}")
        if wrong:
            raise DocumentMissing(f"No document {', '.join(wrong[:10])} in collection {self.folder.name!r}.", field="document",
                                  hint="`thriftrag documents list` shows their ids.")
        return list(found)

    def document(self, name: str) -> Document:
        """A document by id or source. Blocks are not stored: they have done their work when the chunks exist."""
        record = self._all("""SELECT id, source, uri, title, text, content_hash, media_type, language, metadata
            FROM documents WHERE id = ?""", self.resolve_all([name]))[0]
        id_, source, uri, title, text, content_hash, media_type, language, metadata = record
        return Document(id=id_, source=source, uri=uri, title=title, text=text, content_hash=content_hash, blocks=(),
                        media_type=media_type, language=language, metadata=json.loads(metadata))

    def totals(self) -> tuple[int, int, int]:
        """Documents, live chunks, encoder tokens."""
        documents, tokens = self._all("SELECT count(*), coalesce(sum(tokens), 0) FROM documents")[0]
        return documents, self.size, tokens

    def segment_count(self) -> int:
        return int(self._all("SELECT count(*) FROM segments")[0][0])

    def problems(self) -> list[str]:
        """Everything that is broken, by name; empty when sound."""
        found = [f"{store.DATABASE}: {row[0]}" for row in self._all("PRAGMA integrity_check") if row[0] != "ok"]
        live = {row[0] for row in self._all("SELECT row FROM chunks")}
        indexed: set[int] = set()
        for segment in self.segments:
            rows = set(range(segment.first_row, segment.first_row + segment.dense.size))
            indexed |= rows - {segment.first_row + int(at) for at in segment.dead}
            words = len(lexical.load(segment.folder)[2]) - 1
            if words != segment.dense.size:
                found.append(f"segment {segment.name}: {segment.dense.size} vectors but {words} word lists")
        if live - indexed:
            found.append(f"{len(live - indexed)} chunks are in no index")
        if indexed - live:
            found.append(f"{len(indexed - live)} index entries have no chunk")
        bad = self._all("""SELECT count(*) FROM chunks c JOIN documents d ON d.id = c.doc_id
            WHERE substr(d.text, c.start + 1, length(c.text)) != c.text""")[0][0]
        if bad:
            found.append(f"{bad} chunks differ from the span of the document they cite")
        return found

    @cached_property
    def words(self) -> tuple[list[str], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Vocabulary, word ids end to end, offsets, and the row of each chunk, over all live chunks."""
        known: dict[str, int] = {}
        ids: list[NDArray[np.int32]] = []
        lengths: list[NDArray[np.int64]] = []
        rows: list[NDArray[np.int64]] = []
        for segment in self.segments:
            vocabulary, flat, offsets = lexical.load(segment.folder)
            # The extra entry keeps the lookup legal for an empty vocabulary.
            mapping = np.asarray([known.setdefault(word, len(known)) for word in vocabulary] or [0], np.int32)
            alive = np.ones(segment.dense.size, bool)
            alive[segment.dead] = False
            size = np.diff(offsets)
            ids.append(mapping[flat[np.repeat(alive, size)]])
            lengths.append(size[alive])
            rows.append(segment.first_row + np.flatnonzero(alive))
        if not ids:
            return [], np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.int64)
        return (list(known), np.concatenate(ids), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
                np.concatenate(rows))

    def _open_segments(self) -> Iterator[Segment]:
        dead = np.asarray([row for (row,) in self._all("SELECT row FROM tombstones ORDER BY row")], np.int64)
        for name, first, files in self._all("SELECT name, first_row, files FROM segments ORDER BY first_row"):
            folder = self.folder / store.SEGMENTS / name
            for file, expected in json.loads(files).items():
                _check(folder / file, expected)
            index = DenseIndex(folder)
            inside = dead[(dead >= first) & (dead < first + index.size)]
            yield Segment(name, folder, first, inside - first, index)

    def _all(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        try:
            with self._lock:
                return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise SnapshotCorrupt(f"{self.folder / store.DATABASE} cannot be read: {error}.",
                                  hint="Run `thriftrag collections verify`.") from error


def _check(path: Path, expected: str) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise SnapshotCorrupt(f"{path} is missing or unreadable: {error.strerror}.",
                              hint="Run `thriftrag collections rebuild`: every index can be made again from the store.") from error
    if found != expected:
        raise SnapshotCorrupt(f"{path} was changed on disk: sha256 expected {expected}, found {found}.",
                              hint="Run `thriftrag collections rebuild`: every index can be made again from the store.")


def _chunk(record: Row) -> Chunk:
    (_, id_, doc_id, ordinal, text, start, sentences, tokens, heading, page, content_hash, title, source, metadata) = record
    return Chunk(id=id_, doc_id=doc_id, ordinal=ordinal, text=text, span=(start, start + len(text)),
                 sentences=tuple((begin, end) for begin, end in json.loads(sentences)), tokens=tokens, title=title,
                 heading=heading, page=page, source=source, content_hash=content_hash, metadata=json.loads(metadata))
