"""JSON Lines: each line one document, `{"id", "title", "text", ...}`; other fields become metadata."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NoReturn

from indexers.loaders.language import guess_language
from indexers.loaders.plain import whole
from rag.errors import InputError
from rag.types import Document, FieldValue, FileFailure, Scalar

# A file of the wrong kind fails on every line: this many are told one by one, the rest are counted.
MAX_REPORTED = 20
_MAX_ID_CHARS = 500
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHAPE = 'Each line must look like {"id": "1", "title": "...", "text": "..."}.'
_OWN_FIELDS = frozenset({"id", "title", "text"})
_SCALARS = (str, int, float, bool, type(None))


# What a failure calls a record, and how to get it with the bytes that its hash is of; that may raise InputError.
Entry = tuple[str, Callable[[], tuple[Mapping[str, object], bytes]]]


def load_jsonl_lines(lines: Iterable[str | bytes], source: str = "stdin", *,
                     uri: str = "") -> Iterator[Document | FileFailure]:
    """One document or failure per line that is not blank, in order; failures name `source:line`, counted from 1.

    A document's id is the record's; without one it is made from title and text. A repeated id is a failure, a repeated
    record without id is passed over. `uri` names the whole (default: `source`).
    """
    entries = ((f"{source}:{number}", partial(_of_line, line)) for number, line in enumerate(lines, start=1) if line.strip())
    return load_records(entries, source, uri=uri or source, media_type="application/x-ndjson")


def load_records(entries: Iterable[Entry], source: str, *, uri: str, media_type: str) -> Iterator[Document | FileFailure]:
    """One document or failure per entry, in order, by the rules of `load_jsonl_lines`."""
    seen: set[str] = set()
    failed = 0
    for called, read in entries:
        try:
            record, raw = read()
            document = _document(record, raw, source=source, uri=uri, media_type=media_type)
            repeated = document.id in seen
            if repeated and _given_id(record):
                raise _bad(f"The id {document.id!r} occurs twice.", "Give each record its own id.", "record_duplicate")
        except InputError as error:
            failed += 1
            if failed <= MAX_REPORTED:
                yield FileFailure(called, error.code, error.message, error.hint)
            continue
        seen.add(document.id)
        if not repeated:
            yield document
    if failed > MAX_REPORTED:
        yield FileFailure(source, "record_invalid", f"{failed - MAX_REPORTED} more records failed, {failed} in all.",
                          "Correct those named above; the others are likely alike.")


def refuse_constant(constant: str) -> NoReturn:
    """For `json.loads`, which takes NaN and Infinity for numbers."""
    raise ValueError(f"{constant} is not a JSON number")


def _of_line(line: str | bytes) -> tuple[Mapping[str, object], bytes]:
    try:
        text = line.decode("utf-8-sig") if isinstance(line, bytes) else line.removeprefix("\ufeff")
        record = json.loads(text, parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        raise _bad(f"Byte {error.start} is not UTF-8.", "Convert the file to UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise _bad(f"The line is not JSON: {error}.", _SHAPE) from error
    if not isinstance(record, dict):
        raise _bad(f"The line holds {type(record).__name__}, not an object.", _SHAPE)
    return record, line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line


def _document(record: Mapping[str, object], raw: bytes, *, source: str, uri: str, media_type: str) -> Document:
    text, title = _string(record, "text"), _string(record, "title")
    if not text.strip():
        raise _bad('The record has no "text".', _SHAPE)
    identity = _given_id(record) or hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()[:16]
    return Document(
        id=identity, source=f"{source}#{identity}", uri=f"{uri}#{identity}", title=" ".join(title.split()), text=text,
        content_hash=hashlib.sha256(raw.strip()).hexdigest(), blocks=whole(text), media_type=media_type,
        language=guess_language(text), metadata=_metadata(record))


def _given_id(record: Mapping[str, object]) -> str:
    value = record.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    identity = _string(record, "id").strip()
    if len(identity) > _MAX_ID_CHARS:
        raise _bad(f"The id has {len(identity)} characters.", f"Use at most {_MAX_ID_CHARS}.")
    return identity


def _string(record: Mapping[str, object], name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _bad(f'"{name}" is {type(value).__name__}, not a string.', "Quote it.")
    if "\0" in value:
        raise _bad(f'"{name}" contains a NUL character.', "Remove it: it is binary data, not text.")
    return _clean(value)


def _metadata(record: Mapping[str, object]) -> dict[str, FieldValue]:
    """Scalars and lists of scalars; what is nested deeper cannot be filtered and is left out."""
    return {_clean(name): _field(value) for name, value in record.items() if name not in _OWN_FIELDS and _is_field(value)}


def _is_field(value: object) -> bool:
    return isinstance(value, _SCALARS) or (isinstance(value, list) and all(isinstance(item, _SCALARS) for item in value))


def _field(value: object) -> FieldValue:
    if isinstance(value, list):
        return tuple(_scalar(item) for item in value)
    return _scalar(value)


def _scalar(value: object) -> Scalar:
    assert value is None or isinstance(value, str | int | float)
    return _clean(value) if isinstance(value, str) else value


def _clean(value: str) -> str:
    """Lone surrogates cannot be stored or sent; one U+FFFD each keeps every span in place."""
    return _SURROGATE.sub("\ufffd", value)


def _bad(message: str, hint: str, code: str = "record_invalid") -> InputError:
    return InputError(message, hint=hint, code=code)
