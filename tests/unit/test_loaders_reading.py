"""Reading bytes: bounded, consistent, and judged by content; decoding text of any encoding."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from pathlib import Path

import pytest

from indexers.loaders import Found, load, reading
from indexers.loaders.reading import decode, read_file, sniff
from indexers.loaders.unpacking import Allowance, gunzip
from rag.errors import FileUnreadable, UnsupportedFile
from rag.settings import Settings
from rag.types import Document, FileFailure

FRENCH = "Le café est fermé à cause de l'été. Où êtes-vous allés, mes chères élèves ?"
RUSSIAN = "Это простой русский текст о погоде и о том, как жить дальше в большом городе."
JAPANESE = "これは日本語のテキストです。東京は日本の首都であり、多くの人が住んでいます。"
CHINESE = "这是一个简单的中文文本。北京是中国的首都，有很多人住在那里。"
ARABIC = "هذا نص عربي بسيط عن الطقس وعن الحياة في المدينة الكبيرة."


@pytest.mark.parametrize(("text", "encoding"), [
    (FRENCH, "utf-8"), (FRENCH, "utf-8-sig"), (FRENCH, "utf-16"), (FRENCH, "utf-32"), (FRENCH, "latin-1"), (FRENCH, "cp1252"),
    (RUSSIAN, "cp1251"), (JAPANESE, "shift_jis"), (JAPANESE, "euc_jp"), (CHINESE, "gb18030"), (ARABIC, "cp1256"), ("", "utf-8")])
def test_text_of_any_encoding_comes_out_whole(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_a_few_bad_bytes_do_not_turn_utf8_into_garbage() -> None:
    data = (FRENCH * 5).encode()
    assert decode(data[:100] + b"\xff" + data[100:]).replace("\ufffd", "") == FRENCH * 5


def test_a_declared_encoding_is_believed_where_it_fits() -> None:
    assert decode("Zażółć gęślą jaźń".encode("iso8859-2"), declared="iso-8859-2") == "Zażółć gęślą jaźń"
    assert decode(FRENCH.encode("latin-1"), declared="no-such-encoding") == FRENCH


def test_short_western_text_is_not_taken_for_utf16() -> None:
    assert decode(b"caf\xe9")[:3] == "caf"


@pytest.mark.parametrize(("data", "name"), [
    (b"%PDF-1.7 ...", "a PDF document"), (b"\x89PNG\r\n\x1a\n\0", "a PNG image"), (b"\x7fELF\0\0", "a program"),
    (b"hello\0world", "binary data"), (bytes(range(1, 32)) * 9, "binary data"), (b"plain words", "text"),
    (b"MZ is a name too", "text"),
    (b"\xff\xfea\0b\0", "text"), (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "an old binary Office document")])
def test_content_is_known_by_its_bytes(data: bytes, name: str) -> None:
    assert sniff(data).name == name


def test_a_protected_office_document_is_known() -> None:
    assert "password" in sniff(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le")).name


def test_a_large_file_is_refused_with_the_setting(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "large.txt").write_bytes(b"x" * 1_000_001)
    with pytest.raises(UnsupportedFile, match="more than 1 MB") as caught:
        read_file(tmp_path / "large.txt", settings=replace(settings, max_file_mb=1))
    assert caught.value.code == "file_too_large"
    assert "max_file_mb" in caught.value.hint


def test_a_file_that_vanished_is_told(tmp_path: Path, settings: Settings) -> None:
    [failure] = load(Found(tmp_path / "gone.txt", "gone.txt", 5), settings=settings)
    assert isinstance(failure, FileFailure)
    assert failure.code == "file_missing"


def test_a_pipe_in_the_place_of_a_file_does_not_hang(tmp_path: Path, settings: Settings) -> None:
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(UnsupportedFile, match="no regular file"):
        read_file(tmp_path / "a.txt", settings=settings)


def _growing(path: Path, monkeypatch: pytest.MonkeyPatch, *, times: int) -> None:
    """The file grows between our looks at it, `times` times."""
    real = os.fstat
    looks = 0

    def fstat(descriptor: int) -> os.stat_result:
        nonlocal looks
        looks += 1
        if looks % 2 == 0 and looks // 2 <= times:
            with path.open("ab") as stream:
                stream.write(b" more")
        return real(descriptor)

    monkeypatch.setattr(reading.os, "fstat", fstat)


def test_a_file_that_changes_meanwhile_is_read_again(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"some")
    _growing(path, monkeypatch, times=1)
    assert read_file(path, settings=settings) == b"some more"


def test_a_file_that_keeps_changing_is_refused(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"some")
    _growing(path, monkeypatch, times=9)
    with pytest.raises(FileUnreadable) as caught:
        read_file(path, settings=settings)
    assert caught.value.code == "file_changed"


def test_gzip_is_unpacked_as_far_as_one_file_may_go(settings: Settings) -> None:
    small = replace(settings, max_file_mb=1)

    def unpacked(data: bytes) -> bytes:
        return gunzip(data, allowance=Allowance(len(data), settings=small))

    assert unpacked(gzip.compress(b"a" * 1_000_000)) == b"a" * 1_000_000
    assert unpacked(gzip.compress(b"one ") + gzip.compress(b"two")) == b"one two"
    with pytest.raises(UnsupportedFile, match="more than 1 MB"):
        unpacked(gzip.compress(b"a" * 1_000_001))


@pytest.mark.parametrize("data", [gzip.compress(b"hello" * 99)[:-9], b"\x1f\x8bnot really"])
def test_damaged_gzip_is_told(settings: Settings, data: bytes) -> None:
    with pytest.raises(UnsupportedFile, match="damaged gzip"):
        gunzip(data, allowance=Allowance(len(data), settings=settings))


def test_a_compressed_file_is_read_as_what_it_holds(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "notes.txt.gz").write_bytes(gzip.compress(b"Two years."))
    [document] = load(Found(tmp_path / "notes.txt.gz", "notes.txt.gz", 30), settings=settings)
    assert isinstance(document, Document)
    assert (document.text, document.title) == ("Two years.", "Notes")
