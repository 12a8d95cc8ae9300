"""Zip archives: each member a document; and every bomb and trick, really built and refused."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from rag.settings import Settings
from rag.types import Document, FileFailure, Skipped
from tests.loading import failure, items, zipped


def sources(loaded: list[Document | FileFailure]) -> list[tuple[str, str]]:
    return [(type(item).__name__, item.source.removeprefix("docs/a.zip")) for item in loaded]


def test_members_are_documents_named_after_the_archive(tmp_path: Path, settings: Settings) -> None:
    data = zipped({"b/": b"", "b/guide.md": "# Lamps\n\nThey glow.",
                   "rows.jsonl": '{"id": "r1", "text": "One."}\n{"id": "r2", "text": "Two."}', "pic.png": b"\x89PNG",
                   "LICENSE": "Terms.", "prog": b"\x7fELF\0\0\0", "bad.pdf": "no pdf", "__MACOSX/._guide.md": b"\0\1",
                   ".hidden/x.txt": "x", "Thumbs.db": b"x", "n.txt.gz": gzip.compress(b"Squeezed.")})
    loaded = items(tmp_path / "a.zip", data, settings)
    assert sources(loaded) == [
        ("Document", "#b/guide.md"), ("Document", "#rows.jsonl#r1"), ("Document", "#rows.jsonl#r2"), ("Skipped", "#pic.png"),
        ("Document", "#LICENSE"), ("Skipped", "#prog"), ("FileFailure", "#bad.pdf"), ("Document", "#n.txt.gz")]
    guide = loaded[0]
    assert isinstance(guide, Document)
    assert (guide.title, guide.uri) == ("Lamps", f"{tmp_path / 'a.zip'}#b/guide.md")
    assert guide.id != loaded[4].id  # type: ignore[union-attr]


def test_zips_in_zips_to_the_second(tmp_path: Path, settings: Settings) -> None:
    second = zipped({"b.txt": "Second.", "third.zip": zipped({"c.txt": "Third."})})
    loaded = items(tmp_path / "a.zip", zipped({"x/second.zip": second, "a.txt": "First."}), settings)
    assert sources(loaded) == [
        ("Document", "#x/second.zip#b.txt"), ("FileFailure", "#x/second.zip#third.zip"), ("Document", "#a.txt")]
    assert isinstance(loaded[1], FileFailure)
    assert loaded[1].code == "file_nested"


def test_an_unpacked_document_in_an_archive_is_still_an_archive(tmp_path: Path, settings: Settings) -> None:
    loaded = items(tmp_path / "a.zip", zipped({"word/document.xml": "<w/>", "content.xml": "<x/>"}), settings)
    assert sources(loaded) == [("Document", "#word/document.xml"), ("Document", "#content.xml")]


def test_an_empty_archive_is_told(tmp_path: Path, settings: Settings) -> None:
    assert failure(tmp_path / "a.zip", zipped({}), settings).code == "file_empty"
    assert failure(tmp_path / "a.zip", zipped({"only/": b""}), settings).code == "file_empty"


# What is refused

@pytest.mark.parametrize("name", [
    "../../etc/cron.d/x.txt", "/etc/x.txt", "C:\\x.txt", "a/..\\..\\x.txt", "\\\\host\\x.txt", "../x.png"])
def test_names_that_lead_out_are_refused_and_the_rest_is_read(tmp_path: Path, settings: Settings, name: str) -> None:
    loaded = items(tmp_path / "a.zip", zipped({name: "Words.", "good.txt": "Good."}), settings)
    assert [type(item).__name__ for item in loaded] == ["FileFailure", "Document"]
    assert isinstance(loaded[0], FileFailure)
    assert loaded[0].code == "member_refused"
    assert name.rpartition("/")[2] in loaded[0].source


def test_links_are_refused(tmp_path: Path, settings: Settings) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        link = zipfile.ZipInfo("passwords.txt")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    [told] = items(tmp_path / "a.zip", data.getvalue(), settings)
    assert isinstance(told, FileFailure)
    assert told.code == "member_refused"


def overlapping(*names: str) -> bytes:
    """A bomb after David Fifield: many directory entries for one stretch of compressed bytes."""
    plain = zipped({"kernel.txt": b"\0 " * 500_000})
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        start = archive.start_dir
    entry = plain[start:start + 46]
    entries = b"".join(entry[:28] + struct.pack("<H", len(name)) + entry[30:] + name.encode() for name in names)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(names), len(names), len(entries), start, 0)
    return plain[:start] + entries + end


def test_members_that_share_bytes_are_refused(tmp_path: Path, settings: Settings) -> None:
    bombs = {"a.zip": overlapping(*(f"{n}.txt" for n in range(50))), "a.docx": overlapping("word/document.xml", "b.xml")}
    for name, bomb in bombs.items():
        told = failure(tmp_path / name, bomb, settings)
        assert (told.code, "share bytes" in told.message) == ("file_corrupt", True)


@pytest.mark.parametrize("suffix", [".zip", ".docx", ".xlsx", ".pptx", ".epub"])
def test_what_unpacks_to_too_much_is_refused_unopened(tmp_path: Path, settings: Settings, suffix: str) -> None:
    main = {".docx": "word/document.xml", ".xlsx": "xl/workbook.xml", ".pptx": "ppt/presentation.xml",
            ".epub": "META-INF/container.xml"}
    data = zipped({main.get(suffix, "a.txt"): b" " * 3_000_000})
    told = failure(tmp_path / f"a{suffix}", data, replace(settings, max_file_mb=2))
    assert (told.code, "3 MB, more than 2 MB" in told.message, "max_file_mb" in told.hint) == ("file_too_large", True, True)
    told = failure(tmp_path / f"a{suffix}", data, settings)
    assert (told.code, "times its size" in told.message, "max_expansion" in told.hint) == ("file_too_large", True, True)


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, settings: Settings) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert "max_expansion" in failure(tmp_path / "a.txt.gz", bomb, settings).hint
    assert "max_file_mb" in failure(tmp_path / "a.txt.gz", bomb, replace(settings, max_file_mb=20, max_expansion=100_000)).hint


def test_millions_of_empty_gzip_members_take_no_long_time(tmp_path: Path, settings: Settings) -> None:
    started = time.perf_counter()
    assert failure(tmp_path / "a.txt.gz", gzip.compress(b"") * 200_000, settings).code == "file_empty"
    assert time.perf_counter() - started < 20        # one after the other: their square would take minutes


def test_a_bomb_of_bombs_is_bounded_by_the_outermost_file(tmp_path: Path, settings: Settings) -> None:
    inner = zipped({f"{n}.txt": b" " * 900_000 for n in range(10)})
    data = zipped({f"{n}.zip": inner for n in range(20)})
    loaded = items(tmp_path / "a.zip", data, replace(settings, max_file_mb=30, max_expansion=100_000))
    refused = [item for item in loaded if isinstance(item, FileFailure)]
    assert len(refused) >= 16
    assert {item.code for item in refused} <= {"file_too_large", "file_empty"}
    assert len(loaded) < 60


def test_a_size_that_the_directory_states_too_small_unpacks_no_further(tmp_path: Path, settings: Settings) -> None:
    data = bytearray(zipped({"a.txt": b"a" * 5_000_000}))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.start_dir
    data[start + 24:start + 28] = struct.pack("<L", 10)
    [told] = items(tmp_path / "a.zip", bytes(data), settings)
    assert isinstance(told, FileFailure)
    assert told.code == "file_corrupt"


def test_what_is_not_read_does_not_count(tmp_path: Path, settings: Settings) -> None:
    data = zipped({"film.mp4": b"\0" * 3_000_000, "a.txt": "Words."})
    loaded = items(tmp_path / "a.zip", data, replace(settings, max_file_mb=1))
    assert sources(loaded) == [("Skipped", "#film.mp4"), ("Document", "#a.txt")]


def test_a_protected_member_is_told_and_the_rest_is_read(tmp_path: Path, settings: Settings) -> None:
    data = bytearray(zipped({"a.txt": "Secret.", "b.txt": "Open."}, method=zipfile.ZIP_STORED))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.start_dir
    data[start + 8] |= 1
    first, second = items(tmp_path / "a.zip", bytes(data), settings)
    assert isinstance(first, FileFailure)
    assert first.code == "file_encrypted"
    assert isinstance(second, Document)


@pytest.mark.parametrize("spoil", [lambda data: data[:-30], lambda data: data[:40], lambda data: data.replace(b"Wor", b"XXX", 1)])
def test_damaged_archives_are_told(tmp_path: Path, settings: Settings, spoil: object) -> None:
    data = spoil(zipped({"a.txt": "Words."}, method=zipfile.ZIP_STORED))  # type: ignore[operator]
    [told] = items(tmp_path / "a.zip", data, settings)
    assert isinstance(told, FileFailure)
    assert told.code in {"file_corrupt", "file_unsupported"}


def test_nothing_is_written_anywhere(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "in").mkdir()
    items(tmp_path / "in" / "a.zip", zipped({"../out.txt": "x", "sub/b.txt": "Words."}), settings)
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.zip"]


def test_a_skipped_member_is_no_failure_of_the_archive(tmp_path: Path, settings: Settings) -> None:
    [picture] = items(tmp_path / "a.zip", zipped({"pic.png": b"\x89PNG"}), settings)
    assert isinstance(picture, Skipped)
