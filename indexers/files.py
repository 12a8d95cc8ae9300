"""What a disk refuses, in words that name the path and the fix."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag.errors import StorageError


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
