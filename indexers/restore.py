"""A collection from an archive of `indexers.backup`: everything is checked first, and then it is there in one rename.

An archive is a file from elsewhere, so nothing in it is believed. Its members are exactly those of its manifest, and every name is
one that a collection has: no path leads out of the folder it is unpacked into. Every byte is held to the manifest's checksums, no
member may be longer than stated, and the store may hold tables of ours alone. What a killed import leaves is a hidden folder that
the next one removes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from indexers import store
from indexers.backup import BLOCK, FORMAT, MANIFEST, SETTINGS, VERSION, Manifest, Member
from indexers.files import explained
from indexers.snapshot import Snapshot
from rag.durable import sync_folder, sync_tree
from rag.errors import InputError, Locked, SnapshotCorrupt, SnapshotMismatch, StorageError
from rag.types import OnProgress, Progress, no_progress

_MANIFEST_BYTES = 16_000_000
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"
_NAMES = re.compile(rf"{re.escape(store.DATABASE)}|{re.escape(SETTINGS)}|{store.SEGMENTS}/{_PART}(?:/{_PART}){{1,2}}")
_ASIDE = ".import-"
_DAMAGED = "Use another copy of the file: this one is damaged."
_FOREIGN = "Use a file that `thriftrag collections export` made."
# What a damaged or forged archive makes the standard library raise.
_BROKEN = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
           OverflowError)


def manifest_of(archive: Path) -> Manifest:
    """What the archive says of itself, with its member list checked.

    Raises:
        InputError: no such file, or no archive of a collection. SnapshotCorrupt: one that is damaged. SnapshotMismatch: of
            another version.
    """
    with _opened(archive) as (_, manifest):
        return manifest


def unpack(archive: Path, root: Path, *, name: str, encoder: tuple[str, int], on_progress: OnProgress = no_progress,
           cancelled: Callable[[], bool] = lambda: False) -> Manifest | None:
    """Makes the collection `root / name` from the archive; None if `cancelled` before it was there. `encoder`: name and dimension
    of the one that will serve it.

    Raises:
        InputError: a collection of this name is there, or as `manifest_of`. SnapshotMismatch: another encoder made it; says which.
        SnapshotCorrupt, Locked, StorageError.
    """
    with _opened(archive) as (zipped, manifest):
        _check_encoder(archive, manifest, encoder)
        with explained(root), _alone(root):
            _check_free(root, name)
            _check_room(root, manifest)
            aside = root / f"{_ASIDE}{uuid.uuid4().hex[:8]}"
            try:
                aside.mkdir()
                if not _extract(zipped, manifest, aside, on_progress, cancelled):
                    return None
                (aside / store.SEGMENTS).mkdir(exist_ok=True)
                _check_store(archive, manifest, aside)
                sync_tree(aside)
                _check_free(root, name)
                os.rename(aside, root / name)
                sync_folder(root)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    return manifest


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[zipfile.ZipFile, Manifest]]:
    if not archive.is_file():
        raise InputError(f"{archive} is no file.", field="file", code="backup_missing", hint="Name the file of an export.")
    try:
        zipped = zipfile.ZipFile(archive)
    except _BROKEN as error:
        raise SnapshotCorrupt(f"{archive} is no readable archive: {error}.", hint=f"{_DAMAGED} Or: {_FOREIGN}",
                              code="backup_invalid") from error
    with zipped:
        yield zipped, _manifest(archive, zipped)


def _manifest(archive: Path, zipped: zipfile.ZipFile) -> Manifest:
    entries = zipped.infolist()
    names = [entry.filename for entry in entries]
    if MANIFEST not in names or len(set(names)) != len(names):
        raise _invalid(archive, f"it has no {MANIFEST}, or a name twice", _FOREIGN)
    try:
        with zipped.open(MANIFEST) as member:
            told = member.read(_MANIFEST_BYTES + 1)
        facts = json.loads(told) if len(told) <= _MANIFEST_BYTES else None
    except (*_BROKEN, OSError) as error:
        raise _invalid(archive, f"its {MANIFEST} cannot be read", _DAMAGED) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise _invalid(archive, "it is no export of a collection", _FOREIGN)
    if facts.get("version") != VERSION or facts.get("store_format") != store.FORMAT:
        raise SnapshotMismatch(
            f"{archive} has version {facts.get('version')} with store format {facts.get('store_format')}; this program reads "
            f"version {VERSION} with store format {store.FORMAT}.", code="backup_version",
            hint="Import it with the program that made it, bring the collection to the new format there "
                 f"(`collections rebuild`), and export it again. It was made by {facts.get('made_by')}.")
    manifest = _read(archive, facts)
    _check_members(archive, entries, manifest)
    return manifest


def _read(archive: Path, facts: Mapping[str, object]) -> Manifest:
    try:
        listed = facts["files"]
        if not isinstance(listed, dict):
            raise TypeError("files")
        files = {str(name): Member(int(member["bytes"]), str(member["sha256"])) for name, member in listed.items()}
        strings = {key: str(facts[key]) for key in ("collection", "snapshot", "encoder", "terms", "created", "made_by")}
        numbers = {key: int(str(facts[key])) for key in ("dimension", "store_format", "documents", "chunks")}
    except (KeyError, TypeError, ValueError) as error:
        raise _invalid(archive, f"its {MANIFEST} lacks {error}", _FOREIGN) from error
    return Manifest(**strings, **numbers, files=files)  # type: ignore[arg-type]  # the keys are the fields, split by type


def _check_members(archive: Path, entries: list[zipfile.ZipInfo], manifest: Manifest) -> None:
    held = {entry.filename: entry for entry in entries if entry.filename != MANIFEST}
    if held.keys() != manifest.files.keys() or store.DATABASE not in held:
        raise _invalid(archive, "its members are not those of its manifest", _DAMAGED)
    for name, member in manifest.files.items():
        if not _NAMES.fullmatch(name) or ".." in name:
            raise _invalid(archive, f"it holds {name[:100]!r}, which no collection has", "Do not import it: somebody forged it.")
        if held[name].file_size != member.bytes:
            raise _invalid(archive, f"{name} has {held[name].file_size} bytes where the manifest says {member.bytes}", _DAMAGED)


def _check_encoder(archive: Path, manifest: Manifest, encoder: tuple[str, int]) -> None:
    if (manifest.encoder, manifest.dimension) != encoder:
        raise SnapshotMismatch(
            f"{archive} was made with encoder {manifest.encoder} ({manifest.dimension} dimensions), and {encoder[0]} "
            f"({encoder[1]} dimensions) is configured.",
            hint="Import it with the setting `embedder` that it was made with, for instance in THRIFTRAG_EMBEDDER; then `thriftrag "
                 "collections rebuild` moves it to another.")


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One import at a time, so that what a killed one left can be told from one that runs, and is removed."""
    import filelock

    root.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(str(root / ".import.lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:  # before OSError, which it is
        raise Locked(f"Another import into {root} is under way.", hint="Wait for it to finish.") from error
    try:
        for left in root.glob(f"{_ASIDE}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


def _check_free(root: Path, name: str) -> None:
    if (root / name).exists():
        raise InputError(f"There is a collection {name!r} already.", field="name", code="collection_exists",
                         hint="Import under another name, --as NAME, or delete that one first.")


def _check_room(root: Path, manifest: Manifest) -> None:
    free = shutil.disk_usage(root).free
    if manifest.bytes > free:
        raise StorageError(f"The collection takes {manifest.bytes / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free in {root}.",
                           code="disk_full", hint="Free some space and import again.")


def _extract(zipped: zipfile.ZipFile, manifest: Manifest, aside: Path, on_progress: OnProgress,
             cancelled: Callable[[], bool]) -> bool:
    """Whether every member was written and has its checksum."""
    done, total = 0, manifest.bytes
    for name, told in manifest.files.items():
        target = aside / name
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with target.open("xb") as written:
            for block in _blocks(zipped, name, at_most=told.bytes):
                if cancelled():
                    return False
                written.write(block)
                digest.update(block)
                size += len(block)
                on_progress(Progress("import", done + size, total, "bytes", name))
        if size != told.bytes or digest.hexdigest() != told.sha256:
            raise _damaged(zipped, name)
        done += size
    return True


def _blocks(zipped: zipfile.ZipFile, name: str, *, at_most: int) -> Iterator[bytes]:
    """A member in blocks. Raises SnapshotCorrupt: it cannot be read, or unpacks to more than `at_most` bytes."""
    left = at_most
    try:
        with zipped.open(name) as member:
            while block := member.read(min(BLOCK, left + 1)):
                left -= len(block)
                if left < 0:
                    break
                yield block
    except (*_BROKEN, OSError) as error:
        raise _damaged(zipped, name) from error
    if left < 0:
        raise _damaged(zipped, name)


def _check_store(archive: Path, manifest: Manifest, aside: Path) -> None:
    """The store holds tables of ours alone and is what the manifest says; it gets an identity of its own, so that nothing that
    was remembered of the original is taken for the copy's. Opening it compares every index file with the store's checksums."""
    try:
        with closing(sqlite3.connect(aside / store.DATABASE, isolation_level=None)) as db:
            db.execute("PRAGMA trusted_schema=OFF")
            kinds = set(db.execute("SELECT type, name FROM sqlite_schema").fetchall())
            if kinds != _expected_schema():
                raise _invalid(archive, "its store has other tables than a collection's", "Do not import it: somebody forged it.")
            facts = store.meta(db)
            if (facts.get("encoder"), facts.get("dimension")) != (manifest.encoder, str(manifest.dimension)):
                raise _invalid(archive, "its store is not the one of its manifest", _DAMAGED)
            db.execute("UPDATE meta SET value = ? WHERE key = 'collection'", (uuid.uuid4().hex[:8],))
        with closing(Snapshot(aside)):
            pass
    except sqlite3.DatabaseError as error:
        raise _invalid(archive, f"its store cannot be read: {error}", _DAMAGED) from error


def _expected_schema() -> set[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(store.SCHEMA)
        return set(db.execute("SELECT type, name FROM sqlite_schema").fetchall())


def _damaged(zipped: zipfile.ZipFile, name: str) -> SnapshotCorrupt:
    return SnapshotCorrupt(f"{zipped.filename}: {name} is damaged; its checksum is not the recorded one.", hint=_DAMAGED,
                           code="backup_damaged")


def _invalid(archive: Path, why: str, hint: str) -> SnapshotCorrupt:
    return SnapshotCorrupt(f"{archive} cannot be imported: {why}.", hint=hint, code="backup_invalid")
