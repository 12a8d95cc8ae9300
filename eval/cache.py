"""A reader that remembers, and that waits for one that went away: the same prompt to the same reader is paid for once, across
all runs that share the file."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rag.errors import ModelTimeout, ModelUnavailable, StorageError
from rag.llm import Constrained, Generation, Message, Reader

_TABLE = """CREATE TABLE IF NOT EXISTS generations
    (key TEXT PRIMARY KEY, generation TEXT NOT NULL, alone INTEGER NOT NULL) WITHOUT ROWID"""
# A generation that was cut short by the clock or the caller says nothing about the prompt.
_REPEATABLE = frozenset({"stop", "length", "repetition"})
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 15.0


class CachingReader:
    """Passes calls to `reader` and keeps what came back in SQLite, keyed by `identity`, messages, stops and token limit.

    A remembered generation has the tokens and seconds of the call that was really made. While `alone` is set, calls are
    marked as made one at a time, and only such ones are remembered: their seconds can be told to people. `hits` and `misses`
    count since the start. A reader that does not answer is asked again for `patience_s` seconds; after that each call tries
    once, until one gets through. Safe to call from several threads: equal prompts at the same time are one call.
    """

    def __init__(self, reader: Reader, path: Path, *, identity: str | None = None, patience_s: float = 0.0,
                 forgetful: bool = False, cancelled: Callable[[], bool] = lambda: False,
                 sleep: Callable[[float], None] = time.sleep) -> None:
        """`forgetful`: nothing that earlier runs kept is used; what this one does is kept."""
        self.name = reader.name
        self.local = reader.local
        self.tokenizer = reader.tokenizer
        self.context_window = reader.context_window
        self.alone = False
        self.hits = 0
        self.misses = 0
        self._identity = identity or reader.name
        self._reader = reader
        self._path = path
        self._patience_s = patience_s
        self._cancelled = cancelled
        self._sleep = sleep
        self._away = False
        self._own = threading.local()
        self._made: set[str] | None = set() if forgetful else None
        self._busy: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from error

    @property
    def replayed(self) -> tuple[int, float]:
        """Calls of this thread that were remembered so far, and the seconds that they had really taken."""
        return getattr(self._own, "hits", 0), getattr(self._own, "seconds", 0.0)

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return self._reader.prompt_tokens(messages)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        """As `Reader.generate`. Raises StorageError if the file cannot be read or written."""
        return self._remembered(_key(self._identity, messages, max_tokens, stop), lambda: self._reader.generate(
            messages, max_tokens=max_tokens, stop=stop, on_token=on_token, deadline=deadline, cancelled=cancelled), on_token)

    def generate_json(self, messages: Sequence[Message], *, schema: Mapping[str, object], max_tokens: int,
                      deadline: float | None = None, cancelled: Callable[[], bool] | None = None) -> Generation:
        """As `Constrained.generate_json`; a reader that cannot be held to a schema is asked without."""
        reader = self._reader
        if not isinstance(reader, Constrained):
            return self.generate(messages, max_tokens=max_tokens, deadline=deadline, cancelled=cancelled)
        key = _key(f"{self._identity} {json.dumps(schema, sort_keys=True)}", messages, max_tokens, ())
        return self._remembered(key, lambda: reader.generate_json(
            messages, schema=schema, max_tokens=max_tokens, deadline=deadline, cancelled=cancelled), None)

    def _remembered(self, key: str, call: Callable[[], Generation], on_token: Callable[[str], None] | None) -> Generation:
        known = self._awaited(key)
        if known is not None:
            if on_token is not None:
                on_token(known.text)
            return known
        try:
            generation = self._asked(call)
            self._keep(key, generation)
            return generation
        finally:
            with self._lock:
                self._busy.pop(key).set()

    def close(self) -> None:
        """Does nothing: a collection closes the reader it is given, and this one serves many. See `end`."""

    def end(self) -> None:
        """Closes the file and the reader itself."""
        with self._lock:
            self._db.close()
        self._reader.close()

    def _awaited(self, key: str) -> Generation | None:
        """What is known of the key, perhaps after another thread's call; None makes this thread the one that asks."""
        while True:
            with self._lock:
                busy = self._busy.get(key)
                if busy is None:
                    known = self._recall(key)
                    if known is None:
                        self._busy[key] = threading.Event()
                        self.misses += 1
                    else:
                        self.hits += 1
                        hits, seconds = self.replayed
                        self._own.hits, self._own.seconds = hits + 1, seconds + known.seconds
                    return known
            busy.wait()

    def _asked(self, call: Callable[[], Generation]) -> Generation:
        """Asks again while the reader is away, with longer and longer pauses."""
        began, pause = time.monotonic(), _FIRST_WAIT_S
        while True:
            try:
                generation = call()
                self._away = False
                return generation
            except (ModelUnavailable, ModelTimeout):
                over = time.monotonic() - began + pause > self._patience_s
                if over or self._away or self._cancelled():
                    self._away = True
                    raise
            self._sleep(pause)
            pause = min(2 * pause, _LONGEST_WAIT_S)

    def _recall(self, key: str) -> Generation | None:
        if self._made is not None and key not in self._made:
            return None
        try:
            row = self._db.execute("SELECT generation FROM generations WHERE key = ? AND alone >= ?",
                                   (key, self.alone)).fetchone()
            return None if row is None else Generation(**json.loads(row[0]))
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise self._failed(error) from error

    def _keep(self, key: str, generation: Generation) -> None:
        if generation.finish not in _REPEATABLE:
            return
        with self._lock:
            try:
                self._db.execute("INSERT OR REPLACE INTO generations VALUES (?, ?, ?)",
                                 (key, json.dumps(asdict(generation)), self.alone))
            except sqlite3.Error as error:
                raise self._failed(error) from error
            if self._made is not None:
                self._made.add(key)

    def _failed(self, error: Exception) -> StorageError:
        return StorageError(f"The store of remembered reader calls {self._path} cannot be used: {error}.",
                            hint="Check the disk, or delete that file: it holds nothing that cannot be computed again.")


def _key(identity: str, messages: Sequence[Message], max_tokens: int, stop: Sequence[str]) -> str:
    content = [identity, [[message.role, message.content] for message in messages], max_tokens, list(stop)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
