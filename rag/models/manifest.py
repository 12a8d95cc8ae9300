"""What a converted model must look like: `manifest.json` in its folder, with the checksum of every other file.

A model folder is published by one rename after its manifest is written, so a folder without one is never served.
Checking a gigabyte at every start would cost a second: a file is re-read only if its size or modification time is not
the recorded one, and in full by `verify`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rag.durable import sha256_of, sync_tree
from rag.errors import StorageError
from rag.models.files import write_durably

FORMAT = 1
MANIFEST = "manifest.json"
_VERBATIM = {"tokenizer.json"}      # copied by conversion, so the registry can vouch for it directly


@dataclass(frozen=True, slots=True)
class FileRecord:
    bytes: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """`sources`: path to sha256 of what the model was made from. `files`: path to record of what it is now."""

    name: str
    role: str
    sources: Mapping[str, str]
    files: Mapping[str, FileRecord]

    @property
    def bytes(self) -> int:
        return sum(record.bytes for record in self.files.values())


@dataclass(frozen=True, slots=True)
class Problem:
    """One way in which a model folder is not what it should be."""

    file: str
    expected: str
    found: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.file}: expected {self.expected}, found {self.found}"


def seal(folder: Path, *, name: str, role: str, sources: Mapping[str, str]) -> Manifest:
    """Records every file of `folder` and forces them, then the manifest, to the disk."""
    sync_tree(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    files = {path.relative_to(folder).as_posix(): _record(path) for path in paths}
    manifest = Manifest(name, role, dict(sources), files)
    _write(folder, manifest)
    return manifest


def read(folder: Path) -> Manifest | Problem:
    """The manifest, or why there is none to go by."""
    path = folder / MANIFEST
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["format"] != FORMAT:
            return Problem(MANIFEST, f"format {FORMAT}", f"format {table['format']!r}")
        files = {str(file): FileRecord(**record) for file, record in table["files"].items()}
        return Manifest(table["name"], table["role"], dict(table["sources"]), files)
    except FileNotFoundError:
        return Problem(MANIFEST, f"a manifest of format {FORMAT}", "nothing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Problem(MANIFEST, f"a manifest of format {FORMAT}", f"{type(error).__name__}: {error}")


def check(folder: Path, *, sources: Mapping[str, str] | None, deep: bool) -> list[Problem]:
    """Everything wrong with `folder`; empty when it may be served.

    `sources` is what the registry says the model is made from, None for a model that a user named. `deep` re-reads every
    file; otherwise only those whose size or modification time changed, and the new times are recorded if all is well.
    """
    manifest = read(folder)
    if isinstance(manifest, Problem):
        return [manifest]
    problems = _stale(manifest, sources) if sources is not None else []
    touched = False
    for file, record in manifest.files.items():
        path = folder / file
        problem, changed = _check_file(path, file, record, deep=deep)
        touched |= changed
        if problem is not None:
            problems.append(problem)
        elif sources is not None and file in _VERBATIM & sources.keys() and record.sha256 != sources[file]:
            problems.append(Problem(file, f"sha256 {sources[file]}", f"sha256 {record.sha256}"))
    if touched and not problems:
        with contextlib.suppress(StorageError):         # a read-only cache is re-read at each start instead
            _write(folder, Manifest(manifest.name, manifest.role, manifest.sources,
                                    {file: _stamped(folder / file, record) for file, record in manifest.files.items()}))
    return problems


def _stale(manifest: Manifest, sources: Mapping[str, str]) -> list[Problem]:
    return [Problem(f"source {path}", f"sha256 {sha256}", f"sha256 {manifest.sources.get(path, 'of nothing')}")
            for path, sha256 in sources.items() if manifest.sources.get(path) != sha256]


def _check_file(path: Path, file: str, record: FileRecord, *, deep: bool) -> tuple[Problem | None, bool]:
    """(what is wrong, whether the modification time is not the recorded one)."""
    try:
        stat = path.stat()
        if stat.st_size != record.bytes:
            return Problem(file, f"{record.bytes:,} bytes", f"{stat.st_size:,} bytes"), False
        changed = stat.st_mtime_ns != record.mtime_ns
        if deep or changed:
            digest = sha256_of(path)
            if digest != record.sha256:
                return Problem(file, f"sha256 {record.sha256}", f"sha256 {digest}"), changed
        return None, changed
    except OSError as error:
        return Problem(file, f"sha256 {record.sha256}", error.strerror or type(error).__name__), False


def _record(path: Path) -> FileRecord:
    stat = path.stat()
    return FileRecord(stat.st_size, sha256_of(path), stat.st_mtime_ns)


def _stamped(path: Path, record: FileRecord) -> FileRecord:
    return FileRecord(record.bytes, record.sha256, path.stat().st_mtime_ns)


def _write(folder: Path, manifest: Manifest) -> None:
    write_durably(folder / MANIFEST, json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1))
