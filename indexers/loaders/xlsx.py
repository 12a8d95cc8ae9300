"""XLSX: each sheet a heading, its rows as in `table`, values as a person sees them (`cells`), formulas by their last result.

`openpyxl` reads the rows one by one and never calculates: a workbook that no program has calculated has empty formulas.
Hidden sheets are left out; of merged cells the first holds the value.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from indexers.loaders.cells import shown
from indexers.loaders.outline import Page, Parsed
from indexers.loaders.reading import damaged
from indexers.loaders.table import is_header, without_preface
from rag.errors import UnsupportedFile
from rag.settings import Settings

# A cell far out on a sheet stands for all the empty ones before it: this many take a few seconds.
_MAX_CELLS = 50_000_000
_MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


@dataclass(frozen=True, slots=True)
class _Row:
    cells: tuple[str, ...]
    measured: bool              # whether it holds a number or a date


def parse(data: bytes, *, name: str, settings: Settings) -> Parsed:
    """Title: the core property, else the file's name.

    Raises:
        UnsupportedFile: damaged, or its cells are spread too far.
    """
    import openpyxl
    from lxml.etree import XMLSyntaxError
    from openpyxl.utils.exceptions import InvalidFileException

    with warnings.catch_warnings():     # of what it cannot keep when writing
        warnings.simplefilter("ignore")
        try:
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
            return _written(book)
        except (InvalidFileException, zipfile.BadZipFile, XMLSyntaxError, SyntaxError, KeyError, ValueError, TypeError) as error:
            raise damaged("XLSX workbook", str(error)[:200] or type(error).__name__) from error


def _written(book: Any) -> Parsed:
    page = Page()
    sheets: list[str] = []
    padded = 0
    for sheet in book.worksheets:
        if sheet.sheet_state == "visible":
            before = page.length
            padded += _write(page, sheet, room=_MAX_CELLS - padded)
            sheets += [sheet.title] if page.length > before else []
    core = book.properties
    return page.parsed(" ".join((core.title or "").split()), media_type=_MEDIA_TYPE, metadata={
        "sheets": tuple(sheets), "author": core.creator if core.creator != "openpyxl" else "",
        "created": core.created.date().isoformat() if core.created else "",
        "modified": core.modified.date().isoformat() if core.modified else ""})


def _write(page: Page, sheet: Any, *, room: int) -> int:
    """The sheet's name and its tables, which empty rows set apart; nothing for an empty sheet. Returns how many cells it spans."""
    spanned = 0

    def rows() -> Iterator[_Row]:
        nonlocal spanned
        sheet.reset_dimensions()        # programs write them wrong
        for row in sheet.iter_rows():
            spanned += 1 + len(row)
            if spanned > room:
                raise UnsupportedFile("Its cells are spread over too many rows and columns.", code="file_too_large",
                                      hint="Delete what stands far out on its sheets, and save it again.")
            yield _Row(tuple("" if cell.value is None else shown(cell.value, cell.number_format).strip() for cell in row),
                       any(cell.value is not None and not isinstance(cell.value, str) for cell in row))

    header: Sequence[str] = ()
    before = page.length
    for filled, region in groupby(rows(), key=lambda row: any(row.cells)):
        if filled and page.length == before:
            page.heading(1, sheet.title)
        if filled:
            header = _region(page, list(region), header=header)
    return spanned


def _region(page: Page, rows: Sequence[_Row], *, header: Sequence[str]) -> Sequence[str]:
    """Rows without an empty one among them: notes, a table, or more of the table above, whose header is given.

    Returns the header of the table that may go on below. Columns keep their places, so that it fits.
    """
    if all(sum(map(bool, row.cells)) == 1 for row in rows):
        for row in rows:
            page.paragraph("".join(row.cells), tight=True)
        return header
    table = without_preface([row.cells for row in rows], page)
    measured = [row.measured for row in rows[-len(table):]]
    left = min(next(at for at, cell in enumerate(cells) if cell) for cells in table)
    has_header = len(table) > 1 and is_header(table[0][left:])
    goes_on = len(header) >= max(map(len, table)) and not (has_header and not measured[0] and any(measured))
    if has_header and not goes_on:
        header = [" ".join(cell.split()) for cell in table.pop(0)]
    elif not goes_on:
        header = ()
    page.table(header, table)
    return header
