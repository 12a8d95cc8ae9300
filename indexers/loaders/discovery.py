"""Which files the given paths mean: files, folders (with everything below) and globs, each file once, in sorted order.

Nothing is opened here. A path that cannot be used becomes a `FileFailure` with its reason and the walk goes on; a file of
no known kind that nobody named becomes a `Skipped`.
"""

from __future__ import annotations

import glob
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from indexers.loaders.kinds import may_be_read
from rag.settings import Settings
from rag.types import FileFailure, Skipped

_MAGIC = frozenset("*?[")
# Left behind by desktops and office programs beside the files they belong to.
_LITTER = ("~$", "Thumbs.db", "desktop.ini")
_SPECIAL = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a character device"),
            (stat.S_ISBLK, "a block device"))


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file. `source` is what a person calls it: the path as typed, joined with the part below it."""

    path: Path                  # absolute
    source: str
    size: int                   # bytes
    named: bool = True          # by the user, who means to have it read; else it was met in a folder


def discover(paths: Iterable[str | Path], *, settings: Settings) -> Iterator[Found | FileFailure]:
    """Cheap enough (a `stat` per file) to be listed first, so that the total is known before the work begins.

    Hidden files and folders are passed over unless named. A file that a pattern met counts as named where the pattern ends in
    its extension (`*.png`). Links inside a folder or a glob are followed only where they lead
    to a file below the same root; a file that is reached twice counts once, under the first name.
    """
    seen: set[str] = set()
    for path in paths:
        for item in _named(str(path)):
            if isinstance(item, FileFailure):
                yield item
                continue
            real = os.path.realpath(item.path)
            if real not in seen:
                seen.add(real)
                yield item


def printable(path: str | PurePath) -> str:
    """The path as text that can be stored and printed, whatever bytes its name holds."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_litter(name: str) -> bool:
    """Whether programs left this file beside others."""
    return name.startswith(_LITTER)


def skipped(source: str, why: str) -> Skipped:
    source = printable(source)
    return Skipped(source, "file_skipped", f"{source}: {why}", "Convert it to a kind that is read, or leave it.")


def _named(typed: str) -> Iterator[Found | FileFailure]:
    expanded = os.path.expanduser(typed)
    if not typed.strip() or not _encodable(typed):
        yield _failure(ascii(typed), "file_missing", f"{typed!r} is not a path.", "Name a file, a folder or a glob.")
    elif os.path.lexists(expanded):
        yield from _entry(Path(os.path.abspath(expanded)), typed, root=None, named=True)
    elif _MAGIC & set(typed):
        yield from _globbed(typed, expanded)
    elif "://" in typed:
        yield _failure(typed, "file_missing", f"{typed} is an address, not a file.", "Download it first.")
    else:
        yield _failure(typed, "file_missing", f"There is no file or folder {typed!r}.", "Check the spelling and the folder.")


def _encodable(typed: str) -> bool:
    try:
        return b"\0" not in os.fsencode(typed)
    except UnicodeEncodeError:
        return False


def _globbed(typed: str, expanded: str) -> Iterator[Found | FileFailure]:
    root = os.path.realpath(os.path.join(".", *_parts_before_magic(expanded)))
    matches = sorted(glob.glob(expanded, recursive=True))
    suffix = PurePath(typed).suffix
    named = bool(suffix) and not _MAGIC & set(suffix)
    for match in matches:
        if not is_litter(os.path.basename(match)):
            yield from _entry(Path(os.path.abspath(match)), match, root=root, named=named)
    if not matches:
        yield _failure(typed, "file_missing", f"Nothing matches {typed!r}.", "Check the pattern and its folder.")


def _parts_before_magic(path: str) -> Iterator[str]:
    for part in PurePath(path).parts:
        if _MAGIC & set(part):
            return
        yield part


def _entry(path: Path, source: str, *, root: str | None, named: bool = False) -> Iterator[Found | FileFailure]:
    """One path that exists. `root` bounds where links may lead; None: anywhere, because the user named this very path."""
    try:
        status = os.stat(path)
    except OSError as error:
        yield _unusable(path, source, error)
        return
    if root is not None and not _below(os.path.realpath(path), root):
        yield _failure(source, "link_refused", f"{source!r} is a link that leaves {printable(root)!r}.",
                       "Name its target if you want it.")
    elif stat.S_ISREG(status.st_mode) and not named and not may_be_read(path):
        yield skipped(source, f"It has the extension {printable(path.suffix)!r}.")
    elif stat.S_ISREG(status.st_mode):
        yield Found(path, printable(source), status.st_size, named)
    elif stat.S_ISDIR(status.st_mode):
        yield from _walk(path, source, root=root or os.path.realpath(path))
    else:
        kind = next((name for test, name in _SPECIAL if test(status.st_mode)), "no regular file")
        yield _failure(source, "file_unsupported", f"{source!r} is {kind}.", "Only regular files can be ingested.")


def _walk(top: Path, source: str, *, root: str) -> Iterator[Found | FileFailure]:
    """Everything below `top`, each folder once. Links come last, so that files keep their own names."""
    visited: set[str] = set()
    links: deque[tuple[Path, PurePath]] = deque()
    pending = [(top, PurePath(source))]
    while pending or links:
        if not pending:
            path, called = links.popleft()
            if not path.is_dir() or not _below(os.path.realpath(path), root):
                yield from _entry(path, str(called), root=root)
            elif _below(os.path.realpath(path.parent), os.path.realpath(path)):
                yield _failure(str(called), "link_refused", f"{str(called)!r} is a link to a folder that holds it: a loop.",
                               "Remove the link; the rest of the folder was read.")
            else:
                pending.append((path, called))
            continue
        folder, name = pending.pop()
        real = os.path.realpath(folder)
        if real in visited:
            continue
        visited.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield _unusable(folder, str(name), error)
            continue
        below: list[tuple[Path, PurePath]] = []
        for entry in entries:
            if entry.name.startswith(".") or is_litter(entry.name):
                continue
            path, called = Path(entry.path), name / entry.name
            if entry.is_symlink():
                links.append((path, called))
            elif entry.is_dir():
                below.append((path, called))
            else:
                yield from _entry(path, str(called), root=root)
        pending.extend(reversed(below))


def _below(path: str, root: str) -> bool:
    """Both real paths."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _unusable(path: Path, source: str, error: OSError) -> FileFailure:
    if path.is_symlink():
        return _failure(source, "link_refused", f"{source!r} is a link that leads nowhere or back to itself.",
                        "Repair or remove it.")
    if isinstance(error, FileNotFoundError):
        return _failure(source, "file_missing", f"{source!r} is gone.", "It was moved or deleted just now.")
    return _failure(source, "file_unreadable", f"{source!r} cannot be opened: {error.strerror}.", "Check its permissions.")


def _failure(source: str, code: str, message: str, hint: str) -> FileFailure:
    return FileFailure(source=printable(source), code=code, message=message, hint=hint)
