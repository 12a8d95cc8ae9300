"""Files to a published snapshot: load, chunk, encode, publish, a batch at a time, each stage ahead of the next.

A batch is published in one transaction, so a crash costs at most the batches under way, and a rerun resumes: what is
published and unchanged is recognised and not read again, and what was encoded but not published comes from the embedding
cache. Queues between the stages are bounded, so memory does not grow with the work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from indexers import store
from indexers.chunking import embedding_text
from indexers.embedding_cache import CachedEncoder
from indexers.encoders import Encoder, Padding, Vectors, padding_of, term_weights
from indexers.impacts import Weighed
from indexers.intake import Batch, Intake
from indexers.known import Known
from indexers.loaders import Found, discover, load_jsonl_lines
from indexers.loaders.discovery import printable
from indexers.parsing import InProcess, Parsing
from indexers.segments import IndexOptions
from indexers.stages import Behind, ahead
from indexers.writer import Indexed, Writer, writing
from rag.errors import SnapshotMismatch
from rag.settings import Settings
from rag.types import Document, FileFailure, IngestReport, OnProgress, Progress, no_progress

STDIN = "stdin"
# Batches that wait between two stages.
_DEPTH = 2


def ingest(folder: Path, sources: Iterable[str | Path], *, encoder: Encoder, settings: Settings, parsing: Parsing | None = None,
           lines: Iterable[str] | None = None, prune: bool = False, vanished: Sequence[str] = (), dry_run: bool = False,
           on_progress: OnProgress = no_progress, cancelled: Callable[[], bool] = lambda: False) -> IngestReport:
    """Brings the collection in `folder` up to date with `sources` (and JSONL `lines`). The collection must exist.

    A file that fails is reported in the result and skipped; the rest goes on. `parsing`: how files become documents, in this
    process if None. `prune`: documents whose file is gone from a folder among the sources are forgotten; so are those at or
    below paths in `vanished` in any case. A dry run loads and chunks but writes nothing.

    Raises:
        SnapshotMismatch: the collection was written by another encoder.
        Locked: another process is writing.
        StorageError: the disk refused; what was published before stays.
    """
    started = time.monotonic()
    named = [str(source) for source in sources]
    with writing(folder, options=index_options(settings)) as writer, closing(Known(folder)) as known:
        found = list(discover(named, settings=settings))
        its = check_encoder(folder, encoder)
        intake = Intake(known, encoder=encoder, parsing=parsing or InProcess(settings), on_progress=on_progress,
                        cancelled=cancelled, chunk_tokens=its.chunk_tokens, batch_chunks=settings.batch_chunks)
        intake.note(item for item in found if isinstance(item, FileFailure))
        batches = intake.batches([item for item in found if isinstance(item, Found)], _records(lines, cancelled), stdin=STDIN)
        run = _Run(writer, encoder, intake, on_progress, with_terms=bool(its.terms))
        if dry_run:
            run.count(batches)
        else:
            run.publish(batches)
        missing = _missing(known, named)
        forgotten = [*(missing if prune else ()), *_gone(known, vanished)]
        removed = 0
        if forgotten and not dry_run and not intake.tally.interrupted:
            removed = writer.forget_files(forgotten)
    return _report(folder, run, seconds=time.monotonic() - started, dry_run=dry_run, removed=removed,
                   gone=0 if prune else len(missing))


def rebuild(folder: Path, *, encoder: Encoder, settings: Settings, on_progress: OnProgress = no_progress) -> None:
    """Makes every index again from the stored chunks, with `encoder`, which from then on is the collection's. A collection of
    an older format is brought to the newest on the way."""
    name = terms_of(encoder, settings=settings)
    with writing(folder, options=index_options(settings), migrate=True) as writer:
        writer.rebuild(lambda texts: term_weights.encoded(encoder, texts, wanted=bool(name)), encoder=encoder.name,
                       dimension=encoder.dimension, terms=name, on_progress=on_progress)


def create(folder: Path, *, encoder: Encoder, settings: Settings) -> None:
    """An empty collection for this encoder; does nothing where one exists."""
    store.create(folder, encoder=encoder.name, dimension=encoder.dimension, chunk_tokens=settings.chunk_tokens,
                 terms=terms_of(encoder, settings=settings))


def terms_of(encoder: Encoder, *, settings: Settings) -> str:
    """Name of the term weights that a collection made with this encoder gets, "" for none."""
    weighing = term_weights.of(encoder) if settings.sparse == "auto" else None
    return weighing.terms.name if weighing else ""


def index_options(settings: Settings) -> IndexOptions:
    return IndexOptions(kind=settings.index, lucene=settings.lexical == "lucene")


@dataclass(frozen=True, slots=True)
class Made:
    """How a collection was made: the size of its chunks in tokens, and its term weights, "" for none."""

    chunk_tokens: int
    terms: str


def check_encoder(folder: Path, encoder: Encoder, *, to_write: bool = True) -> Made:
    """How the collection was made, once the encoder is known to be its own. `to_write`: it must also give the same term weights;
    to search without them dense vectors and words are left.

    Raises:
        SnapshotMismatch: states both encoders, or both term weights, and the command that resolves it.
    """
    with closing(store.connect(folder)) as db:
        facts = store.meta(db)
    again = f"run `thriftrag collections rebuild {folder.name}` to encode it again."
    if (facts["encoder"], int(facts["dimension"])) != (encoder.name, encoder.dimension):
        raise SnapshotMismatch(
            f"Collection {folder.name!r} was written by encoder {facts['encoder']} ({facts['dimension']} dimensions), and "
            f"{encoder.name} ({encoder.dimension} dimensions) is configured.", hint=f"Set `embedder` back, or {again}")
    made = Made(int(facts["chunk_tokens"]), facts.get("terms", ""))
    if to_write and made.terms:
        weighing = term_weights.of(encoder)
        found = weighing.terms.name if weighing else "none"
        if found != made.terms:
            raise SnapshotMismatch(f"Collection {folder.name!r} holds term weights of {made.terms}; the encoder gives {found}.",
                                   hint=again[0].upper() + again[1:])
    return made


@dataclass(slots=True)
class _Run:
    """One ingestion: batches from the intake, encoded here, published behind."""

    writer: Writer
    encoder: Encoder
    intake: Intake
    on_progress: OnProgress
    with_terms: bool
    added: int = 0
    changed: int = 0
    moved: int = 0
    chunks: int = 0
    tokens: int = 0
    padding: Padding = Padding()
    passages: tuple[int, int] = (0, 0)

    def count(self, batches: Iterator[Batch]) -> None:
        for batch in batches:
            self._add(batch)

    def publish(self, batches: Iterator[Batch]) -> None:
        padding, passages = padding_of(self.encoder), _passages(self.encoder)
        with ahead(batches, depth=_DEPTH) as ready, Behind(self._publish, depth=_DEPTH) as leaving:
            for batch in ready:
                if self.intake.stopped():
                    break
                encoded = self._encode([embedding_text(piece) for _, _, pieces in batch.documents for piece in pieces])
                self._add(batch)
                leaving.put((batch, *encoded))
        self.padding = padding_of(self.encoder) - padding
        fresh, recalled = _passages(self.encoder)
        self.passages = (fresh - passages[0], recalled - passages[1])

    def _add(self, batch: Batch) -> None:
        self.added += batch.added
        self.changed += batch.changed
        self.moved += batch.moved
        self.chunks += batch.chunks
        self.tokens += sum(piece.tokens for _, _, pieces in batch.documents for piece in pieces)

    def _publish(self, item: tuple[Batch, Vectors, Weighed | None]) -> None:
        batch, vectors, weighed = item
        ends = np.cumsum([len(pieces) for _, _, pieces in batch.documents]).tolist()
        indexed = [Indexed(document, file, tuple(pieces), vectors[end - len(pieces):end],
                           weighed.part(end - len(pieces), end) if weighed else None)
                   for (document, file, pieces), end in zip(batch.documents, ends, strict=True)]
        self.writer.publish(indexed, finished=batch.finished, gone=batch.gone)
        self.intake.published(batch)

    def _encode(self, texts: Sequence[str]) -> tuple[Vectors, Weighed | None]:
        # Equal passages are encoded once: boilerplate repeats, and every pass costs.
        unique = list(dict.fromkeys(texts))
        at = {text: i for i, text in enumerate(unique)}
        vectors, weighed = term_weights.encoded(
            self.encoder, unique, wanted=self.with_terms,
            on_batch=lambda done: self.on_progress(Progress("encode", self.chunks + done, note=self._saved())))
        places = [at[text] for text in texts]
        return vectors[places], replace(weighed, impacts=[weighed.impacts[place] for place in places]) if weighed else None

    def _saved(self) -> str:
        """What sorting by length spares the encoder, for the bar."""
        padding = padding_of(self.encoder)
        return f"padding {padding.share:.0%}, {padding.share_unsorted:.0%} unsorted" if padding.tokens else ""


def _passages(encoder: Encoder) -> tuple[int, int]:
    """Passages encoded and recalled so far, as far as the encoder counts them."""
    return (encoder.misses, encoder.hits) if isinstance(encoder, CachedEncoder) else (0, 0)


def _missing(known: Known, named: Sequence[str]) -> list[str]:
    """Files that documents came from, below the folders that are named, that are no longer there. A folder that is gone or
    empty may be a disk that is not mounted: everything below it counts as still there."""
    roots = [os.path.abspath(os.path.expanduser(path)) for path in named if path.strip()]
    return _gone(known, [root for root in roots if os.path.isdir(root) and os.listdir(root)])


def _gone(known: Known, paths: Iterable[str]) -> list[str]:
    return [uri for path in paths for uri in known.files_below(printable(path)) if not os.path.lexists(uri)]


def _records(lines: Iterable[str] | None, cancelled: Callable[[], bool]) -> Iterator[Document | FileFailure] | None:
    return None if lines is None else load_jsonl_lines(_until(lines, cancelled), source=STDIN)


def _until(lines: Iterable[str], cancelled: Callable[[], bool]) -> Iterator[str]:
    for line in lines:
        if cancelled():
            return
        yield line


def _report(folder: Path, run: _Run, *, seconds: float, dry_run: bool, removed: int, gone: int) -> IngestReport:
    tally = run.intake.tally
    with closing(store.connect(folder)) as db:
        facts = store.meta(db)
    return IngestReport(
        added=run.added, changed=run.changed, unchanged=tally.unchanged, moved=run.moved, removed=removed, gone=gone,
        chunks=run.chunks, tokens=run.tokens, encoded=run.passages[0], recalled=run.passages[1],
        padding=round(run.padding.share, 4), padding_unsorted=round(run.padding.share_unsorted, 4), seconds=seconds,
        failures=tuple(tally.failures), skipped=tuple(tally.skipped), snapshot=f"{facts['collection']}-{facts['generation']}",
        dry_run=dry_run, interrupted=tally.interrupted)
