"""Unpacking within bounds: gzip and zip, and the Office and EPUB packages that are zips.

Nothing is unpacked before its size is known and allowed. A zip's members read no further than the size its directory
states, so that adding up those sizes bounds the whole; members that share bytes (as in bombs that fit in kilobytes),
names that lead out of the archive, and links are refused.
"""

from __future__ import annotations

import gzip
import io
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from indexers.loaders.reading import MEGABYTE, damaged, too_large
from rag.errors import UnsupportedFile
from rag.settings import Settings

if TYPE_CHECKING:
    from lxml.etree import _Element

# A small file may unpack to this much whatever the ratio: that harms nobody.
_HARMLESS = MEGABYTE
_MAX_MEMBERS = 100_000
_LOCAL_HEADER = 30              # bytes before the name in a member's own header, at least
_PIECE = 1 << 20
_DOCTYPES = tuple("<!DOCTYPE".encode(encoding) for encoding in ("ascii", "utf-16-le", "utf-16-be"))
_XML_PARTS = (".xml", ".rels", ".vml")
_DRIVE = re.compile(r"[A-Za-z]:")
# What a damaged or strange zip makes the library raise.
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


class Allowance:
    """What one file may unpack to in all, however deep things are nested in it: a size, and a multiple of its own."""

    def __init__(self, packed: int, *, settings: Settings) -> None:
        self._packed = packed
        self._settings = settings
        self._limit = settings.max_file_mb * MEGABYTE
        self._spent = 0

    @property
    def left(self) -> int:
        """Bytes that may still be unpacked."""
        return max(0, min(self._limit, max(_HARMLESS, self._packed * self._settings.max_expansion)) - self._spent)

    def spend(self, size: int) -> None:
        """
        Raises:
            UnsupportedFile: with these bytes it would be more than allowed; the message says of which limit.
        """
        self._spent += size
        if self._spent > self._limit:
            raise too_large(f"Unpacked, it has {self._spent / MEGABYTE:.0f} MB, more than {self._settings.max_file_mb} MB.",
                            self._settings)
        if self._spent > max(_HARMLESS, self._packed * self._settings.max_expansion):
            times = self._spent // max(1, self._packed)
            raise UnsupportedFile(f"Unpacked, it has {times} times its size, more than {self._settings.max_expansion} times.",
                                  hint="It may be a bomb. If you trust it, raise the setting max_expansion (now "
                                       f"{self._settings.max_expansion}).", code="file_too_large", field="max_expansion")


def gunzip(data: bytes, *, allowance: Allowance) -> bytes:
    """Decompressed, and never more of it than one file may have.

    Raises:
        UnsupportedFile: damaged, or larger than allowed.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            unpacked = stream.read(allowance.left + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged("gzip file", str(error)) from error
    allowance.spend(len(unpacked))
    return unpacked


def opened(data: bytes) -> zipfile.ZipFile:
    """The archive, its directory found sane; nothing is unpacked yet.

    Raises:
        UnsupportedFile: no zip, too many members, or members that share bytes.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except BROKEN_ZIP as error:
        raise damaged("zip archive", str(error)) from error
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise UnsupportedFile(f"It has {len(members)} members, more than {_MAX_MEMBERS}.", hint="Split it.", code="file_too_large")
    if _overlap(members, end=archive.start_dir):
        raise damaged("zip archive", "its members share bytes, as in a zip bomb")
    return archive


def check_package(data: bytes, *, allowance: Allowance) -> None:
    """Refuses an Office or EPUB package that is protected or unpacks to too much, before its library opens it."""
    with opened(data) as archive:
        members = archive.infolist()
        if any(member.flag_bits & 1 for member in members):
            raise protected()
        allowance.spend(sum(member.file_size for member in members))


def refuse_doctypes(data: bytes) -> None:
    """Refuses an Office package with a part that declares a document type: Office writes none, and entity bombs need one."""
    with opened(data) as archive:
        for member in archive.infolist():
            if member.filename.lower().endswith(_XML_PARTS) and _declares_doctype(archive, member):
                raise damaged("package", f"its part {member.filename[:80]!r} declares a document type")


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member of an archive whose size was allowed.

    Raises:
        UnsupportedFile: protected, damaged, a link, or with a name that leads out of the archive.
    """
    if not is_inside(member.filename) or stat.S_ISLNK(member.external_attr >> 16):
        raise UnsupportedFile("Its name leads out of the archive, or it is a link.", code="member_refused",
                              hint="Nothing is read from outside of an archive; pack the file itself.")
    if member.flag_bits & 1:
        raise protected()
    try:
        return archive.read(member)
    except BROKEN_ZIP as error:
        raise damaged("member of an archive", str(error) or type(error).__name__) from error


def is_inside(name: str) -> bool:
    """Whether a member's name stays below the folder that an archive is unpacked in."""
    path = PurePosixPath(name.replace("\\", "/"))
    return not (path.is_absolute() or _DRIVE.match(name) or ".." in path.parts)


def xml_root(data: bytes) -> _Element:
    """The root of a small XML part; nothing is fetched.

    Raises:
        UnsupportedFile: not well-formed, or with entities of its own.
    """
    from lxml import etree

    if b"<!ENTITY" in data:
        raise damaged("package", "a part of it declares entities")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        return etree.fromstring(data, parser=parser)
    except etree.XMLSyntaxError as error:
        raise damaged("package", f"a part of it is not XML: {error}") from error


def protected() -> UnsupportedFile:
    return UnsupportedFile("It is protected by a password.", hint="Save a copy without the password.", code="file_encrypted")


def _overlap(members: Iterable[zipfile.ZipInfo], *, end: int) -> bool:
    starts = sorted((member.header_offset, member.header_offset + _LOCAL_HEADER + member.compress_size) for member in members)
    return any(first_end > start for (_, first_end), (start, _) in pairwise([*starts, (end, end)]))


def _declares_doctype(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(member) as part:
            tail = b""
            while piece := part.read(_PIECE):
                if any(mark in tail + piece for mark in _DOCTYPES):
                    return True
                tail = piece[-32:]
    except BROKEN_ZIP as error:
        raise damaged("package", f"{member.filename[:80]!r}: {error}") from error
    return False
