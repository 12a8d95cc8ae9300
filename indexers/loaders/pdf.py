"""PDF: text by page with headings and ruled tables, through pdfium; running titles are dropped, broken words mended.

pdfium gives lines; type sizes and gaps between them tell headings and paragraphs apart (`pdf_lines`), printed rules the cells
of tables (`pdf_tables`, which says what tables it does not find). Pictures of text are not read: a scan without a text layer
is refused with a reason.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from math import hypot
from typing import Any

from indexers.loaders import pdf_tables
from indexers.loaders.outline import Page, Parsed
from indexers.loaders.pdf_lines import (
    Line,
    heading_levels,
    is_heading,
    paragraphs,
    printed_title,
    without_furniture,
)
from indexers.loaders.pdf_tables import Grid, Word
from indexers.loaders.pdf_words import joined, mended, printable, vocabulary
from indexers.loaders.reading import damaged, too_many_pages
from indexers.loaders.table import is_header
from rag.errors import UnsupportedFile
from rag.settings import Settings
from rag.types import Span

# pdfium may be called by one thread at a time.
_PDFIUM = threading.Lock()
_ENCRYPTED = (4, 5)             # FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY
_CELL_CHARS = 200               # on average; rules around more than that lay out a page
_SAME_PLACE = 3.0               # in points, of a column's edge on two pages
_DATE = re.compile(r"D:(\d{4})(\d\d)(\d\d)")
_LINE = re.compile(r"[^\s](?:[^\r\n]*[^\s])?")
_WORDS = re.compile(r"\S+")
_NOBODY = re.compile(r"\W*(?:anonymous|unspecified|unknown|user|admin\w*)\W*", re.IGNORECASE)
_NOT_A_TITLE = re.compile(r"(\W*(?:untitled|document|anonymous|unspecified)\W*"
                          r"|.*\.(?:docx?|dvi|html?|indd|pages|pdf|pptx?|tex|txt|xlsx?))", re.IGNORECASE)
_PROGRAM = re.compile(r"^Microsoft (?:Word|PowerPoint|Excel) - ", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Table:
    order: int                  # among the lines of its page
    columns: tuple[float, ...]  # their edges
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class _Printed:
    """A page as read. The lines of a table are in the table alone."""

    lines: list[Line]
    tables: list[_Table]


def parse(data: bytes, *, name: str, settings: Settings) -> Parsed:
    """Title: the metadata's if it is one, else the largest words of page 1. Blocks never cross pages.

    Raises:
        UnsupportedFile: damaged, protected, too many pages, or without any text.
    """
    import pypdfium2

    with _PDFIUM:
        try:
            pdf = pypdfium2.PdfDocument(data)
        except pypdfium2.PdfiumError as error:
            if getattr(error, "err_code", None) in _ENCRYPTED:
                raise UnsupportedFile("It is protected by a password.", hint="Save a copy without the password.",
                                      code="file_encrypted") from error
            raise damaged("PDF document", "pdfium finds no document in it") from error
        try:
            pages = _read(pdf, settings)
            stated = pdf.get_metadata_dict()
        except pypdfium2.PdfiumError as error:
            raise damaged("PDF document", str(error)) from error
        finally:
            pdf.close()
    silent = sum(not (page.lines or page.tables) for page in pages)
    if silent == len(pages):
        raise UnsupportedFile("It has no text layer: its pages are pictures.", code="file_no_text",
                              hint="Run optical character recognition on it first; none is done here.")
    lines = without_furniture([page.lines for page in pages])
    named = _PROGRAM.sub("", str(stated.get("Title") or "")).strip()
    title = printed_title(lines) if not named or _NOT_A_TITLE.fullmatch(named) else named
    title, author = printable(title), printable(str(stated.get("Author") or ""))
    return _written(lines, [page.tables for page in pages], title).parsed(title, media_type="application/pdf", metadata={
        "pages": len(pages), "pages_without_text": silent or None, "created": _day(str(stated.get("CreationDate") or "")),
        "author": "" if _NOBODY.fullmatch(author) else author})


def _day(stated: str) -> str:
    """`D:20240305...` as ISO 8601; empty if it is no day."""
    match = _DATE.match(stated)
    try:
        return date(*map(int, match.groups())).isoformat() if match else ""
    except ValueError:
        return ""


def _read(pdf: Any, settings: Settings) -> list[_Printed]:
    if len(pdf) > settings.max_pages:
        raise too_many_pages(len(pdf), settings)
    return [_printed(pdf[index]) for index in range(len(pdf))]


def _printed(page: Any) -> _Printed:
    textpage = page.get_textpage()
    try:
        text: str = textpage.get_text_range()
        places = [match.span() for match in _LINE.finditer(text)]
        lines = [_line(textpage, text, place, order) for order, place in enumerate(places)]
        tables: list[_Table] = []
        for grid in pdf_tables.grids(*pdf_tables.rules(page)):
            inside = [line for line in lines if grid.holds(line.left, line.right, line.first)]
            straddling = sum(grid.meets(line.left, line.right, line.first) for line in lines) > len(inside)
            if not inside or straddling:        # two columns of text ran together, and the cells would be torn
                continue
            rows = pdf_tables.cells(grid, (word for line in inside for word in _words(textpage, text, places[line.order], grid)))
            filled = [len(cell) for row in rows for cell in row if cell]
            if sum(filled) <= _CELL_CHARS * len(filled):
                tables.append(_Table(inside[0].order, grid.columns, rows))
                taken = {line.order for line in inside}
                lines = [line for line in lines if line.order not in taken]
        return _Printed(lines, tables)
    finally:
        textpage.close()
        page.close()


def _line(textpage: Any, text: str, place: Span, order: int) -> Line:
    first, last = _index(textpage, place[0]), _index(textpage, place[1] - 1)
    return Line(text[slice(*place)], left=textpage.get_charbox(first)[0], right=textpage.get_charbox(last)[2],
                first=_baseline(textpage, first), last=_baseline(textpage, last), size=_size(textpage, first), order=order)


def _words(textpage: Any, text: str, place: Span, grid: Grid) -> Iterator[Word]:
    """A word that pdfium finds across two columns is cut between them."""
    for match in _WORDS.finditer(text, *place):
        begun, last = match.start(), match.end() - 1
        x, y = _middle(textpage, begun)
        if last > begun and grid.column(_middle(textpage, last)[0]) != grid.column(x):
            for at in range(begun + 1, last + 1):
                here, height = _middle(textpage, at)
                if grid.column(here) != grid.column(x):
                    yield Word(x, y, text[begun:at])
                    begun, x, y = at, here, height
        yield Word(x, y, text[begun:last + 1])


def _middle(textpage: Any, at: int) -> tuple[float, float]:
    left, bottom, right, top = textpage.get_charbox(_index(textpage, at))
    return (left + right) / 2, (bottom + top) / 2


def _index(textpage: Any, at: int) -> int:
    """The page counts some characters that are left out of the text."""
    from pypdfium2 import raw

    return max(0, int(raw.FPDFText_GetCharIndexFromTextIndex(textpage, at)))


def _baseline(textpage: Any, index: int) -> float:
    from pypdfium2 import raw

    x, y = ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetCharOrigin(textpage, index, x, y)
    return y.value


def _size(textpage: Any, index: int) -> float:
    """In points as printed: the nominal size is scaled by the text's matrix."""
    from pypdfium2 import raw

    matrix = raw.FS_MATRIX()
    raw.FPDFText_GetMatrix(textpage, index, matrix)
    scale = hypot(matrix.c, matrix.d) or 1.0
    return round(float(raw.FPDFText_GetFontSize(textpage, index)) * scale, 1)


