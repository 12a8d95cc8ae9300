"""EPUB 2 and 3: the chapters in reading order, each under its name, through the HTML loader.

An EPUB is a zip with a package file that lists the chapters (the "spine") and names the book. A chapter's name is that of
the table of contents, else its own title. A book with digital rights management is refused.
"""

from __future__ import annotations

import posixpath
import zipfile
from typing import TYPE_CHECKING
from urllib.parse import unquote

from indexers.loaders import html
from indexers.loaders.outline import Parsed, joined
from indexers.loaders.reading import damaged, too_many_pages
from indexers.loaders.unpacking import opened, read_member, xml_root
from rag.errors import UnsupportedFile
from rag.settings import Settings
from rag.types import FieldValue

if TYPE_CHECKING:
    from lxml.etree import _Element

_CHAPTERS = frozenset({"application/xhtml+xml", "text/html"})
_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"


def parse(data: bytes, *, name: str, settings: Settings) -> Parsed:
    """Title, author, language and date as the package file states them.

    Raises:
        UnsupportedFile: damaged, encrypted, or with too many chapters.
    """
    with opened(data) as book:
        package_name = _package_name(book)
        package = xml_root(_part(book, package_name))
        chapters = _spine(package, package_name)
        if len(chapters) > settings.max_pages:
            raise too_many_pages(len(chapters), settings, what="chapters")
        _refuse_encrypted(book, chapters)
        title = _stated(package, "title")
        names = _names(book, package, package_name)
        parts: list[tuple[str, Parsed]] = []
        for chapter in chapters:
            part = html.whole(_part(book, chapter))
            heading = names.get(chapter) or part.title
            parts.append(("" if heading.casefold() == title.casefold() else heading, part))
    text, blocks = joined((heading, part) for heading, part in parts if part.text)
    facts: dict[str, FieldValue] = {"author": _stated(package, "creator"), "publisher": _stated(package, "publisher"),
                                    "date": _stated(package, "date")[:10]}
    return Parsed(text=text, blocks=blocks, title=title, media_type="application/epub+zip",
                  metadata={name: value for name, value in facts.items() if value}, language=_stated(package, "language"))


def _package_name(book: zipfile.ZipFile) -> str:
    for found in xml_root(_part(book, _CONTAINER)).iter("{*}rootfile"):
        return unquote(found.get("full-path", ""))
    raise damaged("EPUB book", "it names no package file")


def _part(book: zipfile.ZipFile, name: str) -> bytes:
    try:
        return read_member(book, book.getinfo(name))
    except KeyError as error:
        raise damaged("EPUB book", f"{name[:80]!r} is missing") from error


def _spine(package: _Element, package_name: str) -> list[str]:
    """The members that hold the chapters, each once."""
    items = {item.get("id"): item for item in package.iter("{*}item")}
    listed = [items[ref.get("idref")] for ref in package.iter("{*}itemref") if ref.get("idref") in items]
    found = [_resolved(package_name, item.get("href", "")) for item in listed if item.get("media-type") in _CHAPTERS]
    if not found:
        raise damaged("EPUB book", "it lists no chapters")
    return list(dict.fromkeys(found))


def _refuse_encrypted(book: zipfile.ZipFile, chapters: list[str]) -> None:
    """Obscured fonts are encrypted too, and do not matter."""
    if _ENCRYPTION in book.namelist():
        encrypted = {unquote(found.get("URI", "")) for found in xml_root(_part(book, _ENCRYPTION)).iter("{*}CipherReference")}
        if encrypted & set(chapters):
            raise UnsupportedFile("Its chapters are encrypted (digital rights management).", code="file_encrypted",
                                  hint="Get a copy without it.")


def _names(book: zipfile.ZipFile, package: _Element, package_name: str) -> dict[str, str]:
    """Chapter names by member, from the navigation document (EPUB 3) or the NCX (EPUB 2); the first name of each counts."""
    names: dict[str, str] = {}
    for item in package.iter("{*}item"):
        is_nav = "nav" in item.get("properties", "").split()
        if not is_nav and item.get("media-type") != "application/x-dtbncx+xml":
            continue
        member = _resolved(package_name, item.get("href", ""))
        if member not in book.namelist():
            continue
        root = xml_root(_part(book, member))
        entries = ((link.get("href", ""), "".join(link.itertext())) for link in root.iter("{*}a")) if is_nav else (
            (content.get("src", ""), "".join(point.itertext("{*}text")))
            for point in root.iter("{*}navPoint") for content in point.findall("{*}content"))
        for target, label in entries:
            words = " ".join(label.split())
            if words:
                names.setdefault(_resolved(member, target), words)
    return names


def _resolved(base: str, href: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(base), unquote(href.partition("#")[0])))


def _stated(package: _Element, name: str) -> str:
    """The first of the package's Dublin Core elements of this name."""
    found = package.find(f".//{{http://purl.org/dc/elements/1.1/}}{name}")
    return "" if found is None else " ".join("".join(found.itertext()).split())
