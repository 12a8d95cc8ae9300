"""Files to a published snapshot: load, chunk, encode, publish, a batch at a time.

A batch is published in one transaction, so a crash costs at most the batch in hand, and a rerun resumes: what is published
and unchanged is recognised by its hash and not encoded again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from indexers import store
from indexers.chunking import chunk, embedding_text
from indexers.encoders import Encoder, Vectors
from indexers.loaders import Found, discover, load, load_jsonl_lines
from indexers.loaders.discovery import printable
from indexers.snapshot import Snapshot
from indexers.writer import Indexed, Writer, writing
from rag.durable import sha256_of
from rag.errors import SnapshotMismatch
from rag.settings import Settings
from rag.types import Chunk, Document, FileFailure, IngestReport, OnProgress, Progress, no_progress

STDIN = "stdin"


@dataclass(slots=True)
class _Tally:
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    chunks: int = 0
    tokens: int = 0
    failures: list[FileFailure] = field(default_factory=list)
    interrupted: bool = False


def ingest(folder: Path, sources: Iterable[str | Path], *, encoder: Encoder, settings: Settings,
           lines: Iterable[str] | None = None, dry_run: bool = False, on_progress: OnProgress = no_progress,
           cancelled: Callable[[], bool] = lambda: False) -> IngestReport:
    """Brings the collection in `folder` up to date with `sources` (and JSONL `lines`). The collection must exist.

    A file that fails is reported in the result and skipped; the rest goes on. A dry run loads and chunks but writes nothing.

    Raises:
        SnapshotMismatch: the collection was written by another encoder.
        Locked: another process is writing.
        StorageError: the disk refused; what was published before stays.
    """
    started = time.monotonic()
    tally = _Tally()
    with writing(folder) as writer:
        run = _Run(writer=writer, encoder=encoder, settings=settings, tally=tally, dry_run=dry_run, on_progress=on_progress,
                   chunk_tokens=check_encoder(folder, encoder))
        inputs = list(discover(sources, settings=settings))
        for done, item in enumerate(inputs):
            on_progress(Progress("files", done, len(inputs), unit="files", note=item.source))
            if cancelled():
                tally.interrupted = True
                break
            run.take(item)
        if lines is not None and not tally.interrupted:
            run.take_lines(lines, cancelled)
        on_progress(Progress("files", len(inputs), len(inputs), unit="files"))
        run.flush(last=True)
    snapshot = Snapshot(folder)
    try:
        return IngestReport(added=tally.added, changed=tally.changed, unchanged=tally.unchanged, chunks=tally.chunks,
                            tokens=tally.tokens, seconds=time.monotonic() - started, failures=tuple(tally.failures),
                            snapshot=snapshot.id, dry_run=dry_run, interrupted=tally.interrupted)
    finally:
        snapshot.close()


def rebuild(folder: Path, *, encoder: Encoder, on_progress: OnProgress = no_progress) -> None:
    """Makes every index again from the stored chunks, with `encoder`, which from then on is the collection's."""
    with writing(folder) as writer:
        writer.replace_indexes(_encoded(folder, encoder, on_progress), encoder=encoder.name, dimension=encoder.dimension)


def check_encoder(folder: Path, encoder: Encoder) -> int:
    """The collection's chunk size in tokens, once the encoder is known to be its own.

    Raises:
        SnapshotMismatch: states both encoders and the command that resolves it.
    """
    db = store.connect(folder)
    try:
        facts = store.meta(db)
    finally:
        db.close()
    if (facts["encoder"], int(facts["dimension"])) != (encoder.name, encoder.dimension):
        raise SnapshotMismatch(
            f"Collection {folder.name!r} was written by encoder {facts['encoder']} ({facts['dimension']} dimensions), and "
            f"{encoder.name} ({encoder.dimension} dimensions) is configured.",
            hint=f"Set `embedder` back, or run `thriftrag collections rebuild {folder.name}` to encode it again.")
    return int(facts["chunk_tokens"])


