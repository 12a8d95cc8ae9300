"""An import that is killed at any of its writes leaves no collection or a whole one; the next one removes the rest."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rag.settings import load
from rag.thriftrag import ThriftRAG, import_collection
from tests.fakes import ScriptedReader, WordEncoder

CHILD = """
import sys
from pathlib import Path
from rag.settings import load
from rag.thriftrag import import_collection
from tests.fakes import WordEncoder
from tests.faults.kill_everywhere import Counter

archive, home, fatal = sys.argv[1], sys.argv[2], int(sys.argv[3])
encoder = WordEncoder()
settings = load({"home": Path(home)}, environ={})
counter = Counter(fatal)
counter.install()
import_collection(archive, settings=settings, encoder=encoder)
print(counter.seen)
"""
POINTS = 6


def imported(archive: Path, home: Path, fatal: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", CHILD, str(archive), str(home), str(fatal)], capture_output=True, text=True,
                          timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)


def open_kb(home: Path) -> ThriftRAG:
    settings = load({"home": home, "workers": 0}, environ={})
    return ThriftRAG.open("kb", settings=settings, encoder=WordEncoder(), reader=ScriptedReader())


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    kb = open_kb(tmp_path / "home")
    kb.ingest(lines=[json.dumps({"id": f"d{n}", "text": f"File number {n} speaks of otters."}) for n in range(5)])
    kb.export(tmp_path / "kb.zip")
    return tmp_path / "kb.zip"


def test_a_killed_import_leaves_nothing_half_made(archive: Path, tmp_path: Path) -> None:
    whole = imported(archive, tmp_path / "unhurt", 0)
    assert whole.returncode == 0, whole.stderr
    writes = int(whole.stdout)
    expected = [hit.chunk.id for hit in open_kb(tmp_path / "home").search("otters")]
    for point in sorted({max(1, writes * part // POINTS) for part in range(1, POINTS + 1)}):
        home = tmp_path / f"killed{point}"
        done = imported(archive, home, point)
        assert done.returncode == -signal.SIGKILL, done.stderr
        root = home / "collections"
        there = [path.name for path in root.iterdir() if not path.name.startswith(".")] if root.is_dir() else []
        if not there:
            assert import_collection(archive, settings=load({"home": home}, environ={}), encoder=WordEncoder()) is not None
        kb = open_kb(home)
        assert kb.verify() == []
        assert [hit.chunk.id for hit in kb.search("otters")] == expected
        assert not list(root.glob(".import-*"))
