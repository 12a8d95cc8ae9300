"""PDF: text by page with headings, through pdfium; words broken at line ends are mended, running titles are dropped.

pdfium gives lines; type sizes and gaps between them tell headings and paragraphs apart (`pdf_lines`). Pictures of text
are not read: a scan without a text layer is refused with a reason.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Collection, Sequence
from itertools import pairwise
from math import hypot
from typing import Any

from indexers.loaders.outline import Page, Parsed
from indexers.loaders.pdf_lines import (
    Line,
    heading_levels,
    is_heading,
    paragraphs,
    printed_title,
    without_furniture,
    without_leaders,
)
from indexers.loaders.reading import damaged
from rag.errors import UnsupportedFile
from rag.settings import Settings

# pdfium may be called by one thread at a time.
_PDFIUM = threading.Lock()
_ENCRYPTED = (4, 5)             # FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY
_RAGGED_SHARE = 0.2             # of a paragraph's width that a full line may leave free
_BROKEN_WORD = re.compile(r"([^\W\d_]*)\ufffe([^\W\d_]*)")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\ufffe\uffff\ud800-\udfff]")
_NOT_A_TITLE = re.compile(r"(untitled|document|.*\.(?:docx?|dvi|html?|indd|pages|pdf|pptx?|tex|txt|xlsx?))", re.IGNORECASE)
_PROGRAM = re.compile(r"^Microsoft (?:Word|PowerPoint|Excel) - ", re.IGNORECASE)


def parse(data: bytes, *, settings: Settings) -> Parsed:
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
            named = _PROGRAM.sub("", str(pdf.get_metadata_dict().get("Title") or "")).strip()
        except pypdfium2.PdfiumError as error:
            raise damaged("PDF document", str(error)) from error
        finally:
            pdf.close()
    silent = sum(not lines for lines in pages)
    if silent == len(pages):
        raise UnsupportedFile("It has no text layer: its pages are pictures.", code="file_no_text",
                              hint="Run optical character recognition on it first; none is done here.")
    pages = without_furniture(pages)
    title = printed_title(pages) if not named or _NOT_A_TITLE.fullmatch(named) else named
    title = " ".join(_UNPRINTABLE.sub("", title).split())
    return _written(pages, title).parsed(title, media_type="application/pdf", metadata={
        "pages": len(pages), **({"pages_without_text": silent} if silent else {})})


def _read(pdf: Any, settings: Settings) -> list[list[Line]]:
    if len(pdf) > settings.max_pages:
        raise UnsupportedFile(f"It has {len(pdf)} pages, more than {settings.max_pages}.",
                              hint=f"Split it, or raise the setting max_pages (now {settings.max_pages}).",
                              code="file_too_large", field="max_pages")
    return [_lines(pdf[index]) for index in range(len(pdf))]


def _lines(page: Any) -> list[Line]:
    from pypdfium2 import raw

    textpage = page.get_textpage()
    try:
        text: str = textpage.get_text_range()
        lines: list[Line] = []
        for match in re.finditer(r"[^\s](?:[^\r\n]*[^\s])?", text):
            # The page counts some characters that are left out of the text.
            first = max(0, raw.FPDFText_GetCharIndexFromTextIndex(textpage, match.start()))
            last = max(first, raw.FPDFText_GetCharIndexFromTextIndex(textpage, match.end() - 1))
            lines.append(Line(match.group(), left=textpage.get_charbox(first)[0], right=textpage.get_charbox(last)[2],
                              first=_baseline(textpage, first), last=_baseline(textpage, last), size=_size(textpage, first)))
        return lines
    finally:
        textpage.close()
        page.close()


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


def _written(pages: Sequence[Sequence[Line]], title: str) -> Page:
    level = heading_levels(pages)
    everything = " ".join(line.text.lower() for lines in pages for line in lines)
    words = frozenset(_WORD.findall(_BROKEN_WORD.sub(" ", everything)))
    page = Page()
    for number, lines in enumerate(pages, start=1):
        page.page(number)
        for paragraph in paragraphs(lines, headings=level):
            text = _mended(_joined(paragraph), words)
            if number == 1 and text.casefold() == title.casefold():
                page.heading(0, text)
            elif is_heading(paragraph, level):
                page.heading(level[paragraph[0].size], text)
            else:
                page.paragraph(text)
    return page


def _joined(paragraph: Sequence[Line]) -> str:
    """Full lines flow on; a line that stops short ends there, as in lists, tables and addresses."""
    right = max(line.right for line in paragraph)
    full = right - _RAGGED_SHARE * (right - min(line.left for line in paragraph))
    parts = [paragraph[0].text]
    for previous, line in pairwise(paragraph):
        if previous.text.endswith("-") and previous.text[-2:-1].isalnum():
            separator = ""
        else:
            flows = line.text[0].islower() or (previous.right >= full and not previous.text.endswith(":"))
            separator = " " if flows else "\n"
        parts.append(separator + line.text)
    return "".join(parts)


def _mended(text: str, words: Collection[str]) -> str:
    """pdfium marks a hyphen at a line's end with U+FFFE: whether it stays is what the rest of the document tells."""

    def mend(match: re.Match[str]) -> str:
        before, after = match.groups()
        compound = f"{before}-{after}".lower()
        keep = (not before or not after or after[0].isupper() or compound in words
                or (before.lower() in words and after.lower() in words and (before + after).lower() not in words))
        return f"{before}-{after}" if keep else before + after

    return _UNPRINTABLE.sub("", _BROKEN_WORD.sub(mend, without_leaders(text)))
