"""One file to its documents: choose the parser by name, hold the name against the content, report what cannot be read.

`kinds` lists the formats; each may be gzip-compressed (`.gz`). Archives and mails hold further files, which are named after
them (`mail.eml#attachment/guide.pdf`) and fail alone. Which files were meant is a matter of who named them: one that the
user named must be readable, one that merely lay in a folder or archive may be of any kind and is skipped then.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Protocol, cast

from indexers.loaders import jsondoc
from indexers.loaders.discovery import Found, printable, skipped
from indexers.loaders.jsonl import load_jsonl_lines, load_records
from indexers.loaders.kinds import SOURCE, SUPPORTED, TEXT, ZIP, Format, format_of, may_be_read, plain
from indexers.loaders.language import guess_language
from indexers.loaders.outline import Member, Parsed, Parser
from indexers.loaders.reading import Sniffed, read_file, sniff
from indexers.loaders.unpacking import Allowance, check_package, gunzip, is_inside, refuse_doctypes
from rag.errors import FileUnreadable, RagError, UnsupportedFile
from rag.settings import Settings
from rag.types import Document, FileFailure

_ID_DIGITS = 16
_OFFICE = frozenset({"docx", "pptx", "xlsx"})
_PACKAGES = _OFFICE | {"epub"}
# A file may lie in so many archives or mails, of which so many may be zips.
_MAX_INSIDE, _MAX_ZIPS = 4, 2


class Unpacker(Protocol):
    def __call__(self, data: bytes, *, settings: Settings, allowance: Allowance) -> Iterator[Parsed | Member]:
        """The container's own text, if it has any, then the files in it, not yet unpacked."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where bytes come from: a file, or a member of one. `inside`: the formats around it, the outermost first."""

    name: str
    source: str
    uri: str
    named: bool
    inside: tuple[Format, ...] = ()

    def member(self, name: str, format_: Format) -> Place:
        name = printable(name)
        return Place(PurePath(name).name, f"{self.source}#{name}", f"{self.uri}#{name}", named=False,
                     inside=(*self.inside, format_))


class _Unwanted(Exception):
    """What nobody named and nobody reads."""

    def __init__(self, what: str) -> None:
        self.what = what


def load(found: Found, *, settings: Settings) -> Iterator[Document | FileFailure]:
    """The documents of one file, each bad file or record as a failure in their place; the file's faults never raise."""
    place = Place(found.path.name, found.source, printable(found.path), found.named)
    return _loaded(place, partial(read_file, found.path, settings=settings), settings=settings)


def _loaded(place: Place, read: Callable[[], bytes], *, settings: Settings,
            allowance: Allowance | None = None) -> Iterator[Document | FileFailure]:
    try:
        data = read()
        allowance = allowance or Allowance(len(data), settings=settings)
        format_, body = _recognised(place, data, allowance)
        yield from _documents(place, format_, body, data, settings=settings, allowance=allowance)
    except _Unwanted as unwanted:
        yield skipped(place.source, unwanted.what)
    except RagError as error:
        yield FileFailure(place.source, error.code, f"{place.source}: {error.message}", error.hint)
    except MemoryError:
        yield FileFailure(place.source, "file_memory", f"{place.source}: It takes more memory than there is.",
                          f"Split it, or raise the setting worker_memory_mb (now {settings.worker_memory_mb}).")
    except Exception as error:  # a parser met what its authors did not foresee: the file is left out, the run goes on
        yield FileFailure(place.source, "file_corrupt", f"{place.source}: Its parser failed with {type(error).__name__}.",
                          "The file is likely damaged; open it in its own program and save a fresh copy.")


def _recognised(place: Place, data: bytes, allowance: Allowance) -> tuple[Format, bytes]:
    """The format the name promises, and its bytes unpacked.

    Raises:
        UnsupportedFile: an unknown extension, or content of another kind; the message names both.
    """
    name = PurePath(place.name.lower())
    format_ = format_of(name)
    if not data:
        raise _Unwanted("It is empty.") if format_ is SOURCE and not place.named else _empty()
    if name.suffix == ".gz":
        if sniff(data).name != "gzip data":
            raise _mismatch("gzip data", sniff(data), name)
        data = gunzip(data, allowance=allowance)
    sniffed = sniff(data)
    suffix = plain(name).suffix
    format_ = format_ or (TEXT if not suffix and sniffed.content == "text" else None)
    if format_ is None:
        what = f"It has {f'the extension {suffix!r}' if suffix else 'a name without extension'} and holds {sniffed.name}."
        if not place.named:
            raise _Unwanted(what)
        raise UnsupportedFile(what, hint=f"Convert it to one of: {SUPPORTED}, or source code.")
    is_late_pdf = format_.content == "pdf" and b"%PDF-" in data[:1024]     # a few bytes before the header are allowed
    is_any_zip = format_ is ZIP and data.startswith(b"PK")
    if sniffed.content != format_.content and not is_late_pdf and not is_any_zip:
        raise _mismatch(format_.name, sniffed, name)
    return format_, data


