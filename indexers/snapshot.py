"""One published state of a collection, opened for reading: what retrievers search and citations point into.

A snapshot never changes. It holds a SQLite read transaction and the opened index files, so deletes, publishes and
compactions by others do not touch it; close it to let go of the old state.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers import lucene, store
from indexers.encoders import Vectors
from indexers.fields import mask_where
from indexers.impacts import Statistics
from indexers.published import Published
from indexers.segments import Numbers, Segment, live_of, open_segment
from rag.errors import DocumentMissing, RagError, SnapshotCorrupt
from rag.filters import Filter
from rag.types import Chunk, Document, FieldValue

# What SQLite returns is typed by the schema, which no checker reads.
Row = tuple[Any, ...]
_CHUNK = """SELECT c.row, c.id, d.id, c.ordinal, c.text, c.start, c.sentences, c.tokens, c.heading, c.page,
    c.content_hash, d.title, d.source, d.metadata FROM chunks c JOIN documents d ON d.number = c.document"""
# A writer that merges removes files that a reader is about to open: the newer state is then read instead.
_ATTEMPTS = 10


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


class Snapshot:
    """Open with `Snapshot(folder)`. Safe to use from several threads. `indexes=False` opens the store alone, which works
    when index files are broken and is all that rebuilding them needs. `reuse`: an older snapshot of the same collection,
    whose opened segments are shared where they are still part of the state."""

    def __init__(self, folder: Path, *, indexes: bool = True, reuse: Snapshot | None = None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._published = Published(folder)
        self.segments: tuple[Segment, ...] = ()
        for attempt in range(1, _ATTEMPTS + 1):
            self._db = store.connect(folder)
            self._db.execute("BEGIN")
            self.meta: Mapping[str, str] = store.meta(self._db)  # the first read fixes the state this snapshot sees
            self.id = f"{self.meta['collection']}-{self.meta['generation']}"
            try:
                if indexes:
                    self.segments = tuple(self._open_segments({} if reuse is None else {s.name: s for s in reuse.segments}))
                return
            except RagError:
                outdated = not self.is_current()
                self.close()
                if not outdated or attempt == _ATTEMPTS:
                    raise

    def close(self) -> None:
        self._published.close()
        self._db.close()

    @property
    def dimension(self) -> int:
        return int(self.meta["dimension"])

    @property
    def terms(self) -> str:
        """Name of the term weights that every segment holds; "" for none. Collections made before there were any say nothing."""
        return self.meta.get("terms", "")

    @cached_property
    def statistics(self) -> Statistics | None:
        """How many passages have a weight for each token; None without term weights. Deleted ones count until segments merge."""
        held = [segment.sparse.holding for segment in self.segments if segment.sparse is not None]
        if not held:
            return None
        return Statistics(sum(segment.size for segment in self.segments), np.sum(held, axis=0))

    @cached_property
    def size(self) -> int:
        """Live chunks."""
        return int(self._all("SELECT count(*) FROM chunks")[0][0])

    def is_current(self) -> bool:
        """Whether nothing was published since; cheap enough to ask before every question."""
        return self._published.generation() == self.meta["generation"]

    def rows(self) -> Numbers:
        """Rows of all live chunks, ascending."""
        return np.concatenate([np.zeros(0, np.int64), *(segment.rows[segment.kept] for segment in self.segments)])

    def chunks(self, rows: Sequence[int]) -> list[Chunk]:
        """The chunks of these rows, in the order given."""
        found = self.known(rows)
        return [found[int(row)] for row in rows]

    def known(self, rows: Sequence[int]) -> dict[int, Chunk]:
        """The chunks of those of these rows that live."""
        return {record[0]: _chunk(record) for record in self._of_rows(_CHUNK, rows)}

    def rows_of(self, chunk_ids: Sequence[str]) -> dict[str, int]:
        """The rows of those of these chunks that live, by id."""
        found: dict[str, int] = {}
        for start in range(0, len(chunk_ids), 500):
            piece = chunk_ids[start:start + 500]
            found.update(self._all(f"SELECT id, row FROM chunks WHERE id IN ({', '.join('?' * len(piece))})", piece))
        return found

    @property
    def next_row(self) -> int:
        """The row that the next new chunk gets; rows are given in order and never twice."""
        return int(self.meta["next_row"])

    def fields(self, rows: Sequence[int]) -> list[dict[str, FieldValue]]:
        """What filters can ask about the document of each row, in the order given: see `store.fields_of`."""
        columns = ", ".join(f"d.{column}" for column in store.FIELD_COLUMNS.split(", "))
        found = {row: store.stored_fields(*record) for row, *record in self._of_rows(
            f"SELECT c.row, {columns} FROM chunks c JOIN documents d ON d.number = c.document", rows)}
        return [found[int(row)] for row in rows]

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """The stored unit vectors of these rows, shape (len(rows), dimension), in the order given."""
        wanted = np.asarray(rows, np.int64)
        found = np.zeros((len(wanted), self.dimension), np.float32)
        for segment in self.segments:
            at = np.minimum(np.searchsorted(segment.rows, wanted), segment.size - 1)
            inside = segment.rows[at] == wanted
            if inside.any():
                found[inside] = segment.dense.vectors_at(at[inside])
        return found

    def allowed(self, where: Filter | None) -> list[NDArray[np.bool_] | None]:
        """For each segment the positions that live and whose document `where` matches; None where that is all of them."""
        if where is None:
            return [segment.live for segment in self.segments]
        matching = np.zeros(int(self.meta["next_document"]) + 1, bool)
        with self._lock:
            found = mask_where(self._db, where)
        matching[:len(found)] = found
        masks: list[NDArray[np.bool_] | None] = []
        for segment in self.segments:
            mask = matching[segment.documents]
            masks.append(mask if segment.live is None else mask & segment.live)
        return masks

    def chunks_of(self, document_ids: Sequence[str]) -> list[Chunk]:
        """All chunks of these documents, document by document in the order given."""
        return [_chunk(record) for document_id in document_ids
                for record in self._all(f"{_CHUNK} WHERE d.id = ? ORDER BY c.ordinal", [document_id])]

    def chunk(self, chunk_id: str) -> Chunk | None:
        """The chunk of this id, if there is one."""
        return next((_chunk(record) for record in self._all(f"{_CHUNK} WHERE c.id = ?", [chunk_id])), None)

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
        records = self._all("""SELECT d.id, d.source, d.title, (SELECT count(*) FROM chunks WHERE document = d.number), d.tokens,
            d.added FROM documents d ORDER BY d.source, d.id""")
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
                        media_type=media_type, language=language, metadata=store.stored_metadata(metadata))

    def totals(self) -> tuple[int, int, int]:
        """Documents, live chunks, encoder tokens."""
        documents, tokens = self._all("SELECT count(*), coalesce(sum(tokens), 0) FROM documents")[0]
        return documents, self.size, tokens

    def segment_count(self) -> int:
        return int(self._all("SELECT count(*) FROM segments")[0][0])

    def problems(self) -> list[str]:
        """Everything that is broken or disagrees, by name; empty when sound. Reads the whole store and every index."""
        found = [f"{store.DATABASE}: {row[0]}" for row in self._all("PRAGMA integrity_check") if row[0] != "ok"]
        for segment in self.segments:
            within = segment.lexical.problems()
            if segment.sparse is not None:
                within += segment.sparse.problems()
            elif self.terms:
                within.append(f"it lacks the term weights {self.terms} that the collection has")
            if (segment.folder / lucene.FOLDER).is_dir():
                within += lucene.problems(segment.folder, segment.lexical)
            found += [f"segment {segment.name}: {problem}" for problem in within]
        live = np.asarray([row for (row,) in self._all("SELECT row FROM chunks ORDER BY row")], np.int64)
        indexed = self.rows()
        for rows, what in ((np.setdiff1d(live, indexed), "chunks are in no index"),
                           (np.setdiff1d(indexed, live), "index entries have no chunk")):
            if len(rows):
                found.append(f"{len(rows)} {what}")
        owners: dict[int, int] = dict(self._all("SELECT row, document FROM chunks"))
        for segment in self.segments:
            wrong = sum(owners.get(row, number) != number
                        for row, number in zip(segment.rows.tolist(), segment.documents.tolist(), strict=True))
            if wrong:
                found.append(f"segment {segment.name}: {wrong} positions name another document than the store")
        for query, what in _CHECKS:
            bad = self._all(query)[0][0]
            if bad:
                found.append(f"{bad} {what}")
        return found

    def _open_segments(self, opened: Mapping[str, Segment]) -> Iterator[Segment]:
        dead = np.asarray([row for (row,) in self._all("SELECT row FROM tombstones ORDER BY row")], np.int64)
        for name, files in self._all("SELECT name, files FROM segments ORDER BY first_row"):
            if name in opened:
                yield replace(opened[name], live=live_of(opened[name].rows, dead))
            else:
                yield open_segment(self.folder / store.SEGMENTS, name, files=json.loads(files), dead=dead)

    def _of_rows(self, query: str, rows: Sequence[int]) -> Iterator[Row]:
        """`query` has a table c with a row; SQLite bounds the variables of a statement, so long lists come in pieces."""
        for start in range(0, len(rows), 500):
            piece = [int(row) for row in rows[start:start + 500]]
            yield from self._all(f"{query} WHERE c.row IN ({', '.join('?' * len(piece))})", piece)

    def _all(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        try:
            with self._lock:
                return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise SnapshotCorrupt(f"{self.folder / store.DATABASE} cannot be read: {error}.",
                                  hint="Run `thriftrag collections verify`.") from error


_CHECKS = (
    ("""SELECT count(*) FROM chunks c JOIN documents d ON d.number = c.document
        WHERE substr(d.text, c.start + 1, length(c.text)) != c.text""", "chunks differ from the span of the document they cite"),
    ("SELECT count(*) FROM chunks WHERE document NOT IN (SELECT number FROM documents)", "chunks belong to no document"),
    ("SELECT count(*) FROM documents WHERE number NOT IN (SELECT document FROM fields WHERE key = 'id')",
     "documents cannot be filtered: their fields are missing"),
)


def _chunk(record: Row) -> Chunk:
    (_, id_, doc_id, ordinal, text, start, sentences, tokens, heading, page, content_hash, title, source, metadata) = record
    return Chunk(id=id_, doc_id=doc_id, ordinal=ordinal, text=text, span=(start, start + len(text)),
                 sentences=tuple((begin, end) for begin, end in json.loads(sentences)), tokens=tokens, title=title,
                 heading=heading, page=page, source=source, content_hash=content_hash, metadata=store.stored_metadata(metadata))
