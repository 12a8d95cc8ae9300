"""The newest published generation of a collection, for who asks before every question.

Opening a store takes as long as a search of a small collection, so one connection is kept. It holds no transaction between two
looks: it keeps no state alive and no writer waits for it. A store that was replaced is another file under the same name.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

from indexers import store


class Published:
    """Safe to use from several threads. `close` lets go of the store; a look after that opens it again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / store.DATABASE
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._file = _identity(self._path)

    def generation(self) -> str | None:
        """None where the store is gone, was replaced since this was made, or cannot be read."""
        with self._lock:
            try:
                if self._file is None or _identity(self._path) != self._file:
                    return None
                if self._db is None:
                    self._db = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, isolation_level=None,
                                               check_same_thread=False)
                row = self._db.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
            except sqlite3.Error:
                self._let_go()
                return None
        return None if row is None else str(row[0])

    def close(self) -> None:
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = None


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells the file from another one that took its name."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
