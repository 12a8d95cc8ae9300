"""Writing model files so that a crash, a full disk or a bad download never leaves one that looks whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rag.durable import sha256_of, sync_folder
from rag.errors import ModelCorrupt, StorageError

PIECE = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_whole(path: Path, *, size: int, sha256: str) -> bool:
    """Whether the file is there with this size and checksum. Reads it in full when the size is right."""
    return path.is_file() and path.stat().st_size == size and sha256_of(path) == sha256


def append_checked(part: Path, target: Path, *, pieces: Iterable[bytes], size: int, sha256: str,
                   on_bytes: Callable[[int], None]) -> bool:
    """Appends `pieces` to `part`; once `size` bytes are there and their checksum is right, renames it to `target`.

    Returns whether the file is whole now; a shorter one stays in `part` for the next attempt. `on_bytes` hears the
    bytes now in the file.

    Raises:
        ModelCorrupt: wrong checksum, or more bytes than `size`; `part` is deleted.
        StorageError: the disk refused; what was written stays.
    """
    digest, done = _digest_of(part)
    oversized = done > size
    with storage_errors(part, needed=lambda: size - done), part.open("ab") as stream:
        for piece in pieces:
            if done + len(piece) > size:
                oversized = True
                break
            stream.write(piece)
            digest.update(piece)
            done += len(piece)
            on_bytes(done)
        stream.flush()
        os.fsync(stream.fileno())
    if done < size and not oversized:
        return False
    if oversized or digest.hexdigest() != sha256:
        part.unlink()
        found = f"more than {size:,} bytes" if oversized else f"sha256 {digest.hexdigest()}"
        raise mismatch(target.name, expected=f"sha256 {sha256}", found=found)
    os.replace(part, target)
    return True


def mismatch(what: str, *, expected: str, found: str) -> ModelCorrupt:
    return ModelCorrupt(f"{what} is not what the registry names: expected {expected}, found {found}. It was deleted.",
                        hint="Pull again; if it stays wrong, the source was changed or something on the way alters it.")


@contextlib.contextmanager
def storage_errors(path: Path, *, needed: Callable[[], int]) -> Iterator[None]:
    """Turns an operating system's refusal to write into a StorageError that names the path and the bytes needed."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise no_space(path, needed=needed()) from error
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.",
                           hint="Make the model folder writable, or set THRIFTRAG_MODELS to one that is.") from error


def no_space(path: Path, *, needed: int) -> StorageError:
    return StorageError(f"No space left while writing {path}: {max(needed, 0):,} more bytes are needed.",
                        hint="Free space, or set THRIFTRAG_MODELS to a larger disk, and run the command again: it resumes.")


def require_space(folder: Path, *, needed: int) -> None:
    """Refuses at the start what would fail in the middle.

    Raises:
        StorageError: the disk of `folder` has less than `needed` bytes free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(f"{folder} has {free:,} bytes free, {needed:,} are needed.",
                           hint="Free space, or set THRIFTRAG_MODELS to a larger disk.")


def make_folder(path: Path) -> Path:
    with storage_errors(path, needed=lambda: 0):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_durably(path: Path, text: str) -> None:
    """All of it or nothing, also across a power cut."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with storage_errors(path, needed=lambda: len(text)), aside.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


def _digest_of(part: Path) -> tuple[hashlib._Hash, int]:
    if not part.exists():
        return hashlib.sha256(), 0
    with part.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256"), part.stat().st_size
