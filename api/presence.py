"""Which servers of one home are alive: several processes share the database, and what a dead one held must come back.

Each process holds a lock on a file of its own below `serving/`, which the system releases however the process ends.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import filelock

from api.database import Database
from rag.errors import StorageError

FOLDER = "serving"
# Tables with a column `owner` whose rows mean nothing without their process.
_HELD = ("places", "aside")
_AGAIN_S = 2.0
_LOCK_S = 10.0


class Presence:
    """This process among the servers of a home; `id` names it. Blocks on the disk: for worker threads."""

    def __init__(self, home: Path, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises StorageError: the folder cannot be written."""
        self.id = uuid.uuid4().hex
        self.folder = home / FOLDER
        self._database = database
        self._clock = clock
        self._looked: float | None = None
        self._lock = threading.Lock()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Not at once: who sweeps may hold the new file for a moment.
            self._held = filelock.FileLock(str(self.folder / f"{self.id}.lock"), timeout=_LOCK_S)
            self._held.acquire()
        except (OSError, filelock.Timeout) as error:
            raise StorageError(f"{self.folder} cannot be used: {error}.", hint="Check the folder and the disk.") from error
        self.sweep()

    def alive(self) -> list[str]:
        """Ids of the processes that serve this home now, ours among them. What dead ones left below `serving/` is removed."""
        found = [self.id]
        for path in sorted(self.folder.glob("*.lock")):
            if path.stem == self.id:
                continue
            lock = filelock.FileLock(str(path), timeout=0)
            try:
                with lock:
                    for left in (path, *self.folder.glob(f"{path.stem}.*")):
                        left.unlink(missing_ok=True)
            except filelock.Timeout:
                found.append(path.stem)
            except OSError:
                continue        # gone meanwhile
        return found

    def sweep(self) -> None:
        """Gives back what dead processes held."""
        # Within the transaction: whose row is there had its lock before it could write it.
        with self._database.transaction():
            alive = self.alive()
            marks = ", ".join("?" * len(alive))
            for table in _HELD:
                self._database.write(f"DELETE FROM {table} WHERE owner NOT IN ({marks})", alive)

    def sweep_sometimes(self) -> bool:
        """As `sweep`, unless that was a moment ago; whether it was done."""
        with self._lock:
            now = self._clock()
            if self._looked is not None and now - self._looked < _AGAIN_S:
                return False
            self._looked = now
        self.sweep()
        return True

    def close(self) -> None:
        """Gives back everything of this process."""
        for table in _HELD:
            self._database.write(f"DELETE FROM {table} WHERE owner = ?", (self.id,))
        Path(self._held.lock_file).unlink(missing_ok=True)
        self._held.release()
