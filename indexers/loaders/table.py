"""CSV and TSV: each row becomes a line that names its columns and reads alone: `Name: Tin; Symbol: Sn`."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence

from indexers.loaders.outline import Page, Parsed
from indexers.loaders.reading import damaged, decode
from rag.settings import Settings

_DELIMITERS = ",;\t|"
_SAMPLE_CHARS = 20_000
_FIELD_CHARS = 10_000_000


def parse(data: bytes, *, name: str, settings: Settings) -> Parsed:
    """Lines above the header that fill one cell only are a preface, kept as prose. A first row of numbers is no header.

    Raises:
        UnsupportedFile: a field without end, usually a quotation mark that is never closed.
    """
    rows = [row for row in _rows(decode(data)) if any(cell.strip() for cell in row)]
    page = Page()
    table = without_preface(rows, page)
    header = [" ".join(cell.split()) for cell in table.pop(0)] if len(table) > 1 and is_header(table[0]) else []
    page.table(header, table)
    return page.parsed("", media_type="text/csv", metadata={"rows": len(table)})


def without_preface(rows: Sequence[Sequence[str]], page: Page) -> list[Sequence[str]]:
    """The rows from the header on; what stands above it, alone in its row, is written to the page as prose."""
    width = Counter(len(row) for row in rows).most_common(1)[0][0] if rows else 0
    start = 0
    while width > 1 and start < len(rows) - 1 and sum(bool(cell.strip()) for cell in rows[start]) == 1:
        page.paragraph(" ".join(" ".join(rows[start]).split()))
        start += 1
    return list(rows[start:])


def is_header(row: Sequence[str]) -> bool:
    """Whether a first row names the columns: mostly filled, no name twice, no number first."""
    names = [cell.strip() for cell in row]
    filled = [name for name in names if name]
    return len(set(filled)) == len(filled) and len(filled) * 2 > len(names) and not is_number(names[0])


def _rows(text: str) -> list[list[str]]:
    """Sloppy quoting is forgiven, but not a quotation mark without end, which would swallow the rest of the file."""
    csv.field_size_limit(_FIELD_CHARS)
    delimiter = _delimiter(text)
    for strict in (True, False):
        # csv knows \r, \n and \r\n; newline="" keeps it so.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)
        begun = 0
        rows: list[list[str]] = []
        try:
            for row in reader:
                rows.append(row)
                begun = reader.line_num
            return rows
        except csv.Error as error:
            if not strict or "end of data" in str(error) or "field limit" in str(error):
                raise damaged("table", f"{error} in the row that begins at line {begun + 1}") from error
    raise AssertionError("the second pass returns or raises")


def _delimiter(text: str) -> str:
    """The one that cuts the first lines into the most even number of columns; a comma if none does."""
    sample = text[:_SAMPLE_CHARS]
    if len(text) > _SAMPLE_CHARS and "\n" in sample:
        sample = sample[:sample.rindex("\n")]

    def evenness(delimiter: str) -> tuple[float, int]:
        try:
            rows = [row for row in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if row]
        except csv.Error:
            return 0.0, 0
        columns, times = Counter(map(len, rows)).most_common(1)[0] if rows else (1, 0)
        return (times / len(rows) if columns > 1 else 0.0), columns

    return max(_DELIMITERS, key=evenness)


def is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", ""))
    except ValueError:
        return False
    return True
