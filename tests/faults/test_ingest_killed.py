"""kill -9 at every point where a collection is written: the old state or the new one serves, and a rerun completes."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from indexers import segments, store, writer
from rag.errors import StorageError
from rag.settings import Settings, load
from rag.thriftrag import ThriftRAG
from tests.fakes import ScriptedReader, WordEncoder
from tests.faults.kill_everywhere import OPERATIONS

# Points between two kills: 1 takes minutes. Odd, so that both ends of calls that count twice are met.
STRIDE = {"ingest": 13, "update": 11, "delete": 3, "compact": 3, "rebuild": 3, "clusters": 5}


def kb_of(home: Path) -> ThriftRAG:
    return ThriftRAG.open("kb", settings=load({"home": home, "batch_chunks": 2, "workers": 0}, environ={}), encoder=WordEncoder(),
                          reader=ScriptedReader())


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for i in range(3):
        (folder / f"f{i}.txt").write_text(f"File number {i} speaks of otters.", encoding="utf-8")
    return folder


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_any_write_nothing_is_lost_and_a_rerun_completes(tmp_path: Path, operation: str) -> None:
    done = subprocess.run([sys.executable, "-m", "tests.faults.kill_everywhere", operation, str(tmp_path), str(STRIDE[operation])],
                          capture_output=True, text=True, check=False, timeout=280, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(points) >= 8
    for point in points:
        at = f"{operation} killed at {point['fatal']} of {point['points']}"
        found, before, after = point["found"], point["before"], point["after"]
        # Threads meet in another order each time: a run may have a write or two less than the one that was counted.
        assert point["killed"] or (found == after and point["fatal"] > point["points"] - 10), at
        assert found["problems"] == [], at
        # Each document is as it was before or as it is after, and search finds exactly the documents there are.
        assert found["found"] == sorted(found["documents"]), at
        for name, text in found["documents"].items():
            assert text in (before["documents"].get(name), after["documents"].get(name)), (at, name)
        assert before["documents"].keys() & after["documents"].keys() <= found["documents"].keys(), at
        assert found["clustered"] in (before["clustered"], after["clustered"]), at
        assert point["rerun"] == after, at


@pytest.mark.parametrize("where", ["vectors", "words", "rename"])
def test_a_full_disk_is_a_clean_error_and_the_old_state_serves(settings: Settings, docs: Path, where: str,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    kb = ThriftRAG.open("kb", settings=settings, encoder=WordEncoder(), reader=ScriptedReader())
    kb.ingest(docs / "f0.txt")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    targets = {"vectors": (segments.vectors, "write"), "words": (segments.lexical, "write"), "rename": (segments.os, "rename")}
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

    def cramped(folder: Path, *, any_format: bool = False):  # type: ignore[no-untyped-def]
        db = connect(folder, any_format=any_format)
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        return db

    (docs / "big.txt").write_text("Otters everywhere. " * 20_000, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "connect", cramped)
        with pytest.raises(StorageError, match="No space left"):
            kb.ingest(docs)
    assert kb.verify() == []
    assert kb.ingest(docs).failures == ()
