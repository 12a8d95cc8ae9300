"""One file to its documents: choose the parser by name, hold the name against the content, report what cannot be read.

Formats: text, Markdown, HTML, PDF, DOCX, CSV, TSV and JSON Lines; each may be gzip-compressed (`.gz`), except PDF and DOCX.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from indexers.loaders.discovery import Found, printable
from indexers.loaders.jsonl import load_jsonl_lines
from indexers.loaders.language import guess_language
from indexers.loaders.outline import Parsed
from indexers.loaders.reading import Content, Sniffed, gunzip, read_file, sniff
from rag.errors import FileUnreadable, RagError, UnsupportedFile
from rag.settings import Settings
from rag.types import Document, FileFailure

_ID_DIGITS = 16


class Parser(Protocol):
    def __call__(self, data: bytes, *, settings: Settings) -> Parsed:
        """Raises UnsupportedFile where the bytes are not what they should be."""


@dataclass(frozen=True, slots=True)
class _Format:
    name: str                   # for messages: "... is named as <name>"
    content: Content            # what its bytes must be
    module: str                 # imported when first needed: some parsers load large libraries
    suffixes: tuple[str, ...]


_JSONL = _Format("JSON Lines", "text", "", (".jsonl", ".ndjson"))
_TEXT = _Format("plain text", "text", "plain", (".txt", ".text", ".log", ".rst"))
_FORMATS = (
    _TEXT,
    _JSONL,
    _Format("Markdown", "text", "markdown", (".md", ".markdown", ".mkd")),
    _Format("HTML", "text", "html", (".html", ".htm", ".xhtml")),
    _Format("a PDF document", "pdf", "pdf", (".pdf",)),
    _Format("a DOCX document", "docx", "docx", (".docx",)),
    _Format("a table", "text", "table", (".csv", ".tsv", ".tab")),
)
_BY_SUFFIX = {suffix: format_ for format_ in _FORMATS for suffix in format_.suffixes}
_SUPPORTED = ", ".join(suffix for format_ in _FORMATS for suffix in format_.suffixes)


def load(found: Found, *, settings: Settings) -> Iterator[Document | FileFailure]:
    """The documents of one file, each bad file or record as a failure in their place; the file's faults never raise."""
    try:
        data = read_file(found.path, settings=settings)
        format_, body = _recognised(found, data, settings)
        if format_ is _JSONL:
            if not body.strip():
                raise _empty()
            yield from load_jsonl_lines(io.BytesIO(body), found.source, uri=printable(found.path))
        else:
            yield _document(found, data, _parser(format_)(body, settings=settings))
    except RagError as error:
        yield FileFailure(found.source, error.code, f"{found.source}: {error.message}", error.hint)
    except Exception as error:  # a parser met what its authors did not foresee: the file is left out, the run goes on
        yield FileFailure(found.source, "file_corrupt", f"{found.source}: Its parser failed with {type(error).__name__}.",
                          "The file is likely damaged; open it in its own program and save a fresh copy.")


def _recognised(found: Found, data: bytes, settings: Settings) -> tuple[_Format, bytes]:
    """The format the name promises, and its bytes unpacked.

    Raises:
        UnsupportedFile: an unknown extension, or content of another kind; the message names both.
    """
    if not data:
        raise _empty()
    name = Path(found.path.name.lower())
    if name.suffix == ".gz":
        if sniff(data).name != "gzip data":
            raise _mismatch("gzip data", sniff(data), found)
        data, name = gunzip(data, settings=settings), name.with_suffix("")
    sniffed = sniff(data)
    format_ = _BY_SUFFIX.get(name.suffix) or (_TEXT if not name.suffix and sniffed.content == "text" else None)
    if format_ is None:
        what = f"the extension {name.suffix!r}" if name.suffix else "a name without extension"
        raise UnsupportedFile(f"It has {what} and holds {sniffed.name}.", hint=f"Convert it to one of: {_SUPPORTED}.")
    if format_.content == "pdf" and b"%PDF-" in data[:1024]:
        return format_, data    # a few bytes before the header are allowed
    if sniffed.content != format_.content:
        raise _mismatch(format_.name, sniffed, found)
    return format_, data


def _document(found: Found, data: bytes, parsed: Parsed) -> Document:
    if not any(parsed.text[slice(*block.span)].strip() for block in parsed.blocks):
        raise _empty()
    uri = printable(found.path)
    return Document(
        id=hashlib.sha256(uri.encode()).hexdigest()[:_ID_DIGITS], source=found.source, uri=uri,
        title=" ".join(parsed.title.split()) or _prettified(found.path), text=parsed.text,
        content_hash=hashlib.sha256(data).hexdigest(), blocks=parsed.blocks, media_type=parsed.media_type,
        language=guess_language(parsed.text), metadata=parsed.metadata)


def _parser(format_: _Format) -> Parser:
    return cast(Parser, importlib.import_module(f"indexers.loaders.{format_.module}").parse)


def _prettified(path: Path) -> str:
    """`price_list-2024.csv.gz` reads "Price list 2024"."""
    stem = Path(path.name.removesuffix(".gz")).stem
    words = " ".join(re.split(r"[\s_-]+", printable(stem))).strip()
    return words[:1].upper() + words[1:]


def _mismatch(promised: str, sniffed: Sniffed, found: Found) -> UnsupportedFile:
    message = f"It is named as {promised} ({found.path.suffix}) but holds {sniffed.name}."
    if sniffed.name.startswith("a password-protected"):
        return UnsupportedFile(message, hint="Save a copy without the password.", code="file_encrypted")
    return UnsupportedFile(message, hint="Give it the extension of what it holds, or convert it.")


def _empty() -> FileUnreadable:
    return FileUnreadable("It is empty.", hint="Nothing to read: leave it out.", code="file_empty")
