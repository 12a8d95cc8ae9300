"""The process that reads uploads in: what it says is understood, and what it fails to say is told."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from api import ingesting
from api.handover import settings_of
from api.ingesting import Order, in_child
from indexers.snapshot import Snapshot
from rag.collection_settings import write
from rag.errors import Locked, RagError
from rag.thriftrag import folder_of
from rag.types import FileFailure, IngestReport, Progress, no_progress
from tests.api_fakes import make_collection, make_settings
from tests.fakes import WordEncoder

HEAD = "import json, sys; order = json.loads(sys.stdin.readline())\n"


@pytest.fixture
def order(tmp_path: Path) -> Order:
    return Order(make_settings(tmp_path, reader_api_key="secret"), "default", tmp_path, ("a.txt",))


def never() -> bool:
    return False


def test_errors_of_the_child_come_back_by_code(order: Order) -> None:
    """The real child, from its real start: there is no such collection."""
    with pytest.raises(RagError) as refused:
        in_child(order, no_progress, never)
    assert refused.value.code == "collection_missing"
    assert "'default'" in refused.value.message


def test_progress_and_the_report_come_back_as_they_were(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = FileFailure("b.pdf", "file_encrypted", "No.", "Yes.")
    report = IngestReport(added=2, chunks=5, seconds=0.5, failures=(failure,), snapshot="s")
    tick = {"stage": "encode", "done": 3, "total": None, "unit": "chunks", "note": ""}
    said = [{"progress": tick}, {"report": report.to_dict()}]
    monkeypatch.setattr(ingesting, "_BOOT", HEAD + f"for row in json.loads({json.dumps(said)!r}): print(json.dumps(row))")
    heard: list[Progress] = []
    assert in_child(order, heard.append, never) == report
    assert heard == [Progress("encode", 3, None)]


def test_the_child_is_told_everything_it_needs(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingesting, "_BOOT", HEAD + "print(json.dumps({'error': {'code': 'told', 'message': json.dumps(order), "
                                                   "'hint': '', 'field': None}}))")
    with pytest.raises(RagError) as told:
        in_child(order, no_progress, never)
    row = json.loads(told.value.message)
    assert (row["collection"], row["folder"], row["names"]) == ("default", str(order.folder), ["a.txt"])
    assert settings_of(row["settings"]) == order.settings
    assert row["settings"]["values"]["reader_api_key"] == "secret"        # through a pipe, never on a command line


def test_an_upload_leaves_a_collection_its_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real child takes the real order; what it would read in with is told instead."""
    monkeypatch.setattr(ingesting, "_BOOT", """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from api import ingesting
from rag.errors import RagError
from rag.thriftrag import ThriftRAG

def here(order, on_progress, cancelled):
    with ThriftRAG.open(order.collection, create=False, settings=order.settings) as kb:
        told = {name: [getattr(kb.settings, name), kb.settings.origin.get(name)] for name in ("candidates", "budget_tokens")}
    raise RagError(json.dumps(told), hint="", code="told")

ingesting.here = here
sys.exit(ingesting.main())
""")
    settings = make_settings(tmp_path, budget_tokens=300)
    make_collection(settings, WordEncoder())
    file = write(folder_of("default", settings=settings), {"candidates": 12, "budget_tokens": 100})
    with pytest.raises(RagError) as told:
        in_child(Order(settings, "default", tmp_path, ()), no_progress, never)
    assert json.loads(told.value.message) == {"candidates": [12, str(file)], "budget_tokens": [300, "flag"]}


def test_an_upload_keeps_to_the_chunks_that_the_collection_was_made_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "long.txt").write_text(" ".join(f"Sentence {number} speaks of the pump." for number in range(60)), encoding="utf-8")
    make_collection(make_settings(tmp_path, chunk_tokens=40), WordEncoder())
    monkeypatch.setattr("rag.thriftrag.open_encoder", lambda *_, **__: WordEncoder())
    monkeypatch.chdir(folder)
    order = Order(make_settings(tmp_path), "default", folder, ("long.txt",))
    assert order.settings.chunk_tokens == 200
    assert ingesting.here(order, no_progress, never).added == 1
    with closing(Snapshot(folder_of("default", settings=order.settings), indexes=False)) as snapshot:
        sizes = WordEncoder().count([chunk.text for batch in snapshot.all_chunks() for chunk in batch])
    assert 20 < max(sizes) <= 40


def test_a_child_that_dies_without_a_word_is_told_with_its_exit_code(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = HEAD + "import os; os.kill(os.getpid(), 9)"
    for boot, code in ((HEAD + "sys.exit(3)", "3"), (killed, "-9"), ("raise SystemExit(4)", "4")):
        monkeypatch.setattr(ingesting, "_BOOT", boot)
        with pytest.raises(RagError, match=f"exit code {code}") as died:
            in_child(order, no_progress, never)
        assert died.value.code == "ingestion_died"


def test_a_writer_elsewhere_is_told_apart(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingesting, "_BOOT", HEAD + "print(json.dumps({'error': {'code': 'collection_locked', 'message': 'm', "
                                                   "'hint': 'h', 'field': None}}))")
    with pytest.raises(Locked):
        in_child(order, no_progress, never)


def test_cancellation_reaches_the_child(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    report = IngestReport(interrupted=True).to_dict()
    monkeypatch.setattr(ingesting, "_BOOT", HEAD + "assert json.loads(sys.stdin.readline()) == {'cancel': True}\n"
                                                   f"print({json.dumps({'report': report})!r})")
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    assert in_child(order, no_progress, stop.is_set).interrupted


def test_a_child_that_does_not_stop_is_ended(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingesting, "_BOOT", HEAD + "import time; time.sleep(600)")
    monkeypatch.setattr(ingesting, "_STOP_S", 0.3)
    started = time.monotonic()
    with pytest.raises(RagError) as ended:
        in_child(order, no_progress, lambda: True)
    assert ended.value.code == "ingestion_killed"
    assert time.monotonic() - started < 60
