"""What a collection holds already, asked while others write to it: the newest published state, a few rows at a time."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from indexers import store
from indexers.writer import FileState


class Known:
    """A connection of its own, so that questions never meet a transaction half done. For one thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._db: sqlite3.Connection = store.connect(folder)

    def close(self) -> None:
        self._db.close()

    def file(self, uri: str) -> FileState | None:
        """The file as of its last complete ingestion, None if there was none."""
        row = self._db.execute("SELECT * FROM files WHERE uri = ?", (uri,)).fetchone()
        return None if row is None else FileState(*row)

    def files_with(self, content_hash: str) -> list[str]:
        """Uris of the files that had this content."""
        return [uri for (uri,) in self._db.execute("SELECT uri FROM files WHERE content_hash = ?", (content_hash,)).fetchall()]

    def files_below(self, path: str) -> list[str]:
        """Uris of the files that documents came from, at or below an absolute path."""
        below = path.rstrip(os.sep) + os.sep
        return [uri for (uri,) in self._db.execute(
            "SELECT DISTINCT file FROM documents WHERE file = ? OR (file >= ? AND file < ?)",
            (path, below, below[:-1] + chr(ord(os.sep) + 1))).fetchall()]

    def documents_of(self, file: str) -> dict[str, str]:
        """Content hash by uri of the documents that came from `file`."""
        return dict(self._db.execute("SELECT uri, content_hash FROM documents WHERE file = ?", (file,)).fetchall())

    def owner(self, document_id: str) -> str | None:
        """The uri of the document with this id, None if there is none."""
        row = self._db.execute("SELECT uri FROM documents WHERE id = ?", (document_id,)).fetchone()
        return None if row is None else str(row[0])
