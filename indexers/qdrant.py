"""A mirror of one collection in Qdrant, on a server or cluster or embedded, brought up to date from the store.

The store is the truth and the mirror holds nothing else: it may be dropped and made again at any time. A chunk keeps its row and
its document's fields for life, so bringing a mirror up to date means adding rows and deleting rows, and never changing one.
What the mirror holds is recorded in a point of its own, written after everything it speaks of: a kill at any moment leaves a
record that says too little, and the next run finds what it does not mention.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from indexers import store
from indexers.qdrant_fields import paths, payload
from indexers.qdrant_points import GENERATION, ROW, Payload, Point, Points, Rows, Shape, between
from indexers.qdrant_terms import Bm25Terms, TermWeights
from indexers.snapshot import Snapshot
from rag.errors import SnapshotMismatch, StorageError
from rag.settings import Settings
from rag.types import OnProgress, Progress, no_progress

FORMAT = 1
DISTANCE = "dot"
# The id of the record: above every row, and the largest number that all JSON readers keep exact.
RECORD = (1 << 53) - 1
_RECORD_KEY = "thriftrag"
# Points sent at a time, so that a request stays far below the 32 MB that servers take.
_POINTS = 256
_NUMBERS = 400_000
# Rows whose ids are read instead of being counted in halves.
_LEAF = 4096
# Fields with an index of their own. More are possible, and filter more slowly.
_INDEXED = 200
_LISTED = 5
_FORGET = "Run `thriftrag collections rebuild`: the mirror is made again from the store."


@dataclass(frozen=True, slots=True)
class Held:
    """What a mirror holds: all live rows up to `top` as of `generation`. `paths`: every field that some point may have."""

    collection: str
    encoder: str
    weights: str
    generation: int = -1
    top: int = -1
    paths: tuple[str, ...] = ()
    format: int = FORMAT

    def to_payload(self) -> Payload:
        return {_RECORD_KEY: {**asdict(self), "paths": list(self.paths)}}

    def same_origin(self, other: Held) -> bool:
        return (self.collection, self.encoder, self.weights) == (other.collection, other.encoder, other.weights)


def open_mirror(folder: Path, *, settings: Settings, name: str, dimension: int, weights: TermWeights | None = None) -> Mirror:
    """The mirror of the collection in `folder`: a shard inside the folder, or at `qdrant_url` a collection called after `name`
    and the collection's own id, so that two never share one. Nothing is asked of Qdrant yet.

    Raises:
        CollectionMissing: there is no collection in `folder`.
        ConfigError: the extra is not installed, or `qdrant_url` is no URL.
    """
    with closing(store.connect(folder)) as db:
        full = f"thriftrag-{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:100]}-{store.meta(db)['collection']}"
    points: Points
    if settings.qdrant_url:
        from indexers.qdrant_server import connect

        points = connect(settings, name=full)
    else:
        from indexers.qdrant_edge import EdgePoints

        points = EdgePoints(folder, settings=settings, name=full)
    return Mirror(points, dimension=dimension, weights=weights or Bm25Terms())


def mirror_of(snapshot: Snapshot, *, settings: Settings) -> Mirror:
    """The mirror of a snapshot's collection."""
    return open_mirror(snapshot.folder, settings=settings, name=snapshot.folder.name, dimension=snapshot.dimension)


# One sync at a time for each mirror in this process; between processes the writer's lock and idempotence see to it.
_SYNCING: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


