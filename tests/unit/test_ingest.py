"""Ingestion: what costs work, what does not, and what happens to files that cannot be read."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from indexers import intake
from indexers.snapshot import Snapshot
from rag.durable import sha256_of
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


def test_a_passage_encoded_before_is_never_encoded_again(settings: Settings, docs: Path) -> None:
    encoder = WordEncoder()
    kb = open_kb(settings, encoder)
    first = kb.ingest(docs)
    assert (first.encoded, first.recalled) == (2, 0)
    other = ThriftRAG.open("other", settings=settings, encoder=encoder, reader=ScriptedReader())
    second = other.ingest(docs)
    assert (second.encoded, second.recalled, len(encoder.encoded)) == (0, 2, 2)
    rows = Snapshot(kb.folder).rows().tolist()
    assert np.array_equal(Snapshot(kb.folder).vectors(rows), Snapshot(other.folder).vectors(rows))


def test_a_moved_file_keeps_its_text_and_costs_no_encoding(settings: Settings, docs: Path) -> None:
    encoder = WordEncoder()
    kb = open_kb(settings, encoder)
    (docs / "records.jsonl").write_text(json.dumps({"id": "r1", "title": "One", "text": "Record one."}), encoding="utf-8")
    kb.ingest(docs)
    before = len(encoder.encoded)
    (docs / "records.jsonl").rename(docs / "sub" / "renamed.jsonl")
    report = kb.ingest(docs)
    assert (report.added, report.moved, report.unchanged, report.gone) == (1, 1, 2, 0)
    assert len(encoder.encoded) == before
    assert {document.id: document.source for document in kb.documents()}["r1"].endswith("sub/renamed.jsonl#r1")
    assert len(kb.documents()) == 3
    assert kb.verify() == []


def test_a_copy_is_no_move(settings: Settings, docs: Path) -> None:
    kb = open_kb(settings)
    kb.ingest(docs)
    shutil.copy(docs / "a.txt", docs / "copy.txt")
    report = kb.ingest(docs)
    assert (report.added, report.moved, len(kb.documents())) == (1, 0, 3)


def test_documents_whose_file_is_gone_are_kept_unless_pruning_is_asked_for(settings: Settings, docs: Path, tmp_path: Path) -> None:
    kb = open_kb(settings)
    (tmp_path / "elsewhere.txt").write_text("Elsewhere.", encoding="utf-8")
    kb.ingest(docs, tmp_path / "elsewhere.txt")
    (docs / "a.txt").unlink()
    (tmp_path / "elsewhere.txt").unlink()
    kept = kb.ingest(docs)
    assert (kept.gone, kept.removed, len(kb.documents())) == (1, 0, 3)
    dry = kb.ingest(docs, prune=True, dry_run=True)
    assert (dry.removed, len(kb.documents())) == (0, 3)
    pruned = kb.ingest(docs, prune=True)
    assert (pruned.gone, pruned.removed) == (0, 1)
    # What lies outside the folder that is named is not looked at.
    assert sorted(Path(document.source).name for document in kb.documents()) == ["b.md", "elsewhere.txt"]


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_folder_that_is_gone_or_empty_may_be_a_disk_that_is_not_mounted(settings: Settings, docs: Path, how: str) -> None:
    kb = open_kb(settings)
    kb.ingest(docs)
    shutil.rmtree(docs)
    if how == "empty":
        docs.mkdir()
    report = kb.ingest(docs, prune=True)
    assert (report.removed, len(kb.documents())) == (0, 2)


def test_a_file_with_the_times_of_the_last_run_is_not_even_opened(settings: Settings, docs: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    kb = open_kb(settings)
    kb.ingest(docs)
    old = time.time() - 3600
    for path in (docs / "a.txt", docs / "sub" / "b.md"):
        os.utime(path, (old, old))
    hashed: list[str] = []

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(intake, "sha256_of", counted)
    # The inode was changed just now, within the grain of the clock: the hash decides, and the new times are noted.
    assert kb.ingest(docs).unchanged == 2
    assert sorted(hashed) == ["a.txt", "b.md"]
    monkeypatch.setattr(intake, "_RACY_NS", 0)
    assert kb.ingest(docs).unchanged == 2
    assert len(hashed) == 2
    snapshot = kb.info().snapshot
    (docs / "a.txt").write_text("Aleph is the 1st letter...", encoding="utf-8")     # as many bytes as before
    os.utime(docs / "a.txt", (old, old))
    assert kb.ingest(docs).changed == 1
    assert kb.info().snapshot != snapshot


def test_a_clock_set_back_only_costs_a_second_look(settings: Settings, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake.time, "time_ns", lambda: 10 ** 18)
    kb = open_kb(settings)
    kb.ingest(docs)
    monkeypatch.setattr(intake.time, "time_ns", lambda: 10 ** 9)
    (docs / "a.txt").write_text("Alpha was the first letter", encoding="utf-8")
    report = kb.ingest(docs)
    assert (report.changed, report.unchanged) == (1, 1)


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
    assert {tick.done for tick in watched if tick.stage == "encode"} == {1}
    size = sum(path.stat().st_size for path in folder.iterdir())
    read = [(tick.done, tick.total) for tick in watched if tick.stage == "read"]
    assert read[-1] == (size, size)
    assert [done for done, _ in read] == sorted(done for done, _ in read)


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
