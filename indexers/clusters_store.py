"""The file of a collection's clusterings, and of every summary that a model wrote for one.

    COLLECTION/clusters.sqlite
        clusterings   one row each: plan, snapshot, groups
        clusters      one row each: members, centroid, summary, labels
        summaries     what models wrote, by a hash of all that they were shown: kept at once, so that a build that is cut short has
                      lost nothing, and another build of the same texts asks for nothing
        state         a number that grows with each change of a clustering

A clustering is published or deleted in one transaction. SQLite keeps no checksums of its pages, so each value is sealed with a
crc32 over its place and itself. Nothing here is the truth: everything can be made again from the collection, so a damaged file is
told by name and put in order by building again, and a file of another format is never guessed at.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers.clusters import Cluster, Clustering, Group, Plan
from indexers.embedding_file import sealed, unsealed
from indexers.files import explained
from indexers.segments import Numbers
from rag.durable import sync_folder
from rag.errors import Locked, SnapshotCorrupt, SnapshotMismatch

FILE = "clusters.sqlite"
LOCK = "clusters.lock"
FORMAT = 1
APPLICATION_ID = 0x5452434C
_SCHEMA = ("CREATE TABLE state (revision INTEGER NOT NULL)", "INSERT INTO state VALUES (0)",
           "CREATE TABLE clusterings (name TEXT PRIMARY KEY, facts BLOB NOT NULL) WITHOUT ROWID",
           "CREATE TABLE clusters (clustering TEXT NOT NULL, place INTEGER NOT NULL, facts BLOB NOT NULL, members BLOB NOT NULL, "
           "centroid BLOB NOT NULL, PRIMARY KEY (clustering, place)) WITHOUT ROWID",
           "CREATE TABLE summaries (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
_WAIT_S = 30.0
_ROWS = np.dtype("<i8")
_HALF = np.dtype("<f2")


def exists(folder: Path) -> bool:
    return (folder / FILE).is_file()


@contextmanager
def building(folder: Path) -> Iterator[sqlite3.Connection]:
    """The file, for the one who builds or deletes; made where there is none. A damaged file is removed first: it can be made again.

    Raises:
        Locked: another process builds here. SnapshotMismatch: the file was written by a newer version.
    """
    import filelock

    lock = filelock.FileLock(str(folder / LOCK), timeout=0)
    with explained(folder):
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise Locked(f"Another process builds clusters of collection {folder.name!r}.",
                         hint="Wait for it to finish, or stop it: the summaries it has made stay.") from error
    try:
        with explained(folder / FILE):
            if exists(folder) and problems(folder) and not _newer(folder):
                remove(folder)
            with closing(_opened(folder, create=True)) as db:
                yield db
    finally:
        lock.release()


def remove(folder: Path) -> None:
    """The whole file, with what SQLite keeps beside it."""
    for name in (FILE, f"{FILE}-journal"):
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """The file of a collection that has one; all that is read in the block is of one state.

    Raises:
        SnapshotCorrupt: it is damaged. SnapshotMismatch: it has another format.
    """
    with _readable(folder), closing(_opened(folder, create=False)) as db:
        db.execute("BEGIN")
        yield db


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise damaged(folder, str(error)) from error


def damaged(folder: Path, what: str) -> SnapshotCorrupt:
    return SnapshotCorrupt(f"{folder / FILE} cannot be read: {what}.", code="clusters_corrupt",
                           hint=f"Run `thriftrag clusters build -c {folder.name}`: it makes the clusters again.")


def _opened(folder: Path, *, create: bool) -> sqlite3.Connection:
    path = folder / FILE
    # Read-write also for readers: only then can SQLite roll back what a crash left half written.
    db = sqlite3.connect(f"{path.as_uri()}?mode={'rwc' if create else 'rw'}", uri=True, timeout=_WAIT_S, isolation_level=None)
    try:
        application, version, tables = db.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_application_id, "
            "pragma_user_version").fetchone()
        if create and not tables and not application:
            _make(db)
        elif application != APPLICATION_ID:
            raise damaged(folder, "it is no file of clusters")
        elif version != FORMAT:
            hint = ("It was written by a newer version: update thriftrag." if version > FORMAT
                    else f"Run `thriftrag clusters build -c {folder.name}`: it makes the clusters again.")
            raise SnapshotMismatch(f"{path} has format {version}; this version reads format {FORMAT}.", hint=hint)
        db.execute("PRAGMA synchronous=FULL")
    except BaseException:
        db.close()
        raise
    return db


def _newer(folder: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{(folder / FILE).as_uri()}?mode=ro", uri=True)) as db:
            application, version = db.execute(
                "SELECT application_id, user_version FROM pragma_application_id, pragma_user_version").fetchone()
    except sqlite3.DatabaseError:
        return False
    return bool(application == APPLICATION_ID and version > FORMAT)


def _make(db: sqlite3.Connection) -> None:
    with _transaction(db):
        for statement in (*_SCHEMA, f"PRAGMA application_id={APPLICATION_ID}", f"PRAGMA user_version={FORMAT}"):
            db.execute(statement)


def revision(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT revision FROM state").fetchone()[0])


def names(db: sqlite3.Connection) -> list[str]:
    return [str(name) for (name,) in db.execute("SELECT name FROM clusterings ORDER BY name")]


def load(db: sqlite3.Connection, name: str, *, folder: Path) -> Clustering | None:
    """The clustering of this name, None where there is none.

    Raises:
        SnapshotCorrupt: a part of it is not what was stored.
    """
    row = db.execute("SELECT facts FROM clusterings WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    try:
        facts = _facts(_open(row[0], name))
        found = []
        for place, *parts in db.execute("SELECT place, facts, members, centroid FROM clusters WHERE clustering = ? ORDER BY place",
                                        (name,)):
            about, members, centroid = (_open(part, f"{name}/{place}/{column}")
                                        for part, column in zip(parts, ("facts", "members", "centroid"), strict=True))
            found.append(_cluster(_facts(about), np.frombuffer(members, _ROWS), np.frombuffer(centroid, _HALF)))
        if len(found) != facts["clusters"]:
            raise ValueError(f"{len(found)} of {facts['clusters']} clusters are there")
        groups = [Group(**{**each, "outliers": tuple(each["outliers"])}) for each in facts["groups"]]
        return Clustering(Plan(**facts["plan"]), **{key: facts[key] for key in _PLAIN}, clusters=tuple(found),
                          groups={group.value: group for group in groups})
    except (ValueError, TypeError, KeyError, zlib.error) as error:
        raise damaged(folder, f"clustering {name!r}: {error}") from error


_PLAIN = ("snapshot", "encoder", "built", "seconds", "prompt_tokens", "completion_tokens")


def save(db: sqlite3.Connection, clustering: Clustering) -> None:
    """In the place of the one of that name, all or nothing."""
    name = clustering.name
    facts = {"plan": clustering.plan.to_dict(), **{key: getattr(clustering, key) for key in _PLAIN},
             "groups": [{f.name: getattr(group, f.name) for f in fields(group)} for group in clustering.groups.values()],
             "clusters": len(clustering.clusters)}
    with _transaction(db):
        _drop(db, name)
        db.execute("INSERT INTO clusterings VALUES (?, ?)", (name, _seal(_packed(facts), name)))
        for place, cluster in enumerate(clustering.clusters):
            parts = {"facts": _packed(_about(cluster)), "members": cluster.rows.astype(_ROWS).tobytes(),
                     "centroid": cluster.centroid.astype(_HALF).tobytes()}
            db.execute("INSERT INTO clusters VALUES (?, ?, ?, ?, ?)",
                       (name, place, *(_seal(data, f"{name}/{place}/{column}") for column, data in parts.items())))
        db.execute("UPDATE state SET revision = revision + 1")


def drop(db: sqlite3.Connection, name: str) -> bool:
    """Whether there was one. Summaries stay for the next build of the same texts, until the last clustering goes."""
    with _transaction(db):
        dropped = _drop(db, name)
        db.execute("UPDATE state SET revision = revision + 1")
        if not names(db):
            db.execute("DELETE FROM summaries")
    return dropped


def _drop(db: sqlite3.Connection, name: str) -> bool:
    db.execute("DELETE FROM clusters WHERE clustering = ?", (name,))
    return db.execute("DELETE FROM clusterings WHERE name = ?", (name,)).rowcount > 0


def summary(db: sqlite3.Connection, key: bytes) -> str | None:
    """What was written for these texts before; None also where what is there is damaged."""
    row = db.execute("SELECT value FROM summaries WHERE key = ?", (key,)).fetchone()
    data = None if row is None else unsealed(key, row[0])
    return None if data is None else str(_facts(data)["text"])


def keep_summary(db: sqlite3.Connection, key: bytes, text: str, *, rows: Sequence[int]) -> None:
    """`rows`: of the texts that it was written from. Durable when it returns."""
    db.execute("INSERT OR REPLACE INTO summaries VALUES (?, ?)",
               (key, sealed(key, _packed({"text": text, "rows": [int(row) for row in rows]}))))


def prune_summaries(db: sqlite3.Connection, live: Numbers) -> int:
    """Forgets what was written from texts that are gone, and what is damaged. `live`: rows, ascending. Returns how many."""
    with _transaction(db):
        gone = []
        for key, value in db.execute("SELECT key, value FROM summaries"):
            data = unsealed(key, value)
            rows = [] if data is None else _facts(data)["rows"]
            if data is None or not np.isin(np.asarray(rows, np.int64), live).all():
                gone.append((key,))
        db.executemany("DELETE FROM summaries WHERE key = ?", gone)
    return len(gone)


def problems(folder: Path) -> list[str]:
    """What is broken in the file, by name; nothing where there is no file."""
    if not exists(folder):
        return []
    try:
        with reading(folder) as db:
            found = [f"{FILE}: {row[0]}" for row in db.execute("PRAGMA integrity_check") if row[0] != "ok"]
            for name in names(db):
                try:
                    load(db, name, folder=folder)
                except SnapshotCorrupt as error:
                    found.append(error.message)
            broken = sum(unsealed(key, value) is None for key, value in db.execute("SELECT key, value FROM summaries"))
            return [*found, f"{FILE}: {broken} stored summaries are damaged"] if broken else found
    except (SnapshotCorrupt, SnapshotMismatch) as error:
        return [error.message]


def _about(cluster: Cluster) -> dict[str, object]:
    return {"group": cluster.group, "number": cluster.number, "labels": list(cluster.labels), "summary": cluster.summary,
            "by": cluster.by, "sentences": [list(each) for each in cluster.sentences], "size": cluster.size,
            "written": cluster.written.tolist()}


def _cluster(facts: Mapping[str, Any], rows: Numbers, centroid: NDArray[np.float16]) -> Cluster:
    given = {key: value for key, value in facts.items() if key not in ("labels", "sentences", "written")}
    return Cluster(**given, rows=rows.astype(np.int64), centroid=centroid.astype(np.float32), labels=tuple(facts["labels"]),
                   sentences=tuple((int(row), int(index)) for row, index in facts["sentences"]),
                   written=np.asarray(facts["written"], np.int64))


def _packed(facts: Mapping[str, object]) -> bytes:
    return zlib.compress(json.dumps(facts, ensure_ascii=True).encode())


def _facts(data: bytes) -> dict[str, Any]:
    """What JSON holds is typed by whoever wrote it; a value of another type than it should have raises where it is used."""
    found = json.loads(zlib.decompress(data))
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _seal(data: bytes, place: str) -> bytes:
    return sealed(place.encode("utf-8", "replace"), data)


def _open(value: object, place: str) -> bytes:
    data = unsealed(place.encode("utf-8", "replace"), value)
    if data is None:
        raise ValueError(f"{place} is not what was stored")
    return data


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
