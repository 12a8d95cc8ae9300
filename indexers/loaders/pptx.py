"""PPTX: slides as pages, their titles as headings, then text, tables, the figures behind charts, and the speaker's notes.

`python-pptx` opens the package and orders the slides; the text is read from the XML itself, because its API leaves out what
stands in alternatives for older programs. Slide numbers, dates and footers are left out.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from indexers.loaders.outline import Page, Parsed
from indexers.loaders.reading import damaged, too_many_pages
from indexers.loaders.table import is_header
from rag.settings import Settings
from rag.types import Metadata

if TYPE_CHECKING:
    from lxml.etree import _Element

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_R_ID = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_TITLES = frozenset({"title", "ctrTitle"})
_FURNITURE = frozenset({"dt", "ftr", "hdr", "sldNum", "sldImg"})
_GENERIC_TITLES = frozenset({"", "powerpoint presentation", "untitled", "presentation"})
_MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"


def parse(data: bytes, *, name: str, settings: Settings) -> Parsed:
    """Title: the core property if it is one, else the first slide's.

    Raises:
        UnsupportedFile: damaged, or with too many slides.
    """
    import pptx
    from lxml.etree import XMLSyntaxError
    from pptx.exc import PackageNotFoundError, PythonPptxError

    try:
        presentation = pptx.Presentation(io.BytesIO(data))
        slides = list(presentation.slides)
    except (PackageNotFoundError, PythonPptxError, zipfile.BadZipFile, XMLSyntaxError, KeyError, ValueError) as error:
        raise damaged("PPTX presentation", str(error)[:200] or type(error).__name__) from error
    if len(slides) > settings.max_pages:
        raise too_many_pages(len(slides), settings, what="slides")
    page = Page()
    for number, slide in enumerate(slides, start=1):
        page.page(number)
        _write(page, slide, number)
    core = presentation.core_properties
    stated = " ".join((core.title or "").split())
    title = page.outline.first if stated.casefold() in _GENERIC_TITLES else stated
    return page.parsed(title, media_type=_MEDIA_TYPE, metadata=_properties(core, slides=len(slides)))


def _properties(core: Any, *, slides: int) -> Metadata:
    return {"slides": slides, "author": core.author or "", "created": core.created.date().isoformat() if core.created else "",
            "modified": core.modified.date().isoformat() if core.modified else ""}


def _write(page: Page, slide: Any, number: int) -> None:
    shapes = list(_shapes(slide.element.find(f"{_P}cSld/{_P}spTree")))
    titles = [shape for shape in shapes if _placeholder(shape) in _TITLES]
    title = " ".join(" ".join(text for _, text in _paragraphs(shape)) for shape in titles[:1])
    page.heading(1, title or f"Slide {number}")
    for shape in shapes:
        kind = _placeholder(shape)
        if shape in titles[:1] or kind in _FURNITURE:
            continue
        if (table := shape.find(f".//{_A}tbl")) is not None:
            _table(page, table)
        elif (chart := shape.find(f".//{_C}chart")) is not None:
            _chart(page, slide.part.related_part(chart.get(_R_ID)).blob)
        else:
            _text(page, shape, bulleted=kind in {"body", ""})
    if slide.has_notes_slide:
        notes = [text for shape in _shapes(slide.notes_slide.element.find(f"{_P}cSld/{_P}spTree"))
                 if _placeholder(shape) == "body" for _, text in _paragraphs(shape)]
        if notes:
            page.heading(2, "Notes")
            for text in notes:
                page.paragraph(text)


def _shapes(tree: _Element | None) -> Iterator[_Element]:
    """In the slide's own order, those in groups in their place; of alternatives the first, which is the newer."""
    for child in () if tree is None else tree:
        if child.tag == _P + "grpSp":
            yield from _shapes(child)
        elif child.tag == _MC + "AlternateContent":
            yield from _shapes(child.find(_MC + "Choice"))
        elif child.tag in (_P + "sp", _P + "graphicFrame"):
            yield child


def _placeholder(shape: _Element) -> str | None:
    """What the slide's layout keeps this place for ("" for anything); None for a shape of the slide's own."""
    found = shape.find(f"*/{_P}nvPr/{_P}ph")
    return None if found is None else found.get("type", "")


def _text(page: Page, shape: _Element, *, bulleted: bool) -> None:
    paragraphs = list(_paragraphs(shape))
    listed = bulleted and len(paragraphs) > 1
    for index, (level, text) in enumerate(paragraphs):
        page.paragraph(f"{'  ' * level}- {text}".strip() if listed else text, tight=index > 0)


def _paragraphs(element: _Element) -> Iterator[tuple[int, str]]:
    """Level, from 0, and words."""
    for paragraph in element.iter(_A + "p"):
        words = "".join("\n" if part.tag == _A + "br" else part.text or "" for part in paragraph.iter(_A + "t", _A + "br")).strip()
        properties = paragraph.find(_A + "pPr")
        if words:
            yield int(properties.get("lvl", "0")) if properties is not None else 0, words


def _table(page: Page, table: _Element) -> None:
    rows = [[" ".join(text for _, text in _paragraphs(cell)) for cell in row.iterchildren(_A + "tc")]
            for row in table.iterchildren(_A + "tr")]
    rows = [row for row in rows if any(row)]
    marked = table.find(_A + "tblPr")
    first_row = marked is not None and marked.get("firstRow") in {"1", "true"}
    header = rows.pop(0) if len(rows) > 1 and (first_row or is_header(rows[0])) else []
    page.table(header, rows)


def _chart(page: Page, part: bytes) -> None:
    """Its title, then a row for each category with the value of each series, as the file holds them."""
    from indexers.loaders.unpacking import xml_root

    chart = xml_root(part)
    title = chart.find(f"{_C}chart/{_C}title")
    if title is not None:
        page.paragraph(" ".join(text for _, text in _paragraphs(title)))
    series = list(chart.iter(_C + "ser"))
    names = ["".join(found.text or "" for found in entry.findall(f"{_C}tx//{_C}v")) for entry in series]
    values = [_points(entry, "val", "yVal") for entry in series]
    categories = {index: text for entry in series for index, text in _points(entry, "cat", "xVal").items()}
    page.table(["", *names], [[categories.get(index, ""), *(value.get(index, "") for value in values)]
                              for index in sorted({index for value in values for index in value})])


def _points(series: _Element, *tags: str) -> dict[int, str]:
    return {int(point.get("idx", "0")): (point.findtext(_C + "v") or "").strip()
            for tag in tags for point in series.findall(f"{_C}{tag}//{_C}pt")}
