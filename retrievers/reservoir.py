"""The memory knowledge reservoir: what the knowledge filter kept of what past answers read (ERM4's second module; Shi et al. 2024,
arXiv 2407.10670). One SQLite file (WAL) in the folder of the collection, so that it goes when the collection goes; any number of
threads and processes may use it.

It holds no text that is ever shown to a reader: knowledge names a chunk by row, id and content hash, and its words are read from
the open snapshot when they are needed. A chunk that was changed or deleted is in no snapshot any more, so it cannot be served; what
was remembered of it is forgotten when that is noticed. Answers are kept as text, for the very snapshot that they were given from.

    questions      what was asked: vector, when, and `below`, the row that the next chunk got after this snapshot
    knowledge      one kept chunk: title and its vector, vectors of its sentences, `below` as of its latest question
    answers        text and citations, for one scope of everything that an answer depends on
    observations   cases that were checked: what the trigger saw, and whether memory was right
    models         what the trigger was fitted to

A scope is a hash of all that two questions must share to share memory (`rag.recall`). Entries end by time and by least recent use.
The file is a convenience, never the truth: what is damaged or of an older format is set aside or left out and begun anew; each
record carries a checksum; a file that belongs to another tenant or collection is emptied before anything is read.

Time is the clock of the machine, which may jump: it never runs backward here, and if the newest entry lies more than a day ahead
of the clock no entry can be dated, so all are forgotten.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from indexers.embedding_file import HALF, Halves, Kind, Newer, connect, identity, sealed, trouble_of, unsealed

T = TypeVar("T")
FILE = "reservoir.sqlite"
FORMAT = 1
DAY = 86_400.0
# Cases that are kept, the newest of each kind.
CASES = 20_000
_BATCH = 500
_TABLES = ("questions", "knowledge", "answers")
_KEPT = ("id INTEGER PRIMARY KEY AUTOINCREMENT, scope TEXT NOT NULL, {}, record BLOB NOT NULL, created REAL NOT NULL, "
         "used REAL NOT NULL, expires REAL NOT NULL, hits INTEGER NOT NULL DEFAULT 0")
_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    f"CREATE TABLE questions ({_KEPT.format('question TEXT NOT NULL')}, UNIQUE (scope, question))",
    f"CREATE TABLE knowledge ({_KEPT.format('chunk TEXT NOT NULL')}, UNIQUE (scope, chunk))",
    f"CREATE TABLE answers ({_KEPT.format('question TEXT NOT NULL')}, UNIQUE (scope, question))",
    *(f"CREATE INDEX {table}_by_use ON {table} (used)" for table in _TABLES),
    "CREATE TABLE observations (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, at REAL NOT NULL, about TEXT NOT NULL, "
    "seen TEXT NOT NULL, correct INTEGER NOT NULL)",
    "CREATE TABLE models (kind TEXT PRIMARY KEY, model TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID",
)
RESERVOIR = Kind("a reservoir", 0x54527276, FORMAT, _SCHEMA)
_log = logging.getLogger(__name__)
# What SQLite returns is typed by the schema, which no checker reads.
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """One chunk that was worth keeping. `sentences`: unit vectors, one a sentence; `below`: see the module."""

    chunk_id: str
    row: int
    content_hash: str
    title: str
    below: int
    sentences: Halves
    title_vector: Halves


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that was answered from the index. `naive_tokens`, `passes` and `seconds`: what finding its candidates took."""

    question: str
    vector: Halves
    below: int
    naive_tokens: int
    passes: int
    seconds: float
    knowledge: tuple[str, ...]      # chunk ids


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry of any table with its number and dates, as `list` shows it."""

    number: int
    scope: str
    name: str                       # the question, or the chunk's id
    created: float
    used: float
    expires: float
    hits: int

    def to_dict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Case:
    """A decision of memory that was checked: what it was about, what the trigger saw, and whether memory was right."""

    about: str
    values: tuple[float, ...]
    right: bool


class Reservoir:
    """The open file. No method raises for what is wrong with it or with the disk: nothing is remembered then, with one warning."""

    def __init__(self, path: Path, *, owner: str, limit: int, days: float, clock: Callable[[], float] = time.time) -> None:
        """`owner`: tenant and collection. `limit`: entries of each table at most. `days`: how long an entry lives."""
        self.path = path
        self._owner = owner
        self._limit = limit
        self._life = days * DAY
        self._clock = clock
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._warned: set[str] = set()
        self.opened = 0         # files so far: numbers of one mean nothing in the next
        with self._lock:
            self._db = self._open()

    def close(self) -> None:
        with self._lock:
            self._let_go()

    @property
    def usable(self) -> bool:
        return self._db is not None

    def since(self, table: str, scope: str, *, after: int) -> list[int]:
        """Numbers of the live entries of a scope that came after this number, ascending. Numbers are never given twice."""
        none: list[int] = []
        return self._read(lambda db: [row[0] for row in db.execute(
            f"SELECT id FROM {table} WHERE id > ? AND scope = ? AND expires > ? ORDER BY id", (after, scope, self._now(db)))],
            otherwise=none)

    def knowledge(self, numbers: Sequence[int]) -> dict[int, Knowledge]:
        """Those of these that are there and sound."""
        return {number: found for number, key, record in self._records("knowledge", numbers)
                if (found := _knowledge(key, record)) is not None}

    def questions(self, numbers: Sequence[int]) -> dict[int, Asked]:
        return {number: found for number, key, record in self._records("questions", numbers)
                if (found := _asked(key, record)) is not None}

    def answer(self, scope: str, question: str) -> Mapping[str, object] | None:
        """What was kept as the answer to this very text, if it is live and sound."""
        def work(db: sqlite3.Connection) -> Mapping[str, object] | None:
            row = db.execute("SELECT record FROM answers WHERE scope = ? AND question = ? AND expires > ?",
                             (scope, question, self._now(db))).fetchone()
            data = None if row is None else unsealed(f"{scope} {question}".encode(), row[0])
            return None if data is None else dict(json.loads(data))
        return self._read(work, otherwise=None)

    def remember(self, scope: str, asked: Asked, knowledge: Sequence[Knowledge], *,
                 answers: Mapping[str, Mapping[str, object]] | None = None) -> None:
        """Keeps a question with what was read for it, in one transaction; `answers` by their own scopes."""
        rows = [("knowledge", scope, each.chunk_id,
                 _packed(scope, each.chunk_id, _facts(each), [each.title_vector[None], each.sentences])) for each in knowledge]
        rows.append(("questions", scope, asked.question,
                     _packed(scope, asked.question, _told(asked), [asked.vector[None]])))
        for own, answer in (answers or {}).items():
            key = f"{own} {asked.question}".encode()
            rows.append(("answers", own, asked.question, sealed(key, json.dumps(answer).encode())))

        def work(db: sqlite3.Connection) -> None:
            now = self._now(db)
            for table, of, name, record in rows:
                column = "chunk" if table == "knowledge" else "question"
                # A new number for what was told anew: whoever has the old one in memory drops it.
                db.execute(f"DELETE FROM {table} WHERE scope = ? AND {column} = ?", (of, name))
                db.execute(f"INSERT INTO {table} (scope, {column}, record, created, used, expires) VALUES (?, ?, ?, ?, ?, ?)",
                           (of, name, record, now, now, now + self._life))
            self._date(db, now)
            for table in _TABLES:
                self._bound(db, table)
        self._write(work)

    def used(self, table: str, numbers: Sequence[int]) -> None:
        """Notes that these served."""
        def work(db: sqlite3.Connection) -> None:
            now = self._now(db)
            db.executemany(f"UPDATE {table} SET used = ?, hits = hits + 1 WHERE id = ?", [(now, number) for number in numbers])
            self._date(db, now)
        self._write(work)

    def served(self, scope: str, question: str) -> None:
        """Notes that this answer was repeated."""
        def work(db: sqlite3.Connection) -> None:
            now = self._now(db)
            db.execute("UPDATE answers SET used = ?, hits = hits + 1 WHERE scope = ? AND question = ?", (now, scope, question))
            self._date(db, now)
        self._write(work)

    def forget(self, table: str, numbers: Sequence[int]) -> None:
        self._write(lambda db: db.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number in numbers]))

    def observe(self, kind: str, case: Case) -> None:
        """Keeps one case that was checked. What it is about is kept as a hash."""
        def work(db: sqlite3.Connection) -> None:
            about = hashlib.sha256(case.about.encode("utf-8", "surrogatepass")).hexdigest()[:16]
            db.execute("INSERT INTO observations (kind, at, about, seen, correct) VALUES (?, ?, ?, ?, ?)",
                       (kind, self._now(db), about, json.dumps([round(value, 6) for value in case.values]), int(case.right)))
            db.execute("DELETE FROM observations WHERE kind = ? AND id <= (SELECT max(id) FROM observations) - ?", (kind, CASES))
        self._write(work)

    def observations(self, kind: str) -> list[Case]:
        """All cases of a kind, oldest first; those that cannot be read are left out."""
        none: list[Row] = []
        found: list[Case] = []
        for about, seen, correct in self._read(lambda db: db.execute(
                "SELECT about, seen, correct FROM observations WHERE kind = ? ORDER BY id", (kind,)).fetchall(), otherwise=none):
            with contextlib.suppress(ValueError, TypeError):
                found.append(Case(str(about), tuple(float(value) for value in json.loads(seen)), bool(correct)))
        return found

    def fit(self, kind: str, model: Mapping[str, object] | None) -> None:
        """Keeps what the trigger was fitted to, in place of what was there; None forgets it."""
        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM models WHERE kind = ?", (kind,))
            if model is not None:
                db.execute("INSERT INTO models VALUES (?, ?, ?)", (kind, json.dumps(model), self._now(db)))
        self._write(work)

    def fitted(self, kind: str) -> Mapping[str, object] | None:
        row = self._read(lambda db: db.execute("SELECT model FROM models WHERE kind = ?", (kind,)).fetchone(), otherwise=None)
        try:
            return None if row is None else dict(json.loads(row[0]))
        except (ValueError, TypeError):
            return None

    def listed(self, table: str, *, limit: int | None = None) -> list[Kept]:
        """Live entries, the latest used first."""
        column = "chunk" if table == "knowledge" else "question"
        none: list[Kept] = []
        return self._read(lambda db: [Kept(*row) for row in db.execute(
            f"SELECT id, scope, {column}, created, used, expires, hits FROM {table} WHERE expires > ? "
            "ORDER BY used DESC, id DESC LIMIT ?",
            (self._now(db), -1 if limit is None else limit))], otherwise=none)

    def counts(self) -> dict[str, int]:
        """Entries and hits of each table, and cases."""
        def work(db: sqlite3.Connection) -> dict[str, int]:
            found: dict[str, int] = {}
            for table in _TABLES:
                count, hits = db.execute(f"SELECT count(*), coalesce(sum(hits), 0) FROM {table}").fetchone()
                found |= {table: count, f"{table}_hits": hits}
            found["observations"] = db.execute("SELECT count(*) FROM observations").fetchone()[0]
            return found
        return self._read(work, otherwise={})

    def prune(self) -> int:
        """Forgets what has ended and gives space back to the disk. Returns how many entries went."""
        def work(db: sqlite3.Connection) -> int:
            now = self._now(db)
            return sum(db.execute(f"DELETE FROM {table} WHERE expires <= ?", (now,)).rowcount for table in _TABLES)
        gone = self._write(work) or 0
        self._read(lambda db: db.executescript("PRAGMA incremental_vacuum"), otherwise=None)
        return gone

    def clear(self, *, cases: bool = False) -> int:
        """Forgets everything, cases and what was fitted to them only if asked. Returns how many entries went."""
        def work(db: sqlite3.Connection) -> int:
            gone = sum(db.execute(f"DELETE FROM {table}").rowcount for table in _TABLES)
            for table in ("observations", "models") if cases else ():
                db.execute(f"DELETE FROM {table}")
            return gone
        gone = self._write(work) or 0
        self._read(lambda db: db.executescript("PRAGMA incremental_vacuum"), otherwise=None)
        return gone

    def _records(self, table: str, numbers: Sequence[int]) -> list[tuple[int, str, dict[str, object]]]:
        """Number, name and contents of those that are there, live and sound; damaged ones are forgotten."""
        column = "chunk" if table == "knowledge" else "question"
        found: list[tuple[int, str, dict[str, object]]] = []
        broken: list[int] = []
        for start in range(0, len(numbers), _BATCH):
            for number, scope, name, record in self._rows(table, column, numbers[start:start + _BATCH]):
                unpacked = _unpacked(str(scope), str(name), record)
                if unpacked is None:
                    broken.append(number)
                else:
                    found.append((number, str(name), unpacked))
        if broken:
            self.forget(table, broken)
        return found

    def _rows(self, table: str, column: str, numbers: Sequence[int]) -> list[Row]:
        none: list[Row] = []
        return self._read(lambda db: db.execute(
            f"SELECT id, scope, {column}, record FROM {table} WHERE id IN ({','.join('?' * len(numbers))}) AND expires > ?",
            (*numbers, self._now(db))).fetchall(), otherwise=none)

    def _bound(self, db: sqlite3.Connection, table: str) -> None:
        """Drops what ended, then an eighth of the least recently used where there are too many."""
        (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
        if count > self._limit:
            db.execute(f"DELETE FROM {table} WHERE expires <= ?", (self._now(db),))
            (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
            over = max(0, count - self._limit)
            if over:
                db.execute(f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY used, id LIMIT ?)",
                           (max(over, self._limit // 8) if self._limit > 8 else over,))

    def _now(self, db: sqlite3.Connection) -> float:
        row = db.execute("SELECT value FROM meta WHERE key = 'latest'").fetchone()
        latest = float(row[0]) if row is not None else 0.0
        return max(self._clock(), latest)

    def _date(self, db: sqlite3.Connection, now: float) -> None:
        db.execute("INSERT OR REPLACE INTO meta VALUES ('latest', ?)", (repr(now),))

    def _read(self, work: Callable[[sqlite3.Connection], T], *, otherwise: T) -> T:
        with self._lock:
            if self._db is None:
                return otherwise
            try:
                return work(self._db)
            except (sqlite3.Error, ValueError) as error:
                self._recover(error)
                return otherwise

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """`work` as one transaction; None where the file or the disk refused."""
        with self._lock:
            if self._db is None:
                return None
            try:
                self._db.execute("BEGIN IMMEDIATE")
                done = work(self._db)
                self._db.execute("COMMIT")
                return done
            except (sqlite3.Error, ValueError) as error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.rollback()
                self._recover(error)
                return None

    def _open(self) -> sqlite3.Connection | None:
        """The connection, with what is no longer ours or cannot be dated forgotten; None where nothing can be remembered."""
        for attempt in (1, 2):
            try:
                db = connect(self.path, RESERVOIR)
                db.text_factory = str
                self.opened += 1
                self._file = identity(self.path)
                self._own(db)
                return db
            except Newer as error:
                self._warn("newer", f"The reservoir {self.path} is of a newer version ({error}): nothing is remembered.")
                return None
            except (sqlite3.Error, ValueError) as error:
                trouble = trouble_of(error) if isinstance(error, sqlite3.Error) else "damaged"
                if trouble != "damaged" or attempt == 2:
                    self._warn(trouble, f"The reservoir {self.path} cannot be used ({error}): nothing is remembered.")
                    return None
                self._file = identity(self.path)
                self._set_aside(str(error))
        return None

    def _own(self, db: sqlite3.Connection) -> None:
        """Empties what another tenant or collection remembered, and what lies in the future."""
        db.execute("BEGIN IMMEDIATE")
        owner = db.execute("SELECT value FROM meta WHERE key = 'owner'").fetchone()
        latest = db.execute("SELECT value FROM meta WHERE key = 'latest'").fetchone()
        ahead = latest is not None and float(latest[0]) > self._clock() + DAY
        foreign = owner is not None and owner[0] != self._owner
        if foreign or ahead:
            for table in (*_TABLES, *(("observations", "models") if foreign else ())):
                db.execute(f"DELETE FROM {table}")
            db.execute("DELETE FROM meta")
            why = "belongs to another tenant or collection" if foreign else "was written while the clock was ahead"
            _log.warning("The reservoir %s %s: it was emptied.", self.path, why)
        db.execute("INSERT OR REPLACE INTO meta VALUES ('owner', ?)", (self._owner,))
        db.execute("COMMIT")

    def _recover(self, error: Exception) -> None:
        trouble = trouble_of(error) if isinstance(error, sqlite3.Error) else "damaged"
        if trouble == "busy":
            self._warn(trouble, f"The reservoir {self.path} stays busy: some answers are not remembered.")
        elif trouble == "refused":
            self._warn(trouble, f"The reservoir {self.path} cannot be written ({error}): answers are not remembered.")
        else:
            self._let_go()
            self._set_aside(str(error))
            self._db = self._open()

    def _set_aside(self, why: str) -> None:
        """Renames the file, unless another process did so already and began a new one."""
        if identity(self.path) != self._file:
            return
        damaged = self.path.with_name(self.path.name + ".damaged")
        try:
            for companion in ("-wal", "-shm"):
                self.path.with_name(self.path.name + companion).unlink(missing_ok=True)
            os.replace(self.path, damaged)
        except OSError as error:
            why = f"{why}; {error}"
        self._warn("damaged", f"The reservoir {self.path} cannot be read ({why}): it was set aside as {damaged.name}, "
                              "and a new one begun.")

    def _let_go(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning(message)


def _facts(each: Knowledge) -> dict[str, object]:
    return {"row": each.row, "content_hash": each.content_hash, "title": each.title, "below": each.below}


def _told(asked: Asked) -> dict[str, object]:
    return {"below": asked.below, "naive_tokens": asked.naive_tokens, "passes": asked.passes, "seconds": round(asked.seconds, 6),
            "knowledge": list(asked.knowledge)}


def _knowledge(name: str, record: Mapping[str, object]) -> Knowledge | None:
    title, sentences = _vectors(record)
    return Knowledge(chunk_id=name, row=_whole(record["row"]), content_hash=str(record["content_hash"]), title=str(record["title"]),
                     below=_whole(record["below"]), sentences=sentences, title_vector=title[0])


def _asked(name: str, record: Mapping[str, object]) -> Asked | None:
    (vector,) = _vectors(record)
    chunks = record["knowledge"]
    return Asked(question=name, vector=vector[0], below=_whole(record["below"]), naive_tokens=_whole(record["naive_tokens"]),
                 passes=_whole(record["passes"]), seconds=float(str(record["seconds"])),
                 knowledge=tuple(map(str, chunks)) if isinstance(chunks, list) else ())


def _whole(value: object) -> int:
    return int(str(value))


def _vectors(record: Mapping[str, object]) -> list[Halves]:
    found = record["vectors"]
    assert isinstance(found, list)  # what `_unpacked` put there
    return found


def _packed(scope: str, name: str, facts: Mapping[str, object], vectors: Sequence[NDArray[np.floating]]) -> bytes:
    """Facts as JSON on one line, then the arrays, under one checksum with scope and name."""
    shapes = [list(each.shape) for each in vectors]
    head = json.dumps({**facts, "shapes": shapes}).encode()
    body = b"".join(each.astype(HALF).tobytes() for each in vectors)
    return sealed(f"{scope} {name}".encode("utf-8", "surrogatepass"), head + b"\n" + body)


def _unpacked(scope: str, name: str, record: object) -> dict[str, object] | None:
    """What was packed under this scope and name; None where that is not it."""
    data = unsealed(f"{scope} {name}".encode("utf-8", "surrogatepass"), record)
    if data is None:
        return None
    head, _, body = data.partition(b"\n")
    found = dict(json.loads(head))
    vectors, at = [], 0
    for rows, columns in found.pop("shapes"):
        size = rows * columns * HALF.itemsize
        vectors.append(np.frombuffer(body[at:at + size], HALF).reshape(rows, columns))
        at += size
    return {**found, "vectors": vectors}
