"""kill -9 at every point where ingestion writes: the previous state serves, nothing is broken, and a rerun completes.

A child process counts its own file-system and SQL writes and kills itself at the n-th, for every n until a run gets through.
"""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from indexers import store, writer
from rag.errors import StorageError
from rag.settings import Settings, load
from rag.thriftrag import ThriftRAG
from tests.fakes import ScriptedReader, WordEncoder

CHILD = """
import os, signal, sqlite3, sys
from pathlib import Path
home, docs, fatal = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen = 0
def tick():
    global seen
    seen += 1
    if seen == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
def counted(function):
    def call(*args, **kwargs):
        tick()
        result = function(*args, **kwargs)
        tick()
        return result
    return call
for name in ("rename", "fsync", "mkdir", "rmdir", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
Path.write_bytes = counted(Path.write_bytes)
Path.mkdir = counted(Path.mkdir)
from indexers import lexical, store, writer
lexical.np.savez = counted(lexical.np.savez)
connect = store.connect
class Counted:
    def __init__(self, db): self.db = db
    def __getattr__(self, name): return getattr(self.db, name)
    def execute(self, *args): tick(); return self.db.execute(*args)
    def executemany(self, *args): tick(); return self.db.executemany(*args)
store.connect = writer.connect = lambda *args, **kwargs: Counted(connect(*args, **kwargs))
from rag.settings import load
from rag.thriftrag import ThriftRAG
from tests.fakes import ScriptedReader, WordEncoder
settings = load({"home": home, "batch_chunks": 2}, environ={})
kb = ThriftRAG.open("kb", settings=settings, encoder=WordEncoder(), reader=ScriptedReader())
kb.ingest(docs)
print(seen)
"""


def kb_of(home: Path) -> ThriftRAG:
    return ThriftRAG.open("kb", settings=load({"home": home, "batch_chunks": 2}, environ={}), encoder=WordEncoder(),
                          reader=ScriptedReader())


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(3):
        (folder / f"f{i}.txt").write_text(f"File number {i} speaks of otters.", encoding="utf-8")
    return folder


def ingest_in_child(home: Path, docs: Path, fatal: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CHILD, str(home), str(docs), str(fatal)], capture_output=True, text=True,
                          check=False, timeout=120)


def test_killed_at_any_write_the_old_state_serves_and_a_rerun_completes(tmp_path: Path, docs: Path) -> None:
    whole = ingest_in_child(tmp_path / "whole", docs, 0)
    assert whole.returncode == 0, whole.stderr
    points = int(whole.stdout)
    assert points > 30
    # Every point would take minutes of process starts: a stride that meets each kind of write, and both ends.
    for fatal in sorted({*range(1, points + 1, max(1, points // 24)), points}):
        home = tmp_path / f"at-{fatal}"
        killed = ingest_in_child(home, docs, fatal)
        assert killed.returncode == -9, (fatal, killed.stderr)
        kb = kb_of(home)
        if kb.exists():
            assert kb.verify() == [], fatal
            held = {document.source for document in kb.documents()}
            assert {hit.chunk.source for hit in kb.search("otters", k=9)} == held, fatal
        report = kb.ingest(docs)
        assert report.failures == ()
        assert (kb.verify(), len(kb.documents()), len(kb.search("otters", k=9))) == ([], 3, 3), fatal
        segments = {path.name for path in (kb.folder / store.SEGMENTS).iterdir()}
        assert len(segments) == kb.info().segments, f"orphans after a kill at {fatal}"
        kb.close()


@pytest.mark.parametrize("where", ["vectors", "words", "rename"])
def test_a_full_disk_is_a_clean_error_and_the_old_state_serves(settings: Settings, docs: Path, where: str,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    kb = ThriftRAG.open("kb", settings=settings, encoder=WordEncoder(), reader=ScriptedReader())
    kb.ingest(docs / "f0.txt")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    targets = {"vectors": (Path, "write_bytes"), "words": (writer.lexical, "save"), "rename": (writer.os, "rename")}
    monkeypatch.setattr(*targets[where], full)
    with pytest.raises(StorageError, match="No space left") as caught:
        kb.ingest(docs)
    assert caught.value.code == "disk_full"
    monkeypatch.undo()
    assert [document.source.endswith("f0.txt") for document in kb.documents()] == [True]
    assert kb.verify() == []
    assert kb.ingest(docs).added == 2


def test_a_full_disk_under_the_store_itself(settings: Settings, docs: Path) -> None:
    kb = ThriftRAG.open("kb", settings=settings, encoder=WordEncoder(), reader=ScriptedReader())
    kb.ingest(docs / "f0.txt")
    connect = store.connect

    def cramped(folder: Path, *, create: bool = False):  # type: ignore[no-untyped-def]
        db = connect(folder, create=create)
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        return db

    (docs / "big.txt").write_text("Otters everywhere. " * 20_000, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "connect", cramped)
        with pytest.raises(StorageError, match="No space left"):
            kb.ingest(docs)
    assert kb.verify() == []
    assert kb.ingest(docs).failures == ()
