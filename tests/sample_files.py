"""Small files of the formats that only a library can write, made with that library."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import datetime
from email.message import EmailMessage
from typing import Any

import openpyxl
import pptx

from tests.loading import zipped

Rows = Sequence[Sequence[object]]
CONTAINER = ('<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="OPS/book.opf"/>'
             "</rootfiles></container>")
PACKAGE = """<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
<metadata><dc:title>The Lamp Book</dc:title><dc:creator>Ann Lee</dc:creator><dc:language>pl-PL</dc:language>
<dc:date>2021-05-06T00:00:00Z</dc:date></metadata>
<manifest><item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="c1" href="text/one.xhtml" media-type="application/xhtml+xml"/><item id="c2" href="text/two%20b.xhtml"
 media-type="application/xhtml+xml"/><item id="c3" href="text/three.xhtml" media-type="application/xhtml+xml"/>
<item id="x" href="toc.ncx" media-type="application/x-dtbncx+xml"/><item id="p" href="a.png" media-type="image/png"/></manifest>
<spine><itemref idref="c1"/><itemref idref="c2"/>
<itemref idref="p"/><itemref idref="c3"/><itemref idref="gone"/></spine></package>"""
NAV = """<html xmlns="http://www.w3.org/1999/xhtml"><body><nav><ol><li><a href="text/one.xhtml">Light</a></li>
<li><a href="text/two%20b.xhtml#a">Shade <b>and</b> dark</a></li>
<li><a href="text/two%20b.xhtml#b">Later</a></li></ol></nav></body></html>"""
NCX = """<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>Light</text></navLabel>
<content src="text/one.xhtml"/></navPoint></navMap></ncx>"""


def workbook(sheets: dict[str, Rows], *, formats: dict[str, str] | None = None, hidden: Sequence[str] = (),
             title: str = "") -> bytes:
    """`formats`: number formats by cell, of the first sheet."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    book.properties.title = title
    book.properties.creator = "Ann"
    book.properties.created = datetime(2024, 3, 5, 12)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
        sheet.sheet_state = "hidden" if name in hidden else "visible"
    for cell, number_format in (formats or {}).items():
        book.worksheets[0][cell].number_format = number_format
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def deck(*slides: Callable[[Any], object], title: str = "", layout: int = 1) -> bytes:
    """Each function fills one slide of the layout "Title and Content" (6: blank but for a title)."""
    presentation = pptx.Presentation()
    presentation.core_properties.title = title
    presentation.core_properties.author = "Ann"
    for fill in slides:
        fill(presentation.slides.add_slide(presentation.slide_layouts[layout]))
    data = io.BytesIO()
    presentation.save(data)
    return data.getvalue()


def titled(words: str, *paragraphs: str) -> Callable[[Any], None]:
    def fill(slide: Any) -> None:
        slide.shapes.title.text = words
        slide.placeholders[1].text = "\n".join(paragraphs)
    return fill


def chapter(title: str, body: str) -> str:
    return (f'<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml">'
            f"<head><title>{title}</title></head><body>{body}</body></html>")


def book() -> bytes:
    """A small EPUB 3."""
    return zipped({
        "mimetype": "application/epub+zip", "META-INF/container.xml": CONTAINER, "OPS/book.opf": PACKAGE, "OPS/nav.xhtml": NAV,
        "OPS/toc.ncx": NCX, "OPS/text/one.xhtml": chapter(
            "The Lamp Book", "<h1>Light</h1><p>Jeden dwa trzy.</p><h2>Oil</h2><p>It burns.</p>"),
        "OPS/text/two b.xhtml": chapter(
            "x", "<p>Dark words.</p><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>"),
        "OPS/text/three.xhtml": chapter("The Lamp Book", "<p>The end.</p>"), "OPS/a.png": b"\x89PNG"})


def message(text: str = "The lamp is broken.\n\nPlease send another.", *, html: str = "",
            subject: str = "Broken lamp") -> EmailMessage:
    made = EmailMessage()
    made["From"] = '"Lee, Ann" <Ann@Example.org>'
    made["To"] = "Bo <bo@example.org>, shop@example.org"
    made["Cc"] = "cy@example.org"
    made["Date"] = "Tue, 05 Mar 2024 23:30:00 +0100"
    made["Subject"] = subject
    if text:
        made.set_content(text)
    if html:
        made.add_alternative(html, subtype="html") if text else made.set_content(html, subtype="html")
    return made