@dataclass(slots=True)
class _Run:
    """One ingestion: the batch in hand and the files that end with it."""

    writer: Writer
    encoder: Encoder
    settings: Settings
    tally: _Tally
    dry_run: bool
    on_progress: OnProgress
    chunk_tokens: int
    pending: list[tuple[Document, str, list[Chunk]]] = field(default_factory=list)
    finished: list[tuple[str, str]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def take(self, item: Found | FileFailure) -> None:
        if isinstance(item, FileFailure):
            self.tally.failures.append(item)
            return
        uri = printable(item.path)
        try:
            digest = sha256_of(item.path)
        except OSError as error:
            why = f"{item.source} cannot be read: {error.strerror}."
            self.tally.failures.append(FileFailure(item.source, "file_unreadable", why, "Check its permissions."))
            return
        known = self.writer.documents_of(uri)
        if known and self.writer.file_hash(uri) == digest:
            self.tally.unchanged += len(known)
            return
        failed = self._take_documents(load(item, settings=self.settings), uri, known)
        # A file with failures is read again next time, and what it no longer holds stays until it reads cleanly.
        if not failed:
            self.finished.append((uri, digest))
            self.gone.extend(known)

    def take_lines(self, lines: Iterable[str], cancelled: Callable[[], bool]) -> None:
        self._take_documents(load_jsonl_lines(_until(lines, cancelled), source=STDIN), STDIN, self.writer.documents_of(STDIN))
        self.tally.interrupted = cancelled()

    def flush(self, *, last: bool = False) -> None:
        """Encodes and publishes the batch in hand. Only in the `last` one is it known how many chunks there are in all."""
        chunks = [piece for _, _, pieces in self.pending for piece in pieces]
        if not self.dry_run and (self.pending or self.finished or self.gone):
            vectors = self._encode(chunks, last=last)
            ends = np.cumsum([len(pieces) for _, _, pieces in self.pending])
            batch = [Indexed(document, file, tuple(pieces), vectors[end - len(pieces):end])
                     for (document, file, pieces), end in zip(self.pending, ends, strict=True)]
            self.writer.publish(batch, finished=self.finished, gone=self.gone)
        self.tally.chunks += len(chunks)
        self.tally.tokens += sum(piece.tokens for piece in chunks)
        self.pending, self.finished, self.gone = [], [], []

    def _take_documents(self, documents: Iterator[Document | FileFailure], file: str, known: dict[str, str]) -> bool:
        """Queues what is new or changed, and takes what is still there out of `known`. Returns whether anything failed."""
        failed = False
        seen: set[str] = set()
        for document in documents:
            if not isinstance(document, FileFailure) and document.uri in seen:
                document = FileFailure(document.source, "document_duplicate", f"{document.source} occurs twice; the first is kept.",
                                       "Give each record its own id.")
            if isinstance(document, FileFailure):
                self.tally.failures.append(document)
                failed = True
                continue
            seen.add(document.uri)
            before = known.pop(document.uri, None)
            if before == document.content_hash:
                self.tally.unchanged += 1
                continue
            self._queue(document, file, is_new=before is None)
        return failed

    def _queue(self, document: Document, file: str, *, is_new: bool) -> None:
        own = self._with_free_id(document)
        pieces = chunk(own, max_tokens=min(self.chunk_tokens, self.encoder.max_tokens), count=self.encoder.count,
                       offsets=self.encoder.offsets)
        if not pieces:
            self.tally.failures.append(FileFailure(own.source, "file_empty", f"{own.source} holds no text.", "Leave it out."))
            return
        self.pending.append((own, file, pieces))
        if is_new:
            self.tally.added += 1
        else:
            self.tally.changed += 1
        if sum(len(queued) for _, _, queued in self.pending) >= self.settings.batch_chunks:
            self.flush()

    def _with_free_id(self, document: Document) -> Document:
        """Two sources may give records the same id. The first keeps it; the other's is qualified, never overwritten."""
        taken = {queued.id: queued.uri for queued, _, _ in self.pending}
        owner = taken.get(document.id) or self.writer.owner(document.id)
        if owner is None or owner == document.uri:
            return document
        return replace(document, id=f"{document.id}@{sha256(document.uri.encode()).hexdigest()[:8]}")

    def _encode(self, chunks: list[Chunk], *, last: bool) -> Vectors:
        # Equal passages are encoded once: boilerplate repeats, and every pass costs.
        texts = [embedding_text(piece) for piece in chunks]
        unique = list(dict.fromkeys(texts))
        at = {text: i for i, text in enumerate(unique)}
        before = self.tally.chunks
        total = before + len(unique) if last else None
        vectors = self.encoder.encode(unique, on_batch=lambda done: self.on_progress(Progress("encode", before + done, total)))
        return vectors[[at[text] for text in texts]]


def _until(lines: Iterable[str], cancelled: Callable[[], bool]) -> Iterator[str]:
    for line in lines:
        if cancelled():
            return
        yield line


def _encoded(folder: Path, encoder: Encoder, on_progress: OnProgress) -> Iterator[tuple[list[Chunk], Vectors]]:
    snapshot = Snapshot(folder, indexes=False)
    try:
        done = 0
        for chunks in snapshot.all_chunks():
            yield chunks, encoder.encode([embedding_text(piece) for piece in chunks])
            done += len(chunks)
            on_progress(Progress("encode", done, snapshot.size))
    finally:
        snapshot.close()
