"""The results of a run on disk: one JSON line for each question, system and budget, and what the run was made with.

    OUT/run.json         reader, settings and data of the run: results of two different ones must never mix
    OUT/results.jsonl    appended and flushed line by line, so that an interruption costs at most the question in hand
    OUT/contexts.sqlite  the contexts that were read, each once, for whoever wants to look
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from rag.errors import InputError, StorageError

RESULTS = "results.jsonl"
CONTEXTS = "contexts.sqlite"
RUN = "run.json"

Row = Mapping[str, object]
# Data set, system, budget (None for systems that no budget binds) and question id.
Key = tuple[str, str, int | None, str]


def key_of(row: Row) -> Key:
    budget = row["budget"]
    return str(row["dataset"]), str(row["system"]), budget if isinstance(budget, int) else None, str(row["question"])


class Results:
    """Opens or begins the results in `folder`. Rows with an error are there to be read, but count as not done. Thread-safe.

    `rows` has the last row of each key, `computed` the keys appended since.

    Raises:
        InputError: the folder holds a run with another reader, settings or data, or a broken line that is not the last.
        StorageError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, run: Mapping[str, object], datasets: Mapping[str, str]) -> None:
        self.path = folder / RESULTS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _agree(folder / RUN, run, datasets)
            self.rows: dict[Key, Row] = _read(self.path)
            self.computed: set[Key] = set()
            self._file: TextIO = self.path.open("a", encoding="utf-8")
            self._lock = threading.Lock()
        except OSError as error:
            raise _refused(folder, error) from error

    def done(self, key: Key, *, read: bool, timed: bool) -> bool:
        """Whether the row is there; a context alone is not enough where the reader is wanted, nor an answer that was made beside
        others where its seconds are."""
        row = self.rows.get(key)
        return (row is not None and row["error"] is None and (row["read"] is True or not read)
                and (row["timed"] is True or not timed))

    def append(self, row: Row) -> None:
        """Raises StorageError if the disk refuses; the rows before this one are safe."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
        with self._lock:
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:
                raise _refused(self.path, error) from error
            self.rows[key_of(row)] = row
            self.computed.add(key_of(row))

    def close(self) -> None:
        self._file.close()


class Contexts:
    """The texts that readers were given, compressed, by the first 16 hex digits of their sha256. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CONTEXTS
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=30)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS contexts (key TEXT PRIMARY KEY, text BLOB NOT NULL) WITHOUT ROWID")
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def put(self, text: str) -> str:
        raw = text.encode("utf-8", "surrogatepass")
        key = hashlib.sha256(raw).hexdigest()[:16]
        with self._lock:
            try:
                self._db.execute("INSERT OR IGNORE INTO contexts VALUES (?, ?)", (key, zlib.compress(raw)))
            except sqlite3.Error as error:
                raise self._failed(error) from error
        return key

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _failed(self, error: sqlite3.Error) -> StorageError:
        return StorageError(f"{self._path} cannot be used: {error}.",
                            hint="Check the disk, or delete that file: it holds what was read, for the report's examples.")


def write_text(path: Path, text: str) -> None:
    """Replaces the file as a whole, in a folder made if need be: a reader sees the old text or the new."""
    aside = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise _refused(path, error) from error


def _agree(path: Path, run: Mapping[str, object], datasets: Mapping[str, str]) -> None:
    """Refuses a folder made with something else; data sets may be added to it."""
    before: dict[str, dict[str, object]] = {"run": {}, "datasets": {}}
    if path.is_file():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            old, known = dict(before["run"]), dict(before["datasets"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not the record of a run: {error}.", code="run_invalid",
                             hint="Name another --out, or delete that folder.") from error
        changes = [f"{name} was {old.get(name)!r} and is {value!r}" for name, value in run.items() if old.get(name) != value]
        changes += [f"the data set {name} has changed" for name, digest in datasets.items()
                    if known.get(name, digest) != digest]
        if changes:
            raise InputError(f"{path.parent} holds another run: {'; '.join(changes)}.", code="run_differs",
                             hint="Name another --out: results of different runs must not mix.")
    write_text(path, json.dumps({"run": dict(run), "datasets": {**before["datasets"], **datasets}}, indent=2) + "\n")


def _read(path: Path) -> dict[Key, Row]:
    """Rows by key; the last of several wins. A last line that an interruption left unfinished is cut off."""
    if not path.is_file():
        return {}
    raw = path.read_bytes()
    whole = raw[:raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    rows: dict[Key, Row] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            rows[key_of(row)] = row | {"error": row["error"]}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}, line {number} is not a result: {error!r}.", code="run_invalid",
                             hint="Remove that line, or name another --out.") from error
    return rows


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path} cannot be written: {error.strerror or error}.", hint="Check the folder and the disk.")
