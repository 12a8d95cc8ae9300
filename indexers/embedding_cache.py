"""Vectors and term weights of texts encoded before: an identical text is encoded once ever, across batches, runs, collections.

One SQLite file (WAL) that any number of processes may use at once. It is a convenience, never the truth: whatever is wrong
with it, ingestion goes on and encodes. A damaged or foreign file is set aside as NAME.damaged and a new one begun; where the
disk refuses, the cache is bypassed; either is logged once as a warning. Every vector carries a checksum over its key and
itself, so that a flipped bit is a miss and never a wrong vector.

    entries (key, place, used)       key: 16 bytes of sha256 over encoder name and precision, NUL and text
                                     used: the clock at the last use
    vectors (place, vector)          float16, little-endian, or packed term weights, and a crc32. Places are given in order:
                                     the largest is the clock

Eviction is by least recent use, an eighth of all entries at a time. A use is written down only when the last one on record is
old (an eighth of what the cache holds was added since) and then in bulk, so that reading hardly ever writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from indexers.embedding_file import HALF, Halves, Newer, clock, connect, identity, pragma, sealed, trouble_of, unsealed, used_bytes
from indexers.encoders import Encoder, Vectors, term_weights
from indexers.encoders.term_weights import TermModel, TermWeights
from indexers.impacts import NOTHING, Impacts, Query, Statistics, packed, unpacked
from rag.errors import ConfigError

T = TypeVar("T")
# Makes what is missing: keys, their texts, and who hears how many are done.
Fresh = Callable[[Sequence[bytes], Sequence[str], Callable[[int], None]], None]

SLICE = 512                 # texts encoded and stored at a time: what a kill can cost
_ASKED_AT_ONCE = 500
_NOTED_AT_ONCE = 4096       # uses remembered before they are written
_PER_ENTRY = 84             # bytes on disk beside the vector, measured
_TYPICAL_TERMS = 200        # bytes of the term weights of a passage, about
_LAST_PLACE = 1 << 60
_log = logging.getLogger(__name__)


def key_of(encoder: str, text: str) -> bytes:
    return hashlib.sha256(f"{encoder}\0{text}".encode("utf-8", "surrogatepass")).digest()[:16]


class EmbeddingCache:
    """The open file. Threads may share it. No method raises for what is wrong with the file or the disk."""

    def __init__(self, path: Path, *, limit_mb: int) -> None:
        if limit_mb < 1:
            raise ValueError(f"limit_mb is {limit_mb}; a cache of no size is left out, not made.")
        self.path = path
        self._limit = limit_mb * 1_000_000
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None       # device and inode of what `_db` has open
        self._uses: set[bytes] = set()
        self._warned: set[str] = set()
        with self._lock:
            self._db = self._open()

    def get_many(self, keys: Sequence[bytes], *, dimension: int) -> dict[bytes, Halves]:
        """The vectors that are there, by key; what is missing, damaged or of another dimension is left out."""
        size = dimension * HALF.itemsize
        return {key: np.frombuffer(data, HALF) for key, data in self.get_data(keys, typical=size).items() if len(data) == size}

    def get_data(self, keys: Sequence[bytes], *, typical: int) -> dict[bytes, bytes]:
        """What is there, by key; what is missing or damaged is left out. `typical`: bytes of one entry, about."""
        with self._lock:
            none: dict[bytes, bytes] = {}
            found = self._guarded(lambda db: self._found(db, keys, typical), otherwise=none)
            if len(self._uses) >= _NOTED_AT_ONCE:
                self._guarded(self._note_uses, otherwise=None)
            return found

    def put_many(self, keys: Sequence[bytes], vectors: Halves) -> None:
        """Stores row i of `vectors` (n, dimension) under key i, in place of what was there, in one transaction."""
        rows = vectors.astype(HALF, copy=False)
        self.put_data({key: row.tobytes() for key, row in zip(keys, rows, strict=True)})

    def put_data(self, data: Mapping[bytes, bytes]) -> None:
        """Stores each value under its key, in place of what was there, in one transaction."""
        blobs = {key: sealed(key, value) for key, value in data.items()}
        with self._lock:
            self._guarded(lambda db: self._store(db, blobs), otherwise=None)

    def close(self) -> None:
        """Writes down what is left to write. The object is of no use afterwards, but harmless."""
        with self._lock:
            if self._uses:
                self._guarded(self._note_uses, otherwise=None)
            self._let_go()

    def _found(self, db: sqlite3.Connection, keys: Sequence[bytes], typical: int) -> dict[bytes, bytes]:
        stale = clock(db) - self._limit // (typical + _PER_ENTRY) // 8
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _ASKED_AT_ONCE):
            asked = keys[start:start + _ASKED_AT_ONCE]
            rows = db.execute("SELECT key, vector, used < ? FROM entries JOIN vectors USING (place) "
                              f"WHERE key IN ({','.join('?' * len(asked))})", (stale, *asked)).fetchall()
            for key, blob, old in rows:
                value = unsealed(key, blob)
                if value is not None:
                    found[key] = value
                    if old:
                        self._uses.add(key)
        return found

    def _store(self, db: sqlite3.Connection, blobs: dict[bytes, bytes]) -> None:
        db.execute("BEGIN IMMEDIATE")
        self._write_uses(db)
        keys = list(blobs)
        for start in range(0, len(keys), _ASKED_AT_ONCE):
            asked = keys[start:start + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(asked))
            db.execute(f"DELETE FROM vectors WHERE place IN (SELECT place FROM entries WHERE key IN ({marks}))", asked)
        last = clock(db)
        if not 0 <= last < _LAST_PLACE:
            raise sqlite3.DatabaseError(f"the clock says {last}")
        db.executemany("INSERT INTO vectors VALUES (?, ?)", list(enumerate(blobs.values(), last + 1)))
        db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
                       [(key, place, place) for place, key in enumerate(keys, last + 1)])
        db.execute("COMMIT")
        while used_bytes(db) > self._limit and self._evict(db):
            pass

    def _evict(self, db: sqlite3.Connection) -> bool:
        """Drops the eighth that was not used for longest, and gives space back where the file is over the limit."""
        (count,) = db.execute("SELECT count(*) FROM entries").fetchone()
        oldest = "SELECT {} FROM entries ORDER BY used, place LIMIT ?"
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"DELETE FROM vectors WHERE place IN ({oldest.format('place')})", (-(-count // 8),))
        db.execute(f"DELETE FROM entries WHERE key IN ({oldest.format('key')})", (-(-count // 8),))
        db.execute("COMMIT")
        pages, free, page = (pragma(db, name) for name in ("page_count", "freelist_count", "page_size"))
        over = pages - self._limit // page
        if over > 0:
            db.executescript(f"PRAGMA incremental_vacuum({min(over, free)})")   # execute would take one step: a page
        return bool(count)

    def _note_uses(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        self._write_uses(db)
        db.execute("COMMIT")

    def _write_uses(self, db: sqlite3.Connection) -> None:
        now = clock(db)
        db.executemany("UPDATE entries SET used = ? WHERE key = ?", [(now, key) for key in self._uses])
        self._uses.clear()

    def _guarded(self, work: Callable[[sqlite3.Connection], T], *, otherwise: T) -> T:
        """What `work` gives; `otherwise` where the file or the disk fails it, after which the cache is mended or bypassed."""
        if self._db is None:
            return otherwise
        try:
            return work(self._db)
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.rollback()
            self._recover(error)
            return otherwise

    def _recover(self, error: sqlite3.Error) -> None:
        trouble = trouble_of(error)
        if trouble == "busy":
            self._warn(trouble, f"The embedding cache {self.path} stays busy: some vectors are not kept.")
        elif trouble == "refused":
            self._warn(trouble, f"The embedding cache {self.path} cannot be written ({error}): vectors are not kept.")
        else:
            self._set_aside(str(error))
            self._db = self._open()

    def _open(self) -> sqlite3.Connection | None:
        """The connection; None where the disk refuses even that, or where a newer version wrote the file."""
        for again in (True, False):
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                db = connect(self.path)
                self._file = identity(self.path)
                return db
            except (OSError, Newer) as error:
                self._warn("refused", f"The embedding cache {self.path} is not used: {error}.")
                return None
            except sqlite3.Error as error:
                if trouble_of(error) == "damaged" and again:
                    self._file = identity(self.path)
                    self._set_aside(str(error))
                    continue
                self._warn("refused", f"The embedding cache {self.path} is not used: {error}.")
                return None
        return None

    def _set_aside(self, why: str) -> None:
        """Renames the file, unless another process did so already and began a new one."""
        self._let_go()
        damaged = self.path.with_name(self.path.name + ".damaged")
        if identity(self.path) != self._file:
            return
        try:
            for companion in ("-wal", "-shm"):
                self.path.with_name(self.path.name + companion).unlink(missing_ok=True)
            os.replace(self.path, damaged)
        except OSError as error:
            why = f"{why}; {error}"
        self._warn("damaged", f"The embedding cache {self.path} is damaged ({why}): it was set aside as {damaged.name}.")

    def _let_go(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning(message)


class CachedEncoder:
    """An encoder that asks the cache first. Vectors are rounded to float16 whether they come from it or not; `hits` and
    `misses` count texts, of several equal ones in a call all but the first as hits."""

    def __init__(self, inner: Encoder, cache: EmbeddingCache) -> None:
        self.inner = inner
        self.name = inner.name
        self.dimension = inner.dimension
        self.max_tokens = inner.max_tokens
        self.hits = self.misses = 0
        # Vectors of one model in other arithmetic are close, but who asks for f32 shall get f32.
        self._kept_as = f"{inner.name} {getattr(inner, 'precision', '')}".rstrip()
        self._cache = cache
        self._lock = threading.Lock()

    def count(self, texts: Sequence[str]) -> list[int]:
        return self.inner.count(texts)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return self.inner.offsets(text)

    @property
    def terms(self) -> TermModel | None:
        weighing = term_weights.of(self.inner)
        return weighing.terms if weighing else None

    def query(self, text: str, *, statistics: Statistics | None = None) -> Query:
        return self._weighing().query(text, statistics=statistics)

    def encode(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> Vectors:
        """As the protocol says. What is missing is encoded in slices, each stored as soon as it is done."""
        keys = [key_of(self._kept_as, text) for text in texts]
        known = self._cache.get_many(list(dict.fromkeys(keys)), dimension=self.dimension)

        def fresh(some: Sequence[bytes], new: Sequence[str], heard: Callable[[int], None]) -> None:
            halves = self.inner.encode(new, on_batch=heard).astype(np.float16)
            self._cache.put_many(some, halves)
            known.update(zip(some, halves, strict=True))

        self._filled(keys, texts, known, fresh, on_batch)
        return np.array([known[key] for key in keys], np.float32).reshape(len(texts), self.dimension)

    def encode_with_terms(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None
                          ) -> tuple[Vectors, list[Impacts]]:
        """As `TermWeights` says; only where `terms` is not None. A text is recalled if both its vector and its weights are there;
        the weights are those that an index keeps of them."""
        weighing = self._weighing()
        vocabulary, scale = weighing.terms.size, weighing.terms.facts.scale
        keys = [key_of(self._kept_as, text) for text in texts]
        own = dict(zip(keys, (key_of(f"{weighing.terms.name} {self._kept_as}", text) for text in texts), strict=True))
        vectors = self._cache.get_many(list(own), dimension=self.dimension)
        packs = self._cache.get_data([own[key] for key in vectors], typical=_TYPICAL_TERMS)
        impacts = {key: found for key in vectors if own[key] in packs
                   and (found := unpacked(packs[own[key]], vocabulary=vocabulary, scale=scale)) is not None}

        def fresh(some: Sequence[bytes], new: Sequence[str], heard: Callable[[int], None]) -> None:
            encoded, found = weighing.encode_with_terms(new, on_batch=heard)
            halves = encoded.astype(np.float16)
            eight = {key: packed(one, vocabulary=vocabulary, scale=scale) for key, one in zip(some, found, strict=True)}
            self._cache.put_many(some, halves)
            self._cache.put_data({own[key]: data for key, data in eight.items()})
            vectors.update(zip(some, halves, strict=True))
            impacts.update({key: unpacked(data, vocabulary=vocabulary, scale=scale) or NOTHING for key, data in eight.items()})

        self._filled(keys, texts, impacts, fresh, on_batch)
        return (np.array([vectors[key] for key in keys], np.float32).reshape(len(texts), self.dimension),
                [impacts[key] for key in keys])

    def _filled(self, keys: Sequence[bytes], texts: Sequence[str], known: Mapping[bytes, object], fresh: Fresh,
                on_batch: Callable[[int], None] | None) -> None:
        """Has `fresh` make what is missing in `known`, in slices, and counts."""
        repeats = Counter(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        done = len(texts) - sum(repeats[key] for key in missing)
        self._counted(hits=len(texts) - len(missing))
        heard = on_batch or (lambda _: None)
        if done:
            heard(done)
        order = list(missing)
        for start in range(0, len(order), SLICE):
            part = order[start:start + SLICE]
            fresh(part, [missing[key] for key in part], _after(done, heard))
            self._counted(misses=len(part))
            done += sum(repeats[key] for key in part)
            heard(done)

    def _weighing(self) -> TermWeights:
        weighing = term_weights.of(self.inner)
        if weighing is None:
            raise ConfigError(f"Encoder {self.name} has no term weights.", field="encoder", code="no_term_weights",
                              hint="Search with another mode.")
        return weighing

    def _counted(self, *, hits: int = 0, misses: int = 0) -> None:
        with self._lock:
            self.hits += hits
            self.misses += misses


def _after(before: int, heard: Callable[[int], None]) -> Callable[[int], None]:
    return lambda done: heard(before + done)
