"""Files and folders followed as they change, through the notifications of the operating system (package watchfiles)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from rag.errors import ConfigError, InputError

# Changes that come in quick succession are handed on together: an editor writes a file in several steps.
_SETTLE_MS = 800
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Changes:
    """Absolute paths that were added or changed, and those that are gone."""

    touched: tuple[str, ...]
    vanished: tuple[str, ...]


def changes(paths: Iterable[str | Path], *, cancelled: Callable[[], bool]) -> Iterator[Changes]:
    """What changes at or below `paths`, in groups, until `cancelled`. Hidden files are left out, as they are on ingestion.

    Raises:
        InputError: a path is not there. ConfigError: the package is missing.
    """
    try:
        from watchfiles import watch
    except ImportError as error:
        raise ConfigError("The package watchfiles is not installed, and following a folder needs it.",
                          hint="Run: pip install watchfiles") from error
    roots = [os.path.abspath(os.path.expanduser(str(path))) for path in paths]
    missing = [root for root in roots if not os.path.exists(root)]
    if missing:
        raise InputError(f"There is no file or folder {missing[0]!r} to follow.", field="paths", code="file_missing",
                         hint="Follow files and folders; patterns are not followed.")
    ended = Event()
    Thread(target=_stop_when, args=(cancelled, ended), name="watch", daemon=True).start()
    try:
        for group in watch(*roots, debounce=_SETTLE_MS, stop_event=ended, watch_filter=None, raise_interrupt=False,
                           recursive=True):
            named = sorted({path for _, path in group if not _hidden(path, roots)})
            # A new folder is told of by itself: what was put into it before anybody watched it is read with it.
            touched = tuple(path for path in named if os.path.lexists(path) and (os.path.isfile(path) or _added(path, group)))
            vanished = tuple(path for path in named if not os.path.lexists(path))
            if touched or vanished:
                yield Changes(touched, vanished)
    finally:
        ended.set()


def _added(path: str, group: Iterable[tuple[int, str]]) -> bool:
    from watchfiles import Change

    return (Change.added, path) in group


def _hidden(path: str, roots: list[str]) -> bool:
    root = max((root for root in roots if path == root or path.startswith(root.rstrip(os.sep) + os.sep)), key=len, default="")
    return any(part.startswith(".") for part in path[len(root):].split(os.sep))


def _stop_when(cancelled: Callable[[], bool], ended: Event) -> None:
    while not ended.wait(_POLL_S):
        if cancelled():
            ended.set()
