"""Records of a file one after the other, whatever holds them: JSON lines, a JSON list, one JSON document, or a table.

Told apart by what is in the file, compressed or not. JSON lists are read piece by piece, because those of training sets have
hundreds of megabytes. The first line of a table is its header; tabs, commas or semicolons part its cells.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

from eval.layouts.rows import INVALID, Row
from rag.errors import InputError

_BLOCK = 1 << 20
# A record larger than this is no question; without a bound one broken bracket would read the rest of the file into memory.
_LONGEST = 1 << 27
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


def rows(path: Path, *, shape: str) -> Iterator[Row]:
    """Every record in order. `shape`: the hint of every complaint, how a record should look.

    Raises:
        InputError: what is not JSON or a table in UTF-8, or a damaged archive, with the line or the number of the record.
    """
    with _opened(path, shape) as stream:
        start = stream.peek(_BLOCK)[:_BLOCK].removeprefix(_BOM).lstrip()[:1]  # type: ignore[attr-defined]  # both are buffered
        if start == b"[":
            yield from _list(stream, path, shape)
        elif start == b"{":
            yield from _lines_or_document(stream, path, shape)
        elif start:
            yield from _table(stream, path, shape)


def lines(path: Path, *, shape: str) -> Iterator[Row]:
    """Every line that is not blank, each of which must be a JSON object."""
    with _opened(path, shape) as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _parsed(line, path, number, shape)


def table(path: Path, *, shape: str) -> Iterator[Row]:
    """Every row of a table, also where its header looks like JSON."""
    with _opened(path, shape) as stream:
        yield from _table(stream, path, shape)


@contextmanager
def _opened(path: Path, shape: str) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as plain:
            if plain.peek(2)[:2] != _GZIP and path.suffix != ".gz":
                yield plain
            else:
                with gzip.open(plain, "rb") as stream:
                    yield cast(BinaryIO, stream)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read to its end: {error}.", code=INVALID,
                         hint="Check that the file is complete and readable.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: {error}.", code=INVALID, hint=shape) from error


def _parsed(line: bytes, path: Path, number: int, shape: str) -> Row:
    place = f"line {number}"
    try:
        record = json.loads(line.removeprefix(_BOM).decode("utf-8"))
    except (ValueError, RecursionError) as error:  # broken JSON and broken UTF-8 alike
        raise InputError(f"{path}, {place} is not JSON in UTF-8: {error}.", code=INVALID, hint=shape) from error
    return _object(record, path, place, shape)


def _object(record: object, path: Path, place: str, shape: str) -> Row:
    if not isinstance(record, dict):
        raise InputError(f"{path}, {place} is not a JSON object.", code=INVALID, hint=shape)
    return Row(path, place, record, shape)


def _lines_or_document(stream: BinaryIO, path: Path, shape: str) -> Iterator[Row]:
    """JSON lines if the first line is an object of its own and not the last; else the whole file is one object."""
    first = stream.readline()
    try:
        json.loads(first.removeprefix(_BOM))
    except (ValueError, RecursionError):
        yield from _document(first + stream.read(), path, shape)
        return
    number, row = 1, _parsed(first, path, 1, shape)
    alone = True
    for number, line in enumerate(stream, start=2):
        if line.strip():
            if alone:
                yield row
            alone = False
            yield _parsed(line, path, number, shape)
    if alone:
        yield Row(path, "" if path.name.removesuffix(".gz").endswith(".json") else "line 1", row.record, shape)


def _document(text: bytes, path: Path, shape: str) -> Iterator[Row]:
    try:
        record = json.loads(text.removeprefix(_BOM).decode("utf-8"))
    except json.JSONDecodeError as error:
        # Whether a broken line of many or a broken document cannot be told; the line is the same.
        raise InputError(f"{path}, line {error.lineno} is not JSON in UTF-8: {error}.", code=INVALID, hint=shape) from error
    except RecursionError as error:
        raise InputError(f"{path} is not JSON in UTF-8: {error}.", code=INVALID, hint=shape) from error
    if not isinstance(record, dict):
        raise InputError(f"{path} is not a JSON object.", code=INVALID, hint=shape)
    yield Row(path, "", record, shape)


def _list(stream: BinaryIO, path: Path, shape: str) -> Iterator[Row]:
    for number, item in enumerate(_items(io.TextIOWrapper(stream, encoding="utf-8-sig"), path, shape), start=1):
        yield _object(item, path, f"record {number}", shape)


def _items(text: io.TextIOWrapper, path: Path, shape: str) -> Iterator[object]:
    """The items of a JSON list, of which never more than a block and one record are in memory."""
    decode = json.JSONDecoder().raw_decode
    buffer, at, passed = text.read(_BLOCK), 0, 0
    number, need = 0, "["

    def fail(why: object) -> NoReturn:
        line = passed + buffer.count("\n", 0, at) + 1
        after = f" after record {number}" if number else ""
        raise InputError(f"{path}, line {line} is not JSON{after}: {why}.", code=INVALID, hint=shape)

    while True:
        while at < len(buffer) and buffer[at] in " \t\r\n":
            at += 1
        if at == len(buffer):
            passed += buffer.count("\n")
            buffer, at = text.read(_BLOCK), 0
            if buffer:
                continue
            if need == "end":
                return
            fail("the file ends inside the list")
        mark = buffer[at]
        if need == "end":
            fail("it goes on after the list")
        if mark == "[" and need == "[":
            need, at = "first", at + 1
        elif mark == "]" and need in ("first", ","):
            need, at = "end", at + 1
        elif mark == "," and need == ",":
            need, at = "item", at + 1
        elif need == ",":
            fail("a comma is missing")
        else:
            try:
                item, at = decode(buffer, at)
            except json.JSONDecodeError as error:
                more = text.read(max(_BLOCK, len(buffer) - at)) if len(buffer) - at < _LONGEST else ""
                if not more:
                    fail(error.msg)
                passed += buffer.count("\n", 0, at)
                buffer, at = buffer[at:] + more, 0
                continue
            except RecursionError as error:
                fail(error)
            number, need = number + 1, ","
            yield item


def _table(stream: BinaryIO, path: Path, shape: str) -> Iterator[Row]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    first = text.readline()
    separator = max("\t,;", key=first.count)
    reader = csv.reader(_all(first, text), delimiter=separator, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}, line {line} is no row of a table: {error}.", code=INVALID, hint=shape) from error
        if header is None:
            header = [cell.strip() for cell in cells]
            if len(set(header)) != len(header):
                raise InputError(f"{path}, line {line} names a column twice.", code=INVALID, hint=shape)
        elif cells and cells != [""]:
            if len(cells) != len(header):
                raise InputError(f"{path}, line {line} has {len(cells)} cells; the header has {len(header)}.", code=INVALID,
                                 hint="Put cells that hold the separator or a line break in double quotes.")
            yield Row(path, f"line {line}", dict(zip(header, cells, strict=True)), shape)


def _all(first: str, rest: io.TextIOWrapper) -> Iterator[str]:
    yield first
    yield from rest
