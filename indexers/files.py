"""Writing files so that a crash leaves either the old state or the new one, never something between."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag.errors import StorageError


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Makes renames inside `path` durable. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what a full, read-only or vanished disk raises into a StorageError that names the path."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise _full(path) from error
        raise StorageError(f"{path}: {error}.", hint="Check the disk and run the command again.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StorageError(f"{path} cannot be written: {error.strerror}.",
                               hint="Check its permissions, or choose another folder with THRIFTRAG_HOME.") from error
        raise StorageError(f"{path}: {error}.", hint="Check the disk and run the command again.") from error


def _full(path: Path) -> StorageError:
    return StorageError(f"No space left on the disk that holds {path}.", code="disk_full",
                        hint="Free some space and run the command again: what was published is intact.")
