"""Kills an operation on a collection at each of its writes in turn, and says what was left: run as a script.

    python -m tests.faults.kill_everywhere OPERATION SCRATCH [STRIDE]

The operation runs in a fork that counts what it writes (files opened for writing, created, renamed, synced and removed,
arrays saved, statements run, transactions ended) and kills itself with SIGKILL at the n-th. Then, in this process: the
collection must verify, hold the documents from before or from after the operation, and search must find exactly those. The
operation is run again; now the collection must be as if nothing had happened, with no file left over. One JSON line on
stdout for each point.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from indexers import known, store, writer
from indexers.snapshot import Snapshot
from indexers.writer import writing
from rag.settings import Settings, load
from rag.thriftrag import ThriftRAG
from tests.fakes import ScriptedReader, WordEncoder

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def open_kb(scratch: Path, **changes: object) -> ThriftRAG:
    settings: Settings = load({"home": scratch / "home", "batch_chunks": 2, "workers": 0, **changes}, environ={})
    return ThriftRAG.open("kb", settings=settings, encoder=WordEncoder(), reader=ScriptedReader())


def fresh(scratch: Path) -> None:
    """Nine files, so that batches are merged while they are published."""
    (scratch / "docs").mkdir(parents=True)
    for number in range(9):
        (scratch / "docs" / f"f{number}.txt").write_text(f"File number {number} speaks of otters.", encoding="utf-8")


def filled(scratch: Path) -> None:
    fresh(scratch)
    open_kb(scratch).ingest(scratch / "docs")


def altered(scratch: Path) -> None:
    """After filling: one file changed, one moved, one gone, one new."""
    filled(scratch)
    docs = scratch / "docs"
    (docs / "f0.txt").write_text("File zero is about herons and otters now.", encoding="utf-8")
    (docs / "f1.txt").rename(docs / "moved.txt")
    (docs / "f2.txt").unlink()
    (docs / "new.txt").write_text("A new file speaks of otters too.", encoding="utf-8")


def thinned(scratch: Path) -> None:
    """After filling: a few documents deleted, so that compaction has work."""
    filled(scratch)
    kb = open_kb(scratch)
    kb.delete(*[document.id for document in kb.documents()[:2]])


def delete_some(kb: ThriftRAG, scratch: Path) -> None:
    held = {document.source: document.id for document in kb.documents()}
    wanted = [held[source] for source in sorted(held) if source.endswith(("f3.txt", "f4.txt", "f5.txt"))]
    if wanted:
        kb.delete(*wanted)


def clustered(scratch: Path) -> None:
    """After filling: clusters, and then a few more files, so that bringing the clusters up to date has work."""
    filled(scratch)
    kb = open_kb(scratch)
    kb.build_clusters(k=2)
    for number in range(9, 13):
        (scratch / "docs" / f"f{number}.txt").write_text(f"File number {number} speaks of herons.", encoding="utf-8")
    kb.ingest(scratch / "docs")


# What stands before, and what is done to it.
OPERATIONS: dict[str, tuple[Callable[[Path], None], Callable[[ThriftRAG, Path], object]]] = {
    "ingest": (fresh, lambda kb, scratch: kb.ingest(scratch / "docs")),
    "update": (altered, lambda kb, scratch: kb.ingest(scratch / "docs", prune=True)),
    "delete": (filled, delete_some),
    "compact": (thinned, lambda kb, scratch: kb.compact()),
    "rebuild": (thinned, lambda kb, scratch: kb.rebuild()),
    "clusters": (clustered, lambda kb, scratch: kb.build_clusters(k=2)),
}


class Counter:
    """Counts writes on all threads and kills the process at one of them; 0 kills never."""

    def __init__(self, fatal: int) -> None:
        self.seen = 0
        self._fatal = fatal
        self._lock = threading.Lock()

    def tick(self) -> None:
        with self._lock:
            self.seen += 1
            if self.seen == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            result = function(*args, **kwargs)
            self.tick()
            return result

        return call

    def install(self) -> None:
        for module, names in ((os, ("rename", "replace", "fsync", "mkdir", "rmdir", "unlink")), (np, ("save",)),
                              (np.lib.format, ("open_memmap",)), (np.memmap, ("flush",))):
            for name in names:
                setattr(module, name, self.around(getattr(module, name)))
        sys.addaudithook(lambda event, args: self.tick() if event == "open" and _writes(args) else None)
        counter, connect = self, store.connect

        class Counted(sqlite3.Connection):
            def execute(self, *args: Any) -> sqlite3.Cursor:
                counter.tick()
                cursor = super().execute(*args)
                counter.tick()
                return cursor

            def executemany(self, *args: Any) -> sqlite3.Cursor:
                counter.tick()
                return super().executemany(*args)

        real = sqlite3.connect
        sqlite3.connect = lambda *args, **kwargs: real(*args, **{"factory": Counted, **kwargs})  # type: ignore[misc, assignment]
        assert connect is writer.connect
        assert known.store is store


def _writes(args: tuple[Any, ...]) -> bool:
    _, mode, flags = args
    return any(letter in mode for letter in "wax+") if isinstance(mode, str) else bool(flags & WRITING)


def forked(work: Callable[[], int]) -> tuple[int, int]:
    """Wait status of a fork that runs `work`, and what it returned."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writes, str(work()).encode())
            os._exit(0)
        except BaseException as error:  # told to the parent by the status, and to a reader by stderr
            print(repr(error), file=sys.stderr)
            os._exit(1)
    os.close(writes)
    with os.fdopen(reads) as stream:
        said = stream.read()
    return os.waitpid(child, 0)[1], int(said or 0)


def attempt(operation: str, scratch: Path, fatal: int) -> tuple[int, int]:
    def work() -> int:
        counter = Counter(fatal)
        counter.install()
        OPERATIONS[operation][1](open_kb(scratch), scratch)
        return counter.seen

    return forked(work)


def state(scratch: Path) -> dict[str, object]:
    """What a user would see: documents and their texts, what search finds, what verify says; and files left over."""
    kb = open_kb(scratch)
    if not kb.exists():
        return {"documents": {}, "found": [], "problems": [], "orphans": [], "clustered": 0}
    with closing(Snapshot(kb.folder)) as snapshot:
        named = {segment.name for segment in snapshot.segments}
    return {"documents": {d.source.rpartition("/")[2]: kb.document(d.id).text for d in kb.documents()},
            "found": sorted(hit.chunk.source.rpartition("/")[2] for hit in kb.search("otters", k=50)),
            "problems": kb.verify(),
            "clustered": sum(len(cluster.rows) for each in kb.clusterings() for cluster in each.clusters),
            "orphans": sorted(path.name for path in (kb.folder / store.SEGMENTS).iterdir() if path.name not in named)}


def main(operation: str, scratch: Path, stride: int) -> None:
    prepare, work = OPERATIONS[operation]
    whole = scratch / "whole"
    prepare(whole)
    _, points = attempt(operation, whole, 0)
    after = state(whole)
    first = scratch / "first"
    prepare(first)
    before = state(first)
    for fatal in sorted({*range(1, points, stride), points - 1}):
        place = scratch / "at"
        shutil.rmtree(place, ignore_errors=True)
        prepare(place)
        status, _ = attempt(operation, place, fatal)
        found = state(place)
        kb = open_kb(place)
        work(kb, place)
        with writing(kb.folder):    # what a killed operation left behind goes with the next write, if there was none by now
            pass
        print(json.dumps({"fatal": fatal, "points": points, "killed": os.WIFSIGNALED(status), "before": before, "after": after,
                          "found": found, "rerun": state(place)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
