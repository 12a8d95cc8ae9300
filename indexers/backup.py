"""A collection as one file, made while it is in use: a zip archive of one published state, with a manifest that vouches for it.

    manifest.json       format, version, what the collection is, and bytes and sha256 of every other member
    store.sqlite        the store, as one read transaction saw it
    settings.toml       the collection's own settings, where it has some
    segments/NAME/...   the index files of that state, held to the checksums that the store names

Writers go on meanwhile: the store is copied from a read transaction, and the index files are opened before anybody can remove them.
The archive is written aside and renamed, so it is whole or not there. `indexers.restore` is the way back.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from indexers import store
from indexers.files import explained
from rag import __version__
from rag.durable import sync_folder
from rag.errors import InputError, SnapshotCorrupt
from rag.types import OnProgress, Progress, no_progress

FORMAT = "thriftrag-collection"
VERSION = 1
MANIFEST = "manifest.json"
SETTINGS = "settings.toml"
BLOCK = 1 << 20
# A writer that merges removes files that are about to be opened: then the newer state is taken.
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Member:
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive holds. `files`: every member but the manifest itself, by its path."""

    collection: str
    snapshot: str
    encoder: str
    dimension: int
    terms: str
    store_format: int
    documents: int
    chunks: int
    created: str
    made_by: str
    files: Mapping[str, Member]

    @property
    def bytes(self) -> int:
        return sum(member.bytes for member in self.files.values())

    def to_dict(self) -> dict[str, object]:
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


@dataclass(frozen=True, slots=True)
class _Held:
    """One state that nobody can take away: its store in a read transaction, and its index files opened, with their sha256."""

    db: sqlite3.Connection
    facts: Mapping[str, str]
    files: Mapping[str, tuple[BinaryIO, str]]


def pack(folder: Path, target: Path, *, replace: bool = False, on_progress: OnProgress = no_progress,
         cancelled: Callable[[], bool] = lambda: False) -> Manifest | None:
    """Writes the newest published state of the collection in `folder` to the file `target`; None if `cancelled` before it was
    whole. Until then a file that was there stays as it was.

    Raises:
        InputError: `target` is there and is not to be replaced, or is a folder. SnapshotCorrupt: an index file is damaged.
        CollectionMissing, StorageError.
    """
    if target.is_dir() or (target.exists() and not replace):
        raise InputError(f"{target} is there already.", field="file", code="file_exists",
                         hint="Name a file that is not there." if target.is_dir() else "Name another file, or add --force.")
    with explained(target), tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        aside, copy = Path(scratch) / "archive", Path(scratch) / store.DATABASE
        with _held(folder) as held:
            _copy_store(held.db, copy)
            own = folder / SETTINGS
            sizes = [os.fstat(file.fileno()).st_size for file, _ in held.files.values()]
            total = copy.stat().st_size + sum(sizes) + (own.stat().st_size if own.is_file() else 0)
            manifest = _Packing(aside, total, on_progress, cancelled).write(folder, copy, held)
        if manifest is None:
            return None
        os.chmod(aside, 0o600)      # all documents are in it
        with aside.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(aside, target)
        sync_folder(target.parent)
    return manifest


@contextmanager
def _held(folder: Path) -> Iterator[_Held]:
    for attempt in range(1, _ATTEMPTS + 1):
        with ExitStack() as stack:
            db = stack.enter_context(closing(store.connect(folder)))
            db.execute("BEGIN")
            facts = store.meta(db)      # the first read fixes the state that this connection sees
            files: dict[str, tuple[BinaryIO, str]] = {}
            try:
                for name, listed in db.execute("SELECT name, files FROM segments ORDER BY first_row").fetchall():
                    for path, digest in sorted(json.loads(listed).items()):
                        inside = f"{store.SEGMENTS}/{name}/{path}"
                        files[inside] = (stack.enter_context((folder / inside).open("rb")), digest)
            except FileNotFoundError as error:
                if attempt == _ATTEMPTS:
                    raise SnapshotCorrupt(f"{error.filename} is missing.", hint="Run `thriftrag collections rebuild`: every index "
                                          "can be made again from the store.") from error
                continue
            yield _Held(db, facts, files)
            return


def _copy_store(db: sqlite3.Connection, target: Path) -> None:
    """What the read transaction of `db` sees, as one file without a log beside it."""
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        db.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")


class _Packing:
    """One archive being written; counts bytes for progress."""

    def __init__(self, target: Path, total: int, on_progress: OnProgress, cancelled: Callable[[], bool]) -> None:
        self._target = target
        self._total = total
        self._done = 0
        self._on_progress = on_progress
        self._cancelled = cancelled
        self._members: dict[str, Member] = {}

    def write(self, folder: Path, copy: Path, held: _Held) -> Manifest | None:
        with zipfile.ZipFile(self._target, "w", allowZip64=True) as archive:
            with copy.open("rb") as source:
                # Text shrinks to a third and index files hardly: only the store is worth the time.
                if not self._add(archive, store.DATABASE, source, compression=zipfile.ZIP_DEFLATED):
                    return None
            settings = folder / SETTINGS
            if settings.is_file():
                with settings.open("rb") as source:
                    self._add(archive, SETTINGS, source)
            for name, (index, digest) in held.files.items():
                if not self._add(archive, name, index):
                    return None
                if self._members[name].sha256 != digest:
                    raise SnapshotCorrupt(f"{folder / name} is damaged: its checksum is not the recorded one.",
                                          hint="Run `thriftrag collections rebuild`, then export again.")
            manifest = self._manifest(folder, held)
            archive.writestr(MANIFEST, json.dumps(manifest.to_dict(), ensure_ascii=False, indent=1))
        return manifest

    def _add(self, archive: zipfile.ZipFile, name: str, source: BinaryIO, *, compression: int = zipfile.ZIP_STORED) -> bool:
        """Whether the whole of it went in."""
        entry = zipfile.ZipInfo(name)
        entry.compress_type = compression
        digest, size = hashlib.sha256(), 0
        with archive.open(entry, "w", force_zip64=True) as member:
            while block := source.read(BLOCK):
                if self._cancelled():
                    return False
                member.write(block)
                digest.update(block)
                size += len(block)
                self._done += len(block)
                self._on_progress(Progress("export", self._done, self._total, "bytes", name))
        self._members[name] = Member(size, digest.hexdigest())
        return True

    def _manifest(self, folder: Path, held: _Held) -> Manifest:
        facts = held.facts
        documents, chunks = (int(held.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
                             for table in ("documents", "chunks"))
        return Manifest(collection=folder.name, snapshot=f"{facts['collection']}-{facts['generation']}", encoder=facts["encoder"],
                        dimension=int(facts["dimension"]), terms=facts.get("terms", ""), store_format=int(facts["format"]),
                        documents=documents, chunks=chunks, created=store.now(), made_by=f"thriftrag {__version__}",
                        files=dict(self._members))