def _documents(place: Place, format_: Format, body: bytes, data: bytes, *, settings: Settings,
               allowance: Allowance) -> Iterator[Document | FileFailure]:
    if format_.content in _PACKAGES:
        check_package(body, allowance=allowance)
    if format_.content in _OFFICE:
        refuse_doctypes(body)
    if format_.shape == "records":
        if not body.strip():
            raise _empty()
        yield from load_jsonl_lines(io.BytesIO(body), place.source, uri=place.uri)
    elif format_.shape == "json":
        value = jsondoc.value_of(body)
        if jsondoc.are_records(value):
            entries = jsondoc.entries(value, place.source)
            yield from load_records(entries, place.source, uri=place.uri, media_type="application/json")
        else:
            yield _document(place, data, jsondoc.written(value))
    elif format_.shape == "container":
        yield from _held(place, format_, body, data, settings=settings, allowance=allowance)
    else:
        yield _document(place, data, _parser(format_)(body, name=place.name, settings=settings))


def _held(place: Place, format_: Format, body: bytes, data: bytes, *, settings: Settings,
          allowance: Allowance) -> Iterator[Document | FileFailure]:
    """What an archive or mail says itself, and the files in it."""
    if len(place.inside) >= _MAX_INSIDE or (format_ is ZIP and place.inside.count(ZIP) >= _MAX_ZIPS):
        raise UnsupportedFile("It lies in too many archives or mails, one in another.", code="file_nested",
                              hint="Unpack the outer ones first.")
    for item in _unpacker(format_)(body, settings=settings, allowance=allowance):
        if isinstance(item, Parsed):
            yield _document(place, data, item)
            continue
        inner = place.member(item.name, format_)
        if may_be_read(PurePath(inner.name)) or not is_inside(item.name):
            yield from _loaded(inner, item.read, settings=settings, allowance=allowance)
        else:
            yield skipped(inner.source, f"It has the extension {PurePath(inner.name).suffix!r}.")


def _document(place: Place, data: bytes, parsed: Parsed) -> Document:
    if not any(parsed.text[slice(*block.span)].strip() for block in parsed.blocks):
        raise _empty()
    return Document(
        id=hashlib.sha256(place.uri.encode()).hexdigest()[:_ID_DIGITS], source=place.source, uri=place.uri,
        title=" ".join(parsed.title.split()) or _prettified(place.name), text=parsed.text,
        content_hash=hashlib.sha256(data).hexdigest(), blocks=parsed.blocks, media_type=parsed.media_type,
        language=guess_language(parsed.text, declared=parsed.language), metadata=parsed.metadata)


def _parser(format_: Format) -> Parser:
    return cast(Parser, importlib.import_module(f"indexers.loaders.{format_.module}").parse)


def _unpacker(format_: Format) -> Unpacker:
    return cast(Unpacker, importlib.import_module(f"indexers.loaders.{format_.module}").unpack)


def _prettified(name: str) -> str:
    """`price_list-2024.csv.gz` reads "Price list 2024"."""
    stem = PurePath(name.removesuffix(".gz")).stem
    words = " ".join(re.split(r"[\s_-]+", printable(stem))).strip()
    return words[:1].upper() + words[1:]


def _mismatch(promised: str, sniffed: Sniffed, name: PurePath) -> UnsupportedFile:
    message = f"It is named as {promised} ({name.suffix}) but holds {sniffed.name}."
    if sniffed.name.startswith("a password-protected"):
        return UnsupportedFile(message, hint="Save a copy without the password.", code="file_encrypted")
    return UnsupportedFile(message, hint="Give it the extension of what it holds, or convert it.")


def _empty() -> FileUnreadable:
    return FileUnreadable("It is empty.", hint="Nothing to read: leave it out.", code="file_empty")
