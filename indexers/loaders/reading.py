"""From a path to bytes, and from bytes to what they are: bounded, consistent, and never trusting a file's name."""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path

from indexers.loaders.kinds import Content
from rag.errors import FileUnreadable, UnsupportedFile
from rag.settings import Settings

MEGABYTE = 1_000_000
_ATTEMPTS = 2
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"), (b"\xff\xd8\xff", "a JPEG image"), (b"GIF8", "a GIF image"), (b"RIFF", "a RIFF media file"),
    (b"II*\0", "a TIFF image"), (b"MM\0*", "a TIFF image"), (b"\x7fELF", "a program"), (b"MZ", "a Windows program"),
    (b"SQLite format 3\0", "an SQLite database"), (b"\x1f\x8b", "gzip data"), (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ", "xz data"), (b"\x28\xb5\x2f\xfd", "zstandard data"), (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"), (b"ID3", "an MP3 file"), (b"OggS", "an Ogg file"), (b"GGUF", "a GGUF model"),
    (b"PAR1", "a Parquet file"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# UTF-32's mark begins with UTF-16's: the longer one is tried first.
_MARKS: tuple[tuple[bytes, str], ...] = (
    (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"))
_ZIPPED: tuple[tuple[str, Content, str], ...] = (
    ("word/document.xml", "docx", "a DOCX document"), ("xl/workbook.xml", "xlsx", "an XLSX workbook"),
    ("ppt/presentation.xml", "pptx", "a PPTX presentation"), ("META-INF/container.xml", "epub", "an EPUB book"),
    ("content.xml", "other", "an OpenDocument file"))
_WIDE = re.compile(r"[^\x00-\x7f\ufffd]")
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\r\f\v\x1b")


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What the bytes are: `content` as far as we read it, `name` for messages ("a PNG image")."""

    content: Content
    name: str


def read_file(path: Path, *, settings: Settings) -> bytes:
    """The bytes of one regular file, as they were at one moment: a file that changes meanwhile is read again, once.

    Raises:
        FileUnreadable: it cannot be opened, or it keeps changing.
        UnsupportedFile: it is too large, or no regular file.
    """
    for _ in range(_ATTEMPTS):
        try:
            data = _read_once(path, settings)
        except OSError as error:
            code = "file_missing" if isinstance(error, FileNotFoundError) else "file_unreadable"
            raise FileUnreadable(f"It cannot be read: {error.strerror}.", hint="Check that it is there and its permissions.",
                                 code=code) from error
        if data is not None:
            return data
    raise FileUnreadable("It changed while it was read, twice.", hint="Ingest it again when nobody writes to it.",
                         code="file_changed")


def sniff(data: bytes) -> Sniffed:
    head = data[:1024]
    if head.lstrip().startswith(b"%PDF-"):
        return Sniffed("pdf", "a PDF document")
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _sniff_zip(data)
    if data.startswith(_OLE):
        protected = "EncryptedPackage".encode("utf-16-le") in data
        return Sniffed("other", "a password-protected Office document" if protected else "an old binary Office document")
    for signature, name in _SIGNATURES:
        if data.startswith(signature) and not _is_text(data):
            return Sniffed("other", name)
    return Sniffed("text", "text") if _is_text(data) else Sniffed("other", "binary data")


def decode(data: bytes, *, declared: str = "") -> str:
    """The text without its byte order mark. Bytes that mean nothing become U+FFFD.

    UTF-8 is tried first and forgiven a few bad bytes, because statistical detection turns such files into garbage; then
    the encoding the file itself declares, then detection.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("utf-8", "replace")
    if len(_WIDE.findall(text)) > 20 * text.count("\ufffd"):
        return text
    try:
        return data.decode(declared or "utf-8")
    except (LookupError, UnicodeDecodeError):
        return data.decode(_detected(data), "replace")


def too_large(message: str, settings: Settings) -> UnsupportedFile:
    return UnsupportedFile(message, hint=f"Split it, or raise the setting max_file_mb (now {settings.max_file_mb}).",
                           code="file_too_large", field="max_file_mb")


def too_many_pages(count: int, settings: Settings, *, what: str = "pages") -> UnsupportedFile:
    return UnsupportedFile(f"It has {count} {what}, more than {settings.max_pages}.",
                           hint=f"Split it, or raise the setting max_pages (now {settings.max_pages}).", code="file_too_large",
                           field="max_pages")


def damaged(what: str, reason: str) -> UnsupportedFile:
    return UnsupportedFile(f"It is a damaged {what}: {reason}.", hint="Get a fresh copy of the file.", code="file_corrupt")


def _read_once(path: Path, settings: Settings) -> bytes | None:
    """None: the file changed under our hands."""
    # Without O_NONBLOCK a pipe put in the file's place would hang us.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as stream:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise UnsupportedFile("It is no regular file.", hint="Only regular files can be ingested.")
        if before.st_size > settings.max_file_mb * MEGABYTE:
            raise too_large(f"It has {before.st_size / MEGABYTE:.1f} MB, more than {settings.max_file_mb} MB.", settings)
        data = stream.read(before.st_size + 1)
        after = os.fstat(descriptor)
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    return data if same and len(data) == before.st_size else None


def _sniff_zip(data: bytes) -> Sniffed:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise damaged("zip archive", str(error)) from error
    for member, content, name in _ZIPPED:
        if member in names:
            return Sniffed(content, name)
    return Sniffed("zip", "a zip archive")


def _is_text(data: bytes) -> bool:
    if any(data.startswith(mark) for mark, _ in _MARKS):
        return True
    sample = data[:65_536]
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return b"\0" not in data and controls * 100 <= len(sample)


def _detected(data: bytes) -> str:
    from charset_normalizer import from_bytes

    # Without a byte order mark two bytes a character is a guess that turns short Western texts into Chinese.
    wide = [f"utf_{bits}{order}" for bits in (16, 32) for order in ("", "_be", "_le")]
    best = from_bytes(data[:65_536], cp_exclusion=wide).best()
    return best.encoding if best else "cp1252"
