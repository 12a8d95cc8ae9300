"""From sources to batches of chunks that are new: what has not changed since the last run is recognised and left alone.

A file is the same if its size and its times of modification and change are those of the last run and lie safely before it;
otherwise its hash decides. (A file written in the very moment it was read could change again within the clock's grain: git
calls this racy and settles it the same way.) The same content under a new name, where the old name is gone, is a move.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from threading import Lock

from indexers.chunking import chunk
from indexers.encoders import Encoder
from indexers.known import Known
from indexers.loaders import Found
from indexers.loaders.discovery import printable
from indexers.parsing import Parsing
from indexers.writer import FileState
from rag.durable import sha256_of
from rag.types import Chunk, Document, FileFailure, OnProgress, Progress, Skipped

# A file modified later than this before it was read may have changed once more within the clock's grain.
_RACY_NS = 2_000_000_000
_FIRST = 64


@dataclass(slots=True)
class Batch:
    """What is published in one transaction: new documents with their chunks, the files that end with it, and the uris of
    documents to forget."""

    documents: list[tuple[Document, str, list[Chunk]]] = field(default_factory=list)
    finished: list[FileState] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    chunks: int = 0
    added: int = 0
    changed: int = 0
    moved: int = 0              # of the added: files that had another name

    def __bool__(self) -> bool:
        return bool(self.documents or self.finished or self.gone)


@dataclass(slots=True)
class Tally:
    """What a run has met so far, besides what its batches hold."""

    unchanged: int = 0
    failures: list[FileFailure] = field(default_factory=list)
    skipped: list[FileFailure] = field(default_factory=list)
    interrupted: bool = False


@dataclass(slots=True)
class _File:
    """A file on its way: as it was found, its state, and the documents that came from it last time, by uri."""

    uri: str
    state: FileState
    known: dict[str, str]
    moved_from: list[str]


class Intake:
    """One run over some sources. `batches` may run in a thread of its own; `published` tells it what has arrived."""

    def __init__(self, known: Known, *, encoder: Encoder, parsing: Parsing, chunk_tokens: int, batch_chunks: int,
                 on_progress: OnProgress, cancelled: Callable[[], bool]) -> None:
        self.tally = Tally()
        self._known = known
        self._encoder = encoder
        self._parsing = parsing
        self._max_tokens = min(chunk_tokens, encoder.max_tokens)
        self._batch_chunks = batch_chunks
        self._on_progress = on_progress
        self._cancelled = cancelled
        self._batch = Batch()
        # The first batches are small, so that the encoder need not wait for a large one to be read.
        self._limit = min(_FIRST, batch_chunks)
        self._under_way: dict[str, str] = {}    # uri by id of documents that are not published yet
        self._leaving: set[str] = set()         # uris of documents that the file in hand replaces under a new name
        self._lock = Lock()

    def batches(self, files: Sequence[Found], lines: Iterator[Document | FileFailure] | None, *, stdin: str) -> Iterator[Batch]:
        """All that is new in `files`, then in the records of `lines`, which count as one file named `stdin`."""
        yield from self._files(files)
        self._leaving = set()
        if lines is not None and not self.stopped():
            yield from self._take(lines, stdin, self._known.documents_of(stdin))
        if self._batch:
            yield self._cut()

    def note(self, failures: Iterable[FileFailure]) -> None:
        """What was met before any file was opened."""
        for failure in failures:
            (self.tally.skipped if isinstance(failure, Skipped) else self.tally.failures).append(failure)

    def published(self, batch: Batch) -> None:
        """From now on the store knows the ids of this batch."""
        with self._lock:
            for document, _, _ in batch.documents:
                self._under_way.pop(document.id, None)

    def _files(self, files: Sequence[Found]) -> Iterator[Batch]:
        total, done = sum(item.size for item in files), 0
        waiting: deque[tuple[_File, int]] = deque()     # with the bytes that are done when it ends
        for item, documents in self._parsing.parse(self._changed(files, waiting)):
            if self.stopped():
                return
            file, ends = waiting.popleft()
            self._on_progress(Progress("read", done, total, unit="bytes", note=item.source))
            expected, self._leaving = dict(file.known), set(file.moved_from)
            failures = len(self.tally.failures)
            yield from self._take(self._watched(documents, item, done, total), file.uri, expected)
            if self.stopped():
                return      # it may not have been read to its end
            done = ends
            # A file with failures is read again next time, and what it no longer holds stays until it reads cleanly.
            if len(self.tally.failures) == failures:
                self._batch.finished.append(file.state)
                self._batch.gone += [*expected, *file.moved_from]
                self._batch.moved += bool(file.moved_from)
        self._on_progress(Progress("read", total, total, unit="bytes"))

    def _watched(self, documents: Iterable[Document | FileFailure], item: Found, done: int, total: int
                 ) -> Iterator[Document | FileFailure]:
        """A file of many records moves the bar as they come: by their text, at most to its own end."""
        read = 0
        for document in documents:
            yield document
            if isinstance(document, Document):
                read = min(item.size, read + len(document.text))
                self._on_progress(Progress("read", done + read, total, unit="bytes", note=item.source))

    def _changed(self, files: Sequence[Found], waiting: deque[tuple[_File, int]]) -> Iterator[Found]:
        """The files that must be read, each noted in `waiting`."""
        ends = 0
        for item in files:
            if self.stopped():
                return
            ends += item.size
            file = self._new(item)
            if file is not None:
                waiting.append((file, ends))
                yield item

    def _new(self, item: Found) -> _File | None:
        uri = printable(item.path)
        before = self._known.file(uri)
        try:
            state = _state(item.path, uri)
            documents = self._known.documents_of(uri)
            if before is not None and documents and _same(before, state):
                self.tally.unchanged += len(documents)
                return None
            state = replace(state, content_hash=sha256_of(item.path))
        except OSError as error:
            why = f"{item.source} cannot be read: {error.strerror}."
            self.tally.failures.append(FileFailure(item.source, "file_unreadable", why, "Check its permissions."))
            return None
        if before is not None and documents and before.content_hash == state.content_hash:
            self.tally.unchanged += len(documents)
            self._batch.finished.append(state)      # so that next time its times suffice
            return None
        return _File(uri, state, documents, [] if documents else self._moved_from(state.content_hash))

    def _moved_from(self, content_hash: str) -> list[str]:
        """Uris of the documents that had this content under a name that is gone."""
        return [uri for name in self._known.files_with(content_hash) if not os.path.lexists(name)
                for uri in self._known.documents_of(name)]

    def _take(self, documents: Iterable[Document | FileFailure], file: str, known: dict[str, str]) -> Iterator[Batch]:
        """Queues what is new or changed, and takes what is still there out of `known`."""
        seen: set[str] = set()
        for document in documents:
            if self.stopped():
                return
            if not isinstance(document, FileFailure) and document.uri in seen:
                document = FileFailure(document.source, "document_duplicate", f"{document.source} occurs twice; the first is kept.",
                                       "Give each record its own id.")
            if isinstance(document, FileFailure):
                self.note([document])
                continue
            seen.add(document.uri)
            before = known.pop(document.uri, None)
            if before == document.content_hash:
                self.tally.unchanged += 1
                continue
            yield from self._queue(document, file, is_new=before is None)

    def _queue(self, document: Document, file: str, *, is_new: bool) -> Iterator[Batch]:
        own = self._with_free_id(document)
        pieces = chunk(own, max_tokens=self._max_tokens, count=self._encoder.count, offsets=self._encoder.offsets)
        if not pieces:
            self.tally.failures.append(FileFailure(own.source, "file_empty", f"{own.source} holds no text.", "Leave it out."))
            return
        with self._lock:
            self._under_way[own.id] = own.uri
        self._batch.documents.append((own, file, pieces))
        self._batch.chunks += len(pieces)
        if is_new:
            self._batch.added += 1
        else:
            self._batch.changed += 1
        if self._batch.chunks >= self._limit:
            self._limit = min(2 * self._limit, self._batch_chunks)
            yield self._cut()

    def _cut(self) -> Batch:
        batch, self._batch = self._batch, Batch()
        return batch

    def _with_free_id(self, document: Document) -> Document:
        """Two sources may give records the same id. The first keeps it; the other's is qualified, never overwritten."""
        with self._lock:
            owner = self._under_way.get(document.id)
        # In this order: what is no longer under way is in the store.
        owner = owner or self._known.owner(document.id)
        if owner is None or owner == document.uri or owner in self._leaving:
            return document
        return replace(document, id=f"{document.id}@{sha256(document.uri.encode()).hexdigest()[:8]}")

    def stopped(self) -> bool:
        """Whether the run was told to stop; then it counts as interrupted."""
        if self._cancelled():
            self.tally.interrupted = True
        return self.tally.interrupted


def _state(path: Path, uri: str) -> FileState:
    read_ns = time.time_ns()
    status = os.stat(path)
    return FileState(uri, "", status.st_size, status.st_mtime_ns, status.st_ctime_ns, read_ns)


def _same(before: FileState, now: FileState) -> bool:
    times = (before.size, before.modified_ns, before.changed_ns)
    return times == (now.size, now.modified_ns, now.changed_ns) and max(times[1:]) < before.read_ns - _RACY_NS
