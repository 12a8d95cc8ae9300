"""Parsing here and in processes: the same documents in the same order, ahead of the consumer, within bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from indexers import parsing
from indexers.loaders import Found, discover, load, wire
from indexers.parsing import InProcess, Workers
from rag.settings import Settings
from rag.types import Block, Document, FileFailure, Skipped
from tests.loading import zipped

Parsed = list[tuple[Found, list[Document | FileFailure]]]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Files of many kinds, good and bad, more than are parsed here."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for n in range(12):
        (folder / f"{n:02}.html").write_text(f"<main><h1>Page {n}</h1><p>Words of page {n}.</p></main>")
        (folder / f"{n:02}.md").write_text(f"---\ntags: [a, b{n}]\n---\n# Note {n}\n\n| a | b |\n|---|---|\n| {n} | é |\n")
        (folder / f"{n:02}.py").write_text(f"def f{n}():\n    return {n}\n")
    records = ({"id": f"r{n}", "text": f"Record {n}. " * 20} for n in range(2000))
    (folder / "big.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    (folder / "all.zip").write_bytes(zipped({"a.md": "# In\n\nwords", "b.png": b"\x89PNG", "c.pdf": "no pdf"}))
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    (folder / "empty.txt").write_bytes(b"")
    with open(os.fsencode(folder) + b"/odd\xff.html", "wb") as stream:
        stream.write(b"<p>Odd name.</p>")
    return folder


def found(folder: Path, settings: Settings) -> list[Found]:
    return [item for item in discover([folder], settings=settings) if isinstance(item, Found)]


def taken(results: Iterator[tuple[Found, Iterator[Document | FileFailure]]]) -> Parsed:
    return [(item, list(documents)) for item, documents in results]


def wait(until: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Waits for another thread or process without a fixed pause."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_give_what_parsing_here_gives(docs: Path, settings: Settings, workers: int,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_HERE_BYTES", 2000)
    files = found(docs, settings)
    with InProcess(settings) as here, Workers(replace(settings, workers=workers)) as there:
        expected = taken(here.parse(files))
        assert taken(there.parse(files)) == expected
        assert taken(there.parse(files[::-1])) == expected[::-1]
    assert {type(item) for _, items in expected for item in items} == {Document, FileFailure, Skipped}
    assert len(expected) == len(files)


def test_a_few_small_files_start_no_process(docs: Path, settings: Settings) -> None:
    files = [item for item in found(docs, settings) if item.path.suffix in {".md", ".txt"}]
    with Workers(settings) as workers:
        assert taken(workers.parse(files)) == taken(InProcess(settings).parse(files))
        assert workers._processes == set()
        taken(workers.parse(item for item in found(docs, settings) if item.path.suffix == ".jsonl"))
        assert len(workers._processes) == 1


def test_nothing_is_nothing(settings: Settings) -> None:
    with Workers(settings) as workers:
        assert taken(workers.parse([])) == []


def test_files_are_asked_for_in_this_thread_and_not_all_at_once(docs: Path, settings: Settings,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_AHEAD_FILES", 5)
    files = found(docs, settings)
    asked: list[str] = []

    def given() -> Iterator[Found]:
        for item in files:
            asked.append(threading.current_thread().name)
            yield item

    with Workers(settings) as workers:
        results = workers.parse(given())
        next(results)
        assert len(asked) == 5
        assert len(taken(results)) == len(files) - 1
    assert set(asked) == {threading.current_thread().name}


def test_what_waits_is_bounded_and_a_large_file_comes_in_pieces(tmp_path: Path, settings: Settings,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_AHEAD_BYTES", 50_000)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"id": f"{n}", "text": "x" * 5000}) + "\n" for n in range(400)))
    monkeypatch.setattr(parsing, "_HERE_BYTES", 0)
    with Workers(replace(settings, workers=3)) as workers:
        count = 0
        most = 0
        for _, documents in workers.parse([Found(tmp_path / f"{name}.jsonl", name, 1) for name in ("a", "b", "c")]):
            for _ in documents:
                if count == 0:      # the processes run ahead until there is no more room
                    wait(lambda: workers._waiting_bytes > 44_000)
                most = max(most, workers._waiting_bytes)
                count += 1
        assert count == 1200
        assert workers._waiting_bytes == 0
    assert 44_000 < most <= 50_000


def test_one_document_larger_than_the_bound_gets_through(tmp_path: Path, settings: Settings,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_AHEAD_BYTES", 1000)
    for n in range(4):
        (tmp_path / f"{n}.html").write_text(f"<p>{'words ' * 2000}</p>")
    with Workers(settings) as workers:
        assert len(taken(workers.parse(found(tmp_path, settings)))) == 4


def test_a_file_left_half_way_does_not_disturb_the_next(docs: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "_AHEAD_BYTES", 20_000)
    monkeypatch.setattr(parsing, "_HERE_BYTES", 0)
    jsonl = Found(docs / "big.jsonl", "big", 1)
    page = Found(docs / "03.html", "page", 1)
    with Workers(settings) as workers:
        results = workers.parse([jsonl, page, jsonl])
        _, first = next(results)
        next(first)
        _, second = next(results)
        assert [item.title for item in second if isinstance(item, Document)] == ["Page 3"]
        assert len(list(next(results)[1])) == 2000
        assert list(results) == []


def test_a_run_left_half_way_leaves_the_processes_usable(docs: Path, settings: Settings) -> None:
    files = found(docs, settings)
    with Workers(settings) as workers:
        for _, documents in workers.parse(files):
            next(documents)
            break
        assert taken(workers.parse(files)) == taken(InProcess(settings).parse(files))


def test_closing_ends_the_processes_and_can_be_repeated(docs: Path, settings: Settings) -> None:
    workers = Workers(settings)
    results = workers.parse(found(docs, settings))
    next(results)
    wait(lambda: len(workers._processes) == 2)
    pids = [process._popen.pid for process in workers._processes]
    workers.close()
    workers.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_an_error_of_the_given_files_goes_through(docs: Path, settings: Settings) -> None:
    def given() -> Iterator[Found]:
        yield Found(docs / "00.html", "a", 1)
        raise LookupError("the list broke")

    with Workers(settings) as workers, pytest.raises(LookupError):
        taken(workers.parse(given()))


def test_workers_import_no_more_than_the_loaders() -> None:
    heavy = ("numpy", "openvino", "faiss", "lxml", "docx", "pptx", "openpyxl", "pypdfium2", "trafilatura", "markdown_it",
             "multiprocessing", "sqlite3")
    code = f"import sys, indexers.loaders.worker; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_keys_do_not_reach_the_processes(docs: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTRAG_READER_API_KEY", "from-environment")
    with Workers(replace(settings, reader_api_key="from-settings")) as workers:
        taken(workers.parse([Found(docs / "00.html", "a", 1)]))
        [process] = workers._processes
        pid = process._popen.pid
        seen = Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"from-" not in seen


# The wire

def test_items_come_back_as_they_were() -> None:
    block = Block((0, 3), "A > B", 7, ((0, 1), (1, 3)))
    made = Document("i\ud800", "s", "u", "é", "a\ud800b\0", "h", (block, Block((1, 2))), "text/x", "de",
                    {"a": (1, "x", None, True, 2.5), "b": None, "c": ()})
    for item in (made, FileFailure("s\udcff", "c", "m", "h"), Skipped("s", "c", "m", "h")):
        again = wire.to_item(wire.of_item(item))
        assert again == item
        assert type(again) is type(item)
    file = Found(Path(os.fsdecode(b"/a/\xff.txt")), "s", 5, named=False)
    assert wire.to_file(wire.of_file(file)) == file


def test_what_is_no_frame_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    frame = wire.of_item(FileFailure("s", "c", "m", "h"))
    with path.open("wb") as out:
        wire.write(out, frame)
    data = path.read_bytes()
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with path.open("rb") as stream:
            assert wire.read(stream, largest=1000) is None
    path.write_bytes(data[:1] + b"\xff" * 12 + data[13:])
    with path.open("rb") as stream, pytest.raises(ValueError, match="bytes"):
        wire.read(stream, largest=1000)
    path.write_bytes(b"\x63" + data[1:])
    with path.open("rb") as stream, pytest.raises(ValueError, match="99"):
        wire.read(stream, largest=1000)


def test_loading_here_keeps_its_promise(docs: Path, settings: Settings) -> None:
    [(item, documents)] = InProcess(settings).parse([Found(docs / "00.md", "a.md", 1)])
    assert list(documents) == list(load(item, settings=settings))