def _written(pages: Sequence[Sequence[Line]], tables: Sequence[Sequence[_Table]], title: str) -> Page:
    level = heading_levels(pages)
    words = vocabulary(pages)
    page = Page()
    above: _Table | None = None     # what a table may go on with, over the page's end
    for number, (lines, on_page) in enumerate(zip(pages, tables, strict=True), start=1):
        page.page(number)
        for element in _elements(lines, on_page):
            if isinstance(element, _Table):
                above = _table(page, element, above, words)
                continue
            above = None
            for paragraph in paragraphs(element, headings=level):
                text = mended(joined(paragraph), words)
                if number == 1 and text.casefold() == title.casefold():
                    page.heading(0, text)
                elif is_heading(paragraph, level):
                    page.heading(level[paragraph[0].size], text)
                else:
                    page.paragraph(text)
    return page


def _elements(lines: Sequence[Line], tables: Sequence[_Table]) -> Iterator[list[Line] | _Table]:
    """Runs of lines and tables, in the page's order."""
    rest = list(lines)
    for table in sorted(tables, key=lambda table: table.order):
        above = [line for line in rest if line.order < table.order]
        if above:
            yield above
        yield table
        rest = rest[len(above):]
    if rest:
        yield rest


def _table(page: Page, table: _Table, above: _Table | None, words: Collection[str]) -> _Table:
    """Writes it, and returns it with its header for a first row. A table of the same columns right above it goes on."""
    rows = [[mended(cell, words) for cell in row] for row in table.rows if any(row)]
    goes_on = above is not None and len(above.columns) == len(table.columns) and all(
        abs(one - other) < _SAME_PLACE for one, other in zip(above.columns, table.columns, strict=True))
    header: list[str] = above.rows[0] if above is not None and goes_on else []
    if not goes_on and len(rows) > 1 and is_header(rows[0]):
        header = rows[0]
    page.table(header, rows[bool(header) and rows[0] == header:])
    return replace(table, rows=[header])
