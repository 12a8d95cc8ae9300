"""Where an embedded shard lives, who has it open, and how it is replaced as a whole.

    COLLECTION/qdrant/current.json      names the shard in use and how far its search graphs reach; replaced by one rename
    COLLECTION/qdrant/shards/NAME/      a shard; those that are not named are what a kill left behind, and removed
    COLLECTION/qdrant/lock              held by the process that has it open; holder.json says which
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from indexers.files import explained
from rag.durable import sync_folder, sync_tree, tree_bytes
from rag.errors import Locked, SnapshotCorrupt, StorageError

if TYPE_CHECKING:
    import filelock
    import qdrant_edge

FOLDER = "qdrant"
SHARDS = "shards"
CURRENT = "current.json"
# Files are mapped: a disk that fills up while they grow would end the process, so that much stays free.
RESERVE_BYTES = 128_000_000
_BLOCK = 65_536
_ANEW = "Run `thriftrag collections rebuild`: the mirror can be made again from the store."


@dataclass(frozen=True, slots=True)
class Current:
    """The shard in use. `graphs_to`: rows up to this one were there when its graphs were built last."""

    shard: str
    dimension: int
    graphs_to: int = -1


class ShardHome:
    """One folder in this process: its lock and its open shard, let go when the last user is."""

    def __init__(self, folder: Path) -> None:
        import filelock

        self.folder = folder
        self.mutex = threading.RLock()
        self._held = _Held(filelock.FileLock(str(folder / "lock"), thread_local=False), folder / "holder.json")
        weakref.finalize(self, self._held.release)

    def current(self) -> Current | None:
        path = self.folder / CURRENT
        try:
            return Current(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise SnapshotCorrupt(f"{path} does not name a shard.", hint=_ANEW) from error

    def lock(self, patience_s: float) -> None:
        import filelock

        if self._held.lock.is_locked:
            return
        with explained(self.folder):
            self.folder.mkdir(exist_ok=True)
            try:
                self._held.lock.acquire(timeout=patience_s)
            except filelock.Timeout as error:  # before OSError, which it is
                raise Locked(f"The Qdrant shard in {self.folder} is open in {_described(self._held.holder)}.", code="mirror_locked",
                             hint="One process at a time can use it: stop the other, or set qdrant_url to share a server."
                             ) from error
            self._held.holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}), encoding="utf-8")

    def opened(self, patience_s: float) -> qdrant_edge.EdgeShard:
        if self._held.shard is None:
            self.lock(patience_s)
            current = self.current()
            if current is None:
                raise StorageError(f"There is no Qdrant shard in {self.folder}.", hint=_ANEW, code="mirror_missing")
            self._sweep(current.shard)
            self._held.shard = self._load(current.shard)
        return self._held.shard

    def create(self, config: qdrant_edge.EdgeConfig, dimension: int) -> None:
        import qdrant_edge as edge

        name = uuid.uuid4().hex[:12]
        with explained(self.folder), reported(self.folder):
            self._sweep("")
            edge.EdgeShard.create(str(self.folder / SHARDS / name), config).close()
            sync_tree(self.folder / SHARDS)
        self._publish(Current(name, dimension))

    def build_graphs(self, last_row: int) -> None:
        """Nothing may write meanwhile; searches may run. Left undone where the disk has no room for a copy."""
        current = self.current()
        assert current is not None
        old, new = (self.folder / SHARDS / name for name in (current.shard, uuid.uuid4().hex[:12]))
        if shutil.disk_usage(self.folder).free < 2 * tree_bytes(old) + RESERVE_BYTES:
            return
        try:
            shard = self._with_graphs(old, new)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        with self.mutex:
            self._publish(replace(current, shard=new.name, graphs_to=last_row))
            self._held.shard = shard  # a search that still uses the old one finishes on it
        shutil.rmtree(old, ignore_errors=True)

    def _with_graphs(self, old: Path, new: Path) -> qdrant_edge.EdgeShard:
        with explained(self.folder):
            shutil.copytree(old, new, copy_function=copy_sparsely)
        built = subprocess.run([sys.executable, "-m", "indexers.qdrant_graphs", str(new)], capture_output=True, text=True,
                               check=False)
        if built.returncode:
            raise StorageError(f"The search graphs of {self.folder} could not be built: {built.stderr[-200:].strip()}.", hint=_ANEW)
        with explained(self.folder):
            sync_tree(new)
        return self._load(new.name)

    def check_space(self) -> None:
        if shutil.disk_usage(self.folder).free < RESERVE_BYTES:
            raise StorageError(f"No space left on the disk that holds {self.folder}: less than {RESERVE_BYTES // 1_000_000} MB.",
                               code="disk_full", hint="Free some space and run the command again: it goes on where it stopped.")

    def remove(self) -> None:
        self._held.shard = None
        with explained(self.folder):
            (self.folder / CURRENT).unlink(missing_ok=True)
            shutil.rmtree(self.folder / SHARDS, ignore_errors=True)

    def _load(self, name: str) -> qdrant_edge.EdgeShard:
        import qdrant_edge as edge

        path = self.folder / SHARDS / name
        try:
            return edge.EdgeShard.load(str(path))
        except Exception as error:
            if type(error) is not Exception:  # the library raises nothing narrower
                raise
            raise SnapshotCorrupt(f"{path} cannot be opened: {error}.", hint=_ANEW) from error

    def _publish(self, current: Current) -> None:
        aside = self.folder / f".{CURRENT}"
        with explained(self.folder):
            with aside.open("w", encoding="utf-8") as stream:
                json.dump(asdict(current), stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(aside, self.folder / CURRENT)
            sync_folder(self.folder)

    def _sweep(self, keep: str) -> None:
        shards = self.folder / SHARDS
        shards.mkdir(exist_ok=True)
        for path in shards.iterdir():
            if path.name != keep:
                shutil.rmtree(path, ignore_errors=True)


@dataclass
class _Held:
    """What has to be let go in this order: the shard, then the lock. It outlives its home by that much."""

    lock: filelock.BaseFileLock
    holder: Path
    shard: qdrant_edge.EdgeShard | None = None

    def release(self) -> None:
        if self.shard is not None:
            self.shard.close()
            self.shard = None
        if self.lock.is_locked:
            self.holder.unlink(missing_ok=True)
            self.lock.release(force=True)


_HOMES: weakref.WeakValueDictionary[Path, ShardHome] = weakref.WeakValueDictionary()
_HOMES_GUARD = threading.Lock()


def home_of(folder: Path) -> ShardHome:
    """The one of this process."""
    with _HOMES_GUARD:
        key = folder.resolve()
        found = _HOMES.get(key)
        if found is None:
            found = _HOMES[key] = ShardHome(folder)
        return found


def copy_sparsely(source: str, target: str) -> None:
    """Leaves holes where the source is zero: a shard reserves several times what it fills."""
    with open(source, "rb") as there, open(target, "wb") as here:
        while block := there.read(_BLOCK):
            if block.count(0) == len(block):
                here.seek(len(block), os.SEEK_CUR)
            else:
                here.write(block)
        here.truncate()


@contextmanager
def reported(folder: Path) -> Iterator[None]:
    """What the library raises, in our words."""
    try:
        yield
    except Exception as error:
        if type(error) is not Exception:  # the library raises nothing narrower; anything narrower is not the library's
            raise
        if "No space left" in str(error):
            raise StorageError(f"No space left on the disk that holds {folder}.", code="disk_full",
                               hint="Free some space and run the command again: it goes on where it stopped.") from error
        raise StorageError(f"The Qdrant shard in {folder} failed: {error}.", hint=_ANEW) from error


def _described(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text(encoding="utf-8"))
        return f"process {facts['pid']} on {facts['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"
