"""A followed folder: what happens to files happens to documents, through the system's own notifications."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rag.errors import InputError
from rag.settings import Settings, load
from rag.thriftrag import ThriftRAG
from rag.types import IngestReport
from tests.fakes import ScriptedReader, WordEncoder

PATIENCE_S = 20.0


@contextmanager
def watching(settings: Settings, *paths: Path) -> Iterator[tuple[ThriftRAG, list[IngestReport]]]:
    kb = ThriftRAG.open("kb", settings=settings, encoder=WordEncoder(), reader=ScriptedReader())
    reports: list[IngestReport] = []
    over = threading.Event()
    thread = threading.Thread(target=lambda: kb.watch(*paths, on_report=reports.append, cancelled=over.is_set), daemon=True)
    thread.start()
    until(lambda: len(reports) == 1)
    time.sleep(0.5)             # the watch begins after the first report
    try:
        yield kb, reports
    finally:
        over.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def texts(kb: ThriftRAG) -> list[str]:
    return sorted(kb.document(document.id).text for document in kb.documents())


def test_files_that_come_change_move_and_go(tmp_path: Path) -> None:
    settings = load({"home": tmp_path / "home", "workers": 0}, environ={})
    docs = tmp_path / "docs"
    (docs / "sub").mkdir(parents=True)
    (docs / "a.txt").write_text("Alpha.", encoding="utf-8")
    with watching(settings, docs) as (kb, reports):
        assert texts(kb) == ["Alpha."]
        (docs / "b.txt").write_text("Beta.", encoding="utf-8")
        (docs / ".hidden.txt").write_text("Hidden.", encoding="utf-8")
        until(lambda: texts(kb) == ["Alpha.", "Beta."])
        (docs / "a.txt").write_text("Aleph.", encoding="utf-8")
        until(lambda: texts(kb) == ["Aleph.", "Beta."])
        (docs / "b.txt").rename(docs / "sub" / "c.txt")
        until(lambda: [Path(document.source).name for document in kb.documents()] == ["a.txt", "c.txt"])
        until(lambda: sum(report.moved for report in reports) == 1)
        (docs / "a.txt").unlink()
        until(lambda: texts(kb) == ["Beta."])
        outside = tmp_path / "new"
        outside.mkdir()
        (outside / "d.txt").write_text("Delta.", encoding="utf-8")
        shutil.move(outside, docs / "new")
        until(lambda: texts(kb) == ["Beta.", "Delta."])
        shutil.rmtree(docs / "new")
        until(lambda: texts(kb) == ["Beta."])
        assert kb.verify() == []


def test_what_is_not_there_cannot_be_followed(settings: Settings, tmp_path: Path) -> None:
    from indexers.watch import changes

    with pytest.raises(InputError, match="missing"):
        next(changes([tmp_path / "missing"], cancelled=lambda: False))
