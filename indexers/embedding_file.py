"""The files behind the embedding cache and the reservoir: opening and making them, what their errors mean, and values that prove
themselves.

SQLite keeps no checksums of its pages, so each vector is sealed with a crc32 over its key and itself: a flipped bit, or a key
that leads to another vector, is found when it is read.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Halves = NDArray[np.float16]

APPLICATION_ID = 0x54526543
FORMAT = 1
HALF = np.dtype("<f2")
_SCHEMA = ("CREATE TABLE entries (key BLOB PRIMARY KEY, place INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID",
           "CREATE TABLE vectors (place INTEGER PRIMARY KEY, vector BLOB NOT NULL)")
_PAGE = 8192                # holds vectors of 384 and 768 halves with 6 % left over, where 4096 leaves 25 % of the latter
_WAIT_S = 30.0
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_REFUSED = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_AUTH, sqlite3.SQLITE_NOMEM}


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of file: what it is called, with its article, how it is told from others, and what makes its tables."""

    name: str
    application_id: int
    format: int
    schema: tuple[str, ...]


class Newer(Exception):
    """The file is ours, of a format that this version does not know."""


def connect(path: Path, kind: Kind | None = None) -> sqlite3.Connection:
    """An open file of our format, made where there is none; an embedding cache unless another kind is named.

    Raises:
        sqlite3.Error: it is none of ours, damaged, or the disk refuses. Newer: it is of a newer format.
    """
    kind = Kind("an embedding cache", APPLICATION_ID, FORMAT, _SCHEMA) if kind is None else kind
    db = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        db.text_factory = bytes         # a damaged file may say that a vector is text
        _check(db, kind)
        if not _tables(db):             # afterwards they would write, or do nothing
            db.execute(f"PRAGMA page_size={_PAGE}")
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        _settled(db, "PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(f"PRAGMA journal_size_limit={64 << 20}")
        _make(db, kind)
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection, kind: Kind) -> None:
    """Before anything is written: the file is ours, or has nothing in it yet."""
    # One statement, one state: another process may be making the tables.
    application, version, tables = db.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_application_id, pragma_user_version"
    ).fetchone()
    if application != kind.application_id and (application or tables):
        raise sqlite3.DatabaseError(f"it is no {kind.name.split(maxsplit=1)[1]}")
    if application and version < kind.format:
        raise sqlite3.DatabaseError(f"its format {version} is no longer read")
    if application and version > kind.format:
        raise Newer(f"its format {version} is newer than {kind.format}, which this version reads")


def _make(db: sqlite3.Connection, kind: Kind) -> None:
    """The tables, in a file that has none; another process may be making them at the same time."""
    if _tables(db):
        return
    db.execute("BEGIN IMMEDIATE")
    if not _tables(db):
        for statement in (*kind.schema, f"PRAGMA application_id={kind.application_id}", f"PRAGMA user_version={kind.format}"):
            db.execute(statement)
    db.execute("COMMIT")


def _tables(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _settled(db: sqlite3.Connection, statement: str) -> None:
    """Runs a statement that does not wait by itself while another process does the same."""
    for _ in range(int(_WAIT_S / 0.05)):
        try:
            db.execute(statement).fetchall()
            return
        except sqlite3.OperationalError as error:
            if trouble_of(error) != "busy":
                raise
            time.sleep(0.05)
    db.execute(statement).fetchall()


def trouble_of(error: sqlite3.Error) -> Literal["busy", "refused", "damaged"]:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary in _BUSY:
        return "busy"
    return "refused" if primary in _REFUSED else "damaged"


def identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def clock(db: sqlite3.Connection) -> int:
    (last,) = db.execute("SELECT max(place) FROM vectors").fetchone()
    return int(last or 0)


def used_bytes(db: sqlite3.Connection) -> int:
    return (pragma(db, "page_count") - pragma(db, "freelist_count")) * pragma(db, "page_size")


def pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def sealed(key: bytes, vector: bytes) -> bytes:
    return vector + zlib.crc32(vector, zlib.crc32(key)).to_bytes(4, "little")


def unsealed(key: bytes, value: object) -> bytes | None:
    """What was sealed; None where the value is not what was stored under this key."""
    if not isinstance(value, bytes) or len(value) < 4:
        return None
    data = value[:-4]
    return data if sealed(key, data) == value else None