class Mirror:
    """Reads are safe from several threads, and while another thread syncs."""

    def __init__(self, points: Points, *, dimension: int, weights: TermWeights) -> None:
        self.points = points
        self.weights = weights
        self._dimension = dimension

    def held(self) -> Held | None:
        """None where nothing was mirrored yet.

        Raises:
            SnapshotMismatch: it was written by another format.
        """
        if self.points.shape() is None:
            return None
        record = (self.points.payload(RECORD) or {}).get(_RECORD_KEY)
        if not isinstance(record, dict):
            return None
        if record.get("format") != FORMAT:
            raise SnapshotMismatch(f"The Qdrant mirror {self.points.name!r} has format {record.get('format')}; this version reads "
                                   f"format {FORMAT}.", hint=_FORGET)
        known = {field.name for field in fields(Held)}
        return Held(**{name: value for name, value in record.items() if name in known} | {"paths": tuple(record["paths"])})

    def sync(self, snapshot: Snapshot, *, on_progress: OnProgress = no_progress) -> None:
        """Brings the mirror to exactly the snapshot's live rows, with work in proportion to what changed. May be killed and
        run again at any point. A mirror of the same collection by another encoder is made anew.

        Raises:
            SnapshotMismatch: the mirror belongs to another collection.
            UpstreamError, StorageError, Locked: see `indexers.qdrant_points.Points`.
        """
        with _SYNCING[self.points.name], self.points.patient():
            held = self._prepared(snapshot)
            live, generation = snapshot.rows(), int(snapshot.meta["generation"])
            if held.generation == generation and self._holds(live):
                return
            trusted = held.top if -1 < held.generation < generation else -1
            held = self._repaired(snapshot, held, self._differences(live, trusted), on_progress)
            if not self._holds(live):  # what was trusted deserved none: compare everything
                held = self._repaired(snapshot, held, self._differences(live, -1), on_progress)
                if not self._holds(live):
                    raise StorageError(f"The Qdrant mirror {self.points.name!r} does not keep what it is sent.", hint=_FORGET)
            self._record(replace(held, generation=generation, top=int(live[-1]) if len(live) else -1))
            on_progress(Progress("mirror", len(live), len(live), note="search graphs"))
            self.points.settle()

    def problems(self, snapshot: Snapshot) -> list[str]:
        """In what the mirror differs from the snapshot, by name; empty when it does not. Reads every id."""
        shape, name = self.points.shape(), f"Qdrant mirror {self.points.name!r}"
        if shape is None:
            return [f"{name}: is missing"]
        found = []
        if shape != Shape(snapshot.dimension, DISTANCE):
            found.append(f"{name}: holds vectors of dimension {shape.dimension} compared by {shape.distance}, "
                         f"not {snapshot.dimension} by {DISTANCE}")
        held = self.held()
        if held is None or not held.same_origin(self._origin(snapshot)):
            found.append(f"{name}: has no record of this collection and its encoder")
        elif held.generation != int(snapshot.meta["generation"]):
            found.append(f"{name}: is at generation {held.generation}, the store at {snapshot.meta['generation']}")
        missing, extra = self._compared(snapshot.rows(), 0, None)
        for rows, what in ((missing, "are missing"), (extra, "are no longer live")):
            if len(rows):
                found.append(f"{name}: {len(rows)} chunks {what}: rows {', '.join(map(str, rows[:_LISTED]))}"
                             f"{' ...' if len(rows) > _LISTED else ''}")
        return found

    def drop(self) -> None:
        """Removes the mirror; does nothing where there is none."""
        with _SYNCING[self.points.name], self.points.patient():
            self.points.drop()

    def close(self) -> None:
        self.points.close()

    def _origin(self, snapshot: Snapshot) -> Held:
        """The record of a mirror that holds nothing yet."""
        return Held(snapshot.meta["collection"], snapshot.meta["encoder"], self.weights.name)

    def _prepared(self, snapshot: Snapshot) -> Held:
        """What the mirror holds; created, or emptied where another encoder or other weights filled it."""
        self._check_dimension(snapshot.dimension, "collection")
        origin, shape, held = self._origin(snapshot), self.points.shape(), self.held()
        if held is not None and held.collection != origin.collection:
            raise SnapshotMismatch(f"The Qdrant collection {self.points.name!r} mirrors collection {held.collection}, not "
                                   f"{origin.collection}.", hint="Delete it on the server if nothing else uses it, or rename one.")
        if held is not None and not held.same_origin(origin):
            self.points.drop()
            shape = held = None
        if held is None and shape is not None and self.points.count({}):
            raise SnapshotMismatch(f"The Qdrant collection {self.points.name!r} exists and is no mirror of ours.",
                                   hint="Delete it on the server if nothing else uses it, or rename one.")
        if shape is None:
            self.points.create(self._dimension)
            self.points.index(ROW, "integer")
        elif shape != Shape(self._dimension, DISTANCE):
            self._check_dimension(shape.dimension, f"Qdrant mirror {self.points.name!r}")
            raise SnapshotMismatch(f"The Qdrant mirror {self.points.name!r} compares vectors by {shape.distance}, not {DISTANCE}.",
                                   hint=_FORGET)
        if held is None:
            self._record(origin)
        return held or origin

    def _check_dimension(self, found: int, where: str) -> None:
        if found != self._dimension:
            raise SnapshotMismatch(f"The {where} holds vectors of dimension {found}, not {self._dimension}.", hint=_FORGET)

    def _record(self, held: Held) -> None:
        self.points.upsert([Point(RECORD, held.to_payload())])

    def _holds(self, live: Rows) -> bool:
        return self.points.count(between(0, None)) == len(live)

    def _differences(self, live: Rows, trusted: int) -> tuple[Rows, Rows]:
        """Rows that are missing and rows that are too many. Up to `trusted` none are missing, so equal counts are equal rows."""
        missing, extra = self._compared(live, trusted + 1, None)
        found = [extra]
        ranges = [(0, trusted)] if trusted >= 0 else []
        while ranges:
            first, last = ranges.pop()
            if self.points.count(between(first, last)) == len(_within(live, first, last)):
                continue
            if last - first < _LEAF:
                found.append(self._compared(live, first, last)[1])
            else:
                middle = (first + last) // 2
                ranges += [(first, middle), (middle + 1, last)]
        return missing, np.concatenate(found)

    def _compared(self, live: Rows, first: int, last: int | None) -> tuple[Rows, Rows]:
        """Missing and extra rows from `first` to `last`, by their ids."""
        there, wanted = self.points.rows(between(first, last)), _within(live, first, last)
        return np.setdiff1d(wanted, there), np.setdiff1d(there, wanted)

    def _repaired(self, snapshot: Snapshot, held: Held, differences: tuple[Rows, Rows], on_progress: OnProgress) -> Held:
        missing, extra = differences
        self.points.delete(extra.tolist())
        average = _average_words(snapshot) if len(missing) else 1.0
        for done, rows in _batches(missing, max(16, min(_POINTS, _NUMBERS // self._dimension))):
            on_progress(Progress("mirror", done, len(missing)))
            points = self._points(snapshot, rows, average)
            held = self._learned(held, points)
            self.points.upsert(points)
        return held

    def _points(self, snapshot: Snapshot, rows: list[int], average: float) -> list[Point]:
        generation = int(snapshot.meta["generation"])
        chunks = snapshot.chunks(rows)
        texts = [store.passage_text(chunk.title, chunk.heading, chunk.text) for chunk in chunks]
        terms = self.weights.documents(texts, average=average)
        carried: dict[str, Payload] = {}        # by document: its chunks are neighbours
        for chunk, found in zip(chunks, snapshot.fields(rows), strict=True):
            if chunk.doc_id not in carried:
                carried[chunk.doc_id] = payload(found)
        return [Point(row, {ROW: row, GENERATION: generation, **carried[chunk.doc_id]}, vector, words if len(words.ids) else None)
                for row, chunk, vector, words in zip(rows, chunks, snapshot.vectors(rows), terms, strict=True)]

    def _learned(self, held: Held, points: Sequence[Point]) -> Held:
        """Records fields not met before, ahead of the points that have them, and gives them an index."""
        found = {path: kind for point in points for path, kind in paths(point.payload).items()}
        new = [path for path in found if path not in held.paths]
        if not new:
            return held
        for path in new[:max(0, _INDEXED - len(held.paths))]:
            self.points.index(path, found[path])
        held = replace(held, paths=(*held.paths, *new))
        self._record(held)
        return held


def _within(rows: Rows, first: int, last: int | None) -> Rows:
    return rows[np.searchsorted(rows, first):len(rows) if last is None else np.searchsorted(rows, last, side="right")]


def _batches(rows: Rows, size: int) -> Iterator[tuple[int, list[int]]]:
    for start in range(0, len(rows), size):
        yield start, rows[start:start + size].tolist()


def _average_words(snapshot: Snapshot) -> float:
    """Words of a live chunk that holds any, in the mean."""
    lengths = [segment.lexical.lengths[segment.kept] for segment in snapshot.segments]
    words, chunks = sum(int(found.sum(dtype=np.int64)) for found in lengths), sum(int(np.count_nonzero(found)) for found in lengths)
    return max(1.0, words / max(1, chunks))
