"""Ingestion: what costs work, what does not, and what happens to files that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag.settings import Settings, load
from rag.thriftrag import ThriftRAG
from rag.types import Progress
from tests.fakes import ScriptedReader, WordEncoder


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("Alpha is the first letter.", encoding="utf-8")
    (folder / "sub" / "b.md").write_text("# Beta\n\nBeta is the second letter.", encoding="utf-8")
    return folder


def open_kb(settings: Settings, encoder: WordEncoder | None = None) -> ThriftRAG:
    return ThriftRAG.open("kb", settings=settings, encoder=encoder or WordEncoder(), reader=ScriptedReader())


def test_an_unchanged_file_costs_no_work(settings: Settings, docs: Path) -> None:
    encoder = WordEncoder()
    kb = open_kb(settings, encoder)
    first = kb.ingest(docs)
    assert (first.added, first.changed, first.unchanged, first.failures) == (2, 0, 0, ())
    before, snapshot = len(encoder.encoded), kb.info().snapshot
    second = kb.ingest(docs)
    assert (second.added, second.changed, second.unchanged, second.chunks) == (0, 0, 2, 0)
    assert (len(encoder.encoded), kb.info().snapshot) == (before, snapshot)


def test_a_changed_file_replaces_its_chunks_and_no_others(settings: Settings, docs: Path) -> None:
    encoder = WordEncoder()
    kb = open_kb(settings, encoder)
    kb.ingest(docs)
    (docs / "a.txt").write_text("Aleph replaces it.", encoding="utf-8")
    before = len(encoder.encoded)
    report = kb.ingest(docs)
    assert (report.added, report.changed, report.unchanged, report.chunks) == (0, 1, 1, 1)
    assert len(encoder.encoded) == before + 1
    assert sorted(hit.chunk.text for hit in kb.search("letter replaces", k=10, mode="dense")) == [
        "Aleph replaces it.", "Beta is the second letter."]
    assert kb.verify() == []


def test_records_that_left_a_file_leave_the_collection(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    records = [{"id": f"r{i}", "text": f"Record number {i}."} for i in range(4)]
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    kb = open_kb(settings)
    kb.ingest(path)
    path.write_text("\n".join(map(json.dumps, records[:2])), encoding="utf-8")
    report = kb.ingest(path)
    assert (report.unchanged, report.added) == (2, 0)
    assert [document.id for document in kb.documents()] == ["r0", "r1"]


def test_two_files_may_use_the_same_record_ids(settings: Settings, tmp_path: Path) -> None:
    for name, text in (("x", "From x."), ("y", "From y.")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": "1", "text": text}), encoding="utf-8")
    kb = open_kb(settings)
    kb.ingest(tmp_path / "x.jsonl", tmp_path / "y.jsonl")
    assert sorted(hit.chunk.text for hit in kb.search("from", k=9, mode="dense")) == ["From x.", "From y."]
    assert sorted(document.id.split("@")[0] for document in kb.documents()) == ["1", "1"]
    assert kb.ingest(tmp_path / "x.jsonl", tmp_path / "y.jsonl").unchanged == 2


def test_a_record_that_occurs_twice_is_reported_and_the_first_kept(settings: Settings) -> None:
    kb = open_kb(settings)
    report = kb.ingest(lines=[json.dumps({"id": "1", "text": "First."}), json.dumps({"id": "1", "text": "Second."})])
    assert report.added == 1
    assert len(report.failures) == 1
    assert "1" in report.failures[0].message
    assert kb.document("1").text == "First."


def test_a_bad_file_among_good_ones_is_reported_and_the_rest_goes_on(settings: Settings, docs: Path) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7\nthis is not really one")
    (docs / "empty.txt").write_bytes(b"")
    (docs / "noise.txt").write_bytes(bytes(range(256)) * 8)
    kb = open_kb(settings)
    report = kb.ingest(docs, docs / "missing.txt")
    assert report.added == 2
    by_name = {Path(failure.source).name: failure for failure in report.failures}
    assert set(by_name) == {"broken.pdf", "empty.txt", "noise.txt", "missing.txt"}
    assert all(failure.message and name in failure.message for name, failure in by_name.items())


def test_what_failed_is_read_again_and_what_it_held_stays_until_it_reads_cleanly(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"id": "1", "text": "One."}) + "\n" + json.dumps({"id": "2", "text": "Two."}), encoding="utf-8")
    kb = open_kb(settings)
    kb.ingest(path)
    path.write_text(json.dumps({"id": "1", "text": "One."}) + "\n{broken", encoding="utf-8")
    report = kb.ingest(path)
    assert len(report.failures) == 1
    assert [document.id for document in kb.documents()] == ["1", "2"]


def test_a_deleted_document_comes_back_when_its_file_is_ingested_again(settings: Settings, docs: Path) -> None:
    kb = open_kb(settings)
    kb.ingest(docs)
    gone = next(document for document in kb.documents() if document.source.endswith("a.txt"))
    kb.delete(gone.id)
    assert kb.ingest(docs).added == 1


def test_equal_passages_are_encoded_once(settings: Settings, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.txt").write_text("The very same words.", encoding="utf-8")
    encoder = WordEncoder()
    kb = open_kb(settings, encoder)
    assert kb.ingest(tmp_path / "a", tmp_path / "b").added == 2
    assert len(encoder.encoded) == 1


def test_a_dry_run_writes_nothing(settings: Settings, docs: Path) -> None:
    kb = open_kb(settings)
    kb.ingest(docs)
    (docs / "c.txt").write_text("Gamma is third.", encoding="utf-8")
    snapshot = kb.info().snapshot
    report = kb.ingest(docs, dry_run=True)
    assert (report.added, report.chunks, report.dry_run) == (1, 1, True)
    assert kb.info().snapshot == snapshot
    assert len(kb.documents()) == 2


def test_stopping_keeps_what_was_published_and_a_rerun_resumes(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(12):
        (folder / f"f{i:02}.txt").write_text(f"File number {i} speaks.", encoding="utf-8")
    encoder = WordEncoder()
    small = load({"home": settings.home, "batch_chunks": 2}, environ={})
    kb = ThriftRAG.open("kb", settings=small, encoder=encoder, reader=ScriptedReader())
    seen: list[Progress] = []
    report = kb.ingest(folder, on_progress=seen.append, cancelled=lambda: len(encoder.encoded) >= 6)
    assert report.interrupted
    assert len(kb.documents()) == 6
    again = kb.ingest(folder)
    assert (again.unchanged, again.added) == (6, 6)
    assert len(encoder.encoded) == 12
    assert any(tick.stage == "encode" for tick in seen)
    watched: list[Progress] = []
    (folder / "new.txt").write_text("One more file speaks.", encoding="utf-8")
    kb.ingest(folder, on_progress=watched.append)
    assert [(tick.done, tick.total) for tick in watched if tick.stage == "encode"] == [(1, 1)]
    assert max(tick.done for tick in seen if tick.stage == "files") <= 12


def test_ctrl_c_leaves_a_sound_collection(settings: Settings, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kb = open_kb(settings)
    kb.ingest(docs)
    (docs / "c.txt").write_text("Gamma is third.", encoding="utf-8")
    monkeypatch.setattr(WordEncoder, "encode", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        kb.ingest(docs)
    monkeypatch.undo()
    assert kb.verify() == []
    assert kb.ingest(docs).added == 1
