"""A reader that remembers: the same prompt to the same reader is paid for once, across runs that share the file."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from rag.errors import StorageError
from rag.llm import Generation, Message, Reader

_TABLE = "CREATE TABLE IF NOT EXISTS generations (key TEXT PRIMARY KEY, generation TEXT NOT NULL) WITHOUT ROWID"
# A generation that was cut short by the clock or the caller says nothing about the prompt.
_REPEATABLE = frozenset({"stop", "length", "repetition"})


class CachingReader:
    """Passes calls to `reader` and keeps what came back in SQLite, keyed by reader, messages, stops and token limit.

    A remembered generation has the tokens and seconds of the call that was really made. `hits`, `misses` and
    `replayed_s` (the seconds that hits would have taken) count since the start. Safe to call from several threads.
    """

    def __init__(self, reader: Reader, path: Path) -> None:
        self.name = reader.name
        self.local = reader.local
        self.tokenizer = reader.tokenizer
        self.context_window = reader.context_window
        self.hits = 0
        self.misses = 0
        self.replayed_s = 0.0
        self._reader = reader
        self._path = path
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from error

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return self._reader.prompt_tokens(messages)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        """As `Reader.generate`. Raises StorageError if the file cannot be read or written."""
        key = _key(self.name, messages, max_tokens, stop)
        known = self._recall(key)
        if known is None:
            generation = self._reader.generate(messages, max_tokens=max_tokens, stop=stop, on_token=on_token,
                                               deadline=deadline, cancelled=cancelled)
            self._keep(key, generation)
            return generation
        if on_token is not None:
            on_token(known.text)
        return known

    def close(self) -> None:
        """Does nothing: a collection closes the reader it is given, and this one serves many. See `end`."""

    def end(self) -> None:
        """Closes the file and the reader itself."""
        with self._lock:
            self._db.close()
        self._reader.close()

    def _recall(self, key: str) -> Generation | None:
        with self._lock:
            try:
                row = self._db.execute("SELECT generation FROM generations WHERE key = ?", (key,)).fetchone()
                known = None if row is None else Generation(**json.loads(row[0]))
            except (sqlite3.Error, ValueError, TypeError) as error:
                raise self._failed(error) from error
            if known is None:
                self.misses += 1
            else:
                self.hits += 1
                self.replayed_s += known.seconds
            return known

    def _keep(self, key: str, generation: Generation) -> None:
        if generation.finish not in _REPEATABLE:
            return
        with self._lock:
            try:
                self._db.execute("INSERT OR REPLACE INTO generations VALUES (?, ?)", (key, json.dumps(asdict(generation))))
            except sqlite3.Error as error:
                raise self._failed(error) from error

    def _failed(self, error: Exception) -> StorageError:
        return StorageError(f"The store of remembered reader calls {self._path} cannot be used: {error}.",
                            hint="Check the disk, or delete that file: it holds nothing that cannot be computed again.")


def _key(name: str, messages: Sequence[Message], max_tokens: int, stop: Sequence[str]) -> str:
    content = [name, [[message.role, message.content] for message in messages], max_tokens, list(stop)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
