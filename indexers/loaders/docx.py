"""DOCX: headings, paragraphs, lists and tables in reading order.

`python-docx` opens the package and names the styles; the text is read from the XML itself, because its paragraph API
leaves out tracked insertions, content controls and text boxes. Headers, footers, notes and comments are left out.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from indexers.loaders.outline import Page, Parsed
from indexers.loaders.reading import damaged
from rag.settings import Settings

if TYPE_CHECKING:
    from lxml.etree import _Element

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"     # repeats a text box for old programs
_GONE = frozenset({_W + "del", _W + "moveFrom", _FALLBACK, _W + "instrText"})
_CHARACTERS = {_W + "tab": "\t", _W + "br": "\n", _W + "cr": "\n", _W + "noBreakHyphen": "-"}
_WRAPPERS = frozenset({_W + "sdt", _W + "sdtContent", _W + "ins", _W + "moveTo", _W + "customXml", _W + "smartTag"})
_HEADING = re.compile(r"heading (\d)", re.IGNORECASE)
_MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def parse(data: bytes, *, name: str, settings: Settings) -> Parsed:
    """Title: the core property, else the first paragraph of style Title, else the first heading.

    Raises:
        UnsupportedFile: damaged, protected, or larger inside than a file may be.
    """
    import docx
    from docx.opc.exceptions import PackageNotFoundError
    from lxml.etree import XMLSyntaxError

    try:
        document = docx.Document(io.BytesIO(data))
    except (PackageNotFoundError, zipfile.BadZipFile, XMLSyntaxError, KeyError, ValueError) as error:
        raise damaged("DOCX document", str(error) or type(error).__name__) from error
    styles = {style.style_id: style.name or "" for style in document.styles}
    writer = _Writer(styles)
    writer.visit(document.element.body)
    title = " ".join((document.core_properties.title or writer.title or writer.page.outline.first).split())
    return writer.page.parsed(title, media_type=_MEDIA_TYPE, metadata=_properties(document.core_properties))


def _properties(core: Any) -> dict[str, str]:
    dates = {"created": core.created, "modified": core.modified}
    return {"author": core.author if core.author != "python-docx" else "",
            **{name: moment.date().isoformat() for name, moment in dates.items() if moment}}


class _Writer:
    def __init__(self, styles: dict[str, str]) -> None:
        self.page = Page()
        self.title = ""
        self._styles = styles

    def visit(self, element: _Element) -> None:
        for child in element:
            if child.tag == _W + "p":
                self._paragraph(child)
            elif child.tag == _W + "tbl":
                self._table(child)
            elif child.tag in _WRAPPERS:
                self.visit(child)

    def _paragraph(self, paragraph: _Element) -> None:
        text = "".join(_texts(paragraph)).strip()
        style = self._style(paragraph)
        heading = _HEADING.match(style)
        if heading:
            self.page.heading(int(heading.group(1)), text)
        elif style == "Title" and not self.title:
            self.title = text
            self.page.heading(0, text)
        elif style.startswith("List") or paragraph.find(f"{_W}pPr/{_W}numPr") is not None:
            self.page.paragraph(f"- {text}" if text else "", tight=True)
        else:
            self.page.paragraph(text)

    def _style(self, paragraph: _Element) -> str:
        """The style's name; a paragraph that is a heading by outline level alone counts as one."""
        level = paragraph.find(f"{_W}pPr/{_W}outlineLvl")
        if level is not None and level.get(_W + "val", "9") < "9":
            return f"Heading {int(level.get(_W + 'val', '0')) + 1}"
        style = paragraph.find(f"{_W}pPr/{_W}pStyle")
        return "" if style is None else self._styles.get(style.get(_W + "val", ""), "")

    def _table(self, table: _Element) -> None:
        rows = [[" ".join("".join(_texts(cell)).split()) for cell in _cells(row)] for row in table.iterchildren(_W + "tr")]
        rows = [row for row in rows if any(row)]
        if max(map(len, rows), default=0) < 2:
            for row in rows:        # a frame around text, not a table
                self.page.paragraph(" ".join(row))
        else:
            header = rows.pop(0) if len(rows) > 1 and _has_header(table) else []
            self.page.table(header, rows)


def _has_header(table: _Element) -> bool:
    """Word marks the first row as special unless told otherwise; a repeated header row is marked on the row."""
    if table.find(f"{_W}tr/{_W}trPr/{_W}tblHeader") is not None:
        return True
    look = table.find(f"{_W}tblPr/{_W}tblLook")
    if look is None:
        return True
    first_row = look.get(_W + "firstRow")
    if first_row is not None:
        return first_row in {"1", "true", "on"}
    return bool(int(look.get(_W + "val") or "0020", 16) & 0x20)


def _cells(row: _Element) -> Iterator[_Element]:
    for child in row:
        if child.tag == _W + "tc":
            yield child
        elif child.tag in _WRAPPERS:
            yield from _cells(child)


def _texts(element: _Element) -> Iterator[str]:
    """The words of a paragraph or cell in order, what was deleted left out; paragraphs and cells inside stay apart."""
    for child in element:
        if child.tag == _W + "t":
            yield child.text or ""
        elif child.tag in _CHARACTERS:
            yield _CHARACTERS[child.tag]
        elif child.tag not in _GONE:
            yield from _texts(child)
            if child.tag in {_W + "p", _W + "tc"}:
                yield "\n"
