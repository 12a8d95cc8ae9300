"""EPUB: chapters in reading order under their names; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rag.settings import Settings
from tests.loading import document, failure, outline, repacked
from tests.sample_files import CONTAINER, PACKAGE, book, chapter


def test_chapters_in_reading_order_under_their_names(tmp_path: Path, settings: Settings) -> None:
    made = document(tmp_path / "lamp.epub", book(), settings)
    assert (made.title, made.language, made.metadata) == ("The Lamp Book", "pl", {"author": "Ann Lee", "date": "2021-05-06"})
    assert outline(made) == [
        ("Light", "Jeden dwa trzy."), ("Light > Oil", "It burns."), ("Shade and dark", "Dark words."),
        ("Shade and dark", "a: 1; b: 2"), ("", "The end.")]
    assert [made.text[slice(*unit)] for unit in made.blocks[3].units] == ["a: 1; b: 2"]


def test_names_from_an_epub_2(tmp_path: Path, settings: Settings) -> None:
    old = repacked(book(), {"OPS/book.opf": PACKAGE.replace(' properties="nav"', "").encode()})
    made = document(tmp_path / "a.epub", old, settings)
    assert [block.heading for block in made.blocks] == ["Light", "Light > Oil", "x", "x", ""]


# What is refused

@pytest.mark.parametrize(("name", "content"), [
    ("META-INF/container.xml", b"<container/>"), ("META-INF/container.xml", b"no xml"), ("OPS/book.opf", b"<package/>"),
    ("OPS/book.opf", PACKAGE.replace("text/one", "text/gone").encode()),
    ("META-INF/container.xml", CONTAINER.replace("OPS/book.opf", "../../etc/passwd").encode())])
def test_a_damaged_book_is_told(tmp_path: Path, settings: Settings, name: str, content: bytes) -> None:
    assert failure(tmp_path / "a.epub", repacked(book(), {name: content}), settings).code == "file_corrupt"


def test_a_book_with_rights_management_is_told_and_hidden_fonts_do_not_matter(tmp_path: Path, settings: Settings) -> None:
    def encrypted(uri: str) -> bytes:
        xml = ('<encryption xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData><enc:CipherData>'
               f'<enc:CipherReference URI="{uri}"/></enc:CipherData></enc:EncryptedData></encryption>')
        return repacked(book(), {"META-INF/encryption.xml": xml.encode()})

    assert failure(tmp_path / "a.epub", encrypted("OPS/text/two%20b.xhtml"), settings).code == "file_encrypted"
    assert document(tmp_path / "a.epub", encrypted("OPS/font.otf"), settings).title == "The Lamp Book"


def test_entities_of_the_package_are_refused_and_those_of_a_chapter_unknown(tmp_path: Path, settings: Settings) -> None:
    declared = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd"><!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
    package = PACKAGE.replace("<package", f"{declared}<package").replace("Ann Lee", "&e;&b;")
    told = failure(tmp_path / "a.epub", repacked(book(), {"OPS/book.opf": package.encode()}), settings)
    assert (told.code, "entities" in told.message) == ("file_corrupt", True)
    text = chapter("x", "<p>Safe &e; words</p>").replace("<!DOCTYPE html>", declared)
    assert "root:" not in document(tmp_path / "a.epub", repacked(book(), {"OPS/text/one.xhtml": text.encode()}), settings).text


def test_too_many_chapters_are_refused_with_the_setting(tmp_path: Path, settings: Settings) -> None:
    told = failure(tmp_path / "a.epub", book(), replace(settings, max_pages=2))
    assert (told.code, "3 chapters" in told.message) == ("file_too_large", True)


def test_a_bomb_is_refused_unopened(tmp_path: Path, settings: Settings) -> None:
    data = repacked(book(), {"OPS/text/one.xhtml": b" " * 3_000_000})
    told = failure(tmp_path / "a.epub", data, replace(settings, max_file_mb=2))
    assert (told.code, "3 MB" in told.message) == ("file_too_large", True)
