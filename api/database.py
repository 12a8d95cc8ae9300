"""What the server itself must remember, in one SQLite file beside the collections: keys, usage, limits in use, jobs, feedback.

Never document text. Several processes may open it (the workers of a server, `thriftrag keys`): WAL, short transactions.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rag.errors import SnapshotMismatch, StorageError

FILE = "service.sqlite"
FORMAT = 2
Cell = str | int | float | bytes | None
Row = dict[str, Cell]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, hash BLOB NOT NULL, scopes TEXT NOT NULL, tenant TEXT NOT NULL,
    collections TEXT NOT NULL, per_minute INTEGER NOT NULL, at_once INTEGER NOT NULL, tokens_per_day INTEGER NOT NULL,
    usd_per_day REAL NOT NULL, created TEXT NOT NULL, revoked TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (
    number INTEGER PRIMARY KEY, at TEXT NOT NULL, day TEXT NOT NULL, key TEXT NOT NULL, tenant TEXT NOT NULL,
    collection TEXT NOT NULL, model TEXT NOT NULL, endpoint TEXT NOT NULL, request TEXT NOT NULL, answer TEXT NOT NULL,
    outcome TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    saved_tokens INTEGER NOT NULL, llm_calls INTEGER NOT NULL, encoder_passes INTEGER NOT NULL, cost_usd REAL NOT NULL,
    seconds REAL NOT NULL);
CREATE INDEX IF NOT EXISTS usage_by_day ON usage (day, key);
CREATE INDEX IF NOT EXISTS usage_by_answer ON usage (answer) WHERE answer != '';
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, collection TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL,
    created TEXT NOT NULL, started TEXT, ended TEXT, files TEXT NOT NULL, report TEXT, error TEXT) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_time ON jobs (created);
CREATE TABLE IF NOT EXISTS feedback (
    id TEXT PRIMARY KEY, at TEXT NOT NULL, key TEXT NOT NULL, tenant TEXT NOT NULL, answer TEXT NOT NULL, rating TEXT NOT NULL,
    comment TEXT NOT NULL, expected TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rates (key TEXT PRIMARY KEY, left REAL NOT NULL, since REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS places (number INTEGER PRIMARY KEY, key TEXT NOT NULL, owner TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS places_by_key ON places (key);
CREATE TABLE IF NOT EXISTS aside (number INTEGER PRIMARY KEY, key TEXT NOT NULL, tokens INTEGER NOT NULL, usd REAL NOT NULL,
    owner TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS aside_by_key ON aside (key);
"""
# What format 2 added to tables of format 1: which process a job is of, how far it has come, and whether it is to stop.
_ADDED = (("jobs", "owner", "TEXT NOT NULL DEFAULT ''"), ("jobs", "progress", "TEXT"),
          ("jobs", "stop", "INTEGER NOT NULL DEFAULT 0"))


class Database:
    """One connection, shared by threads one at a time; every call is short. For worker threads, never for the event loop.
    Processes wait for one another's transactions, ten seconds at most."""

    def __init__(self, home: Path) -> None:
        """Opens or makes the file.

        Raises:
            StorageError: it cannot be opened or written. SnapshotMismatch: a newer version made it.
        """
        self.path = home / FILE
        self._lock = threading.RLock()      # a transaction consists of calls
        with self._explained():
            home.mkdir(parents=True, exist_ok=True)
            # The file holds hashes of keys and comments of people: nobody else's to read.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
            self._db.row_factory = sqlite3.Row
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            found = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if found > FORMAT:
                self._db.close()
                raise SnapshotMismatch(f"{self.path} has format {found}; this version reads format {FORMAT}.",
                                       hint="It was written by a newer version: update thriftrag.")
            # Several servers may open it for the first time at once.
            with self.transaction():
                for statement in _SCHEMA.split(";"):
                    self._db.execute(statement)
                for table, column, kind in _ADDED:
                    if column not in {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}:
                        self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
                self._db.execute(f"PRAGMA user_version={FORMAT}")

    def rows(self, sql: str, values: Sequence[Cell] = ()) -> list[Row]:
        """What a query gives, as dictionaries."""
        with self._lock, self._explained():
            return [dict(row) for row in self._db.execute(sql, values).fetchall()]

    def write(self, sql: str, values: Sequence[Cell] = ()) -> int:
        """Runs one statement as a transaction of its own; returns how many rows it changed."""
        with self._lock, self._explained():
            return self._db.execute(sql, values).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The calls of this thread within it happen together or not at all, and no other process writes meanwhile."""
        with self._lock, self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{self.path} cannot be used: {error}.", hint="Check the folder and the disk.") from error
