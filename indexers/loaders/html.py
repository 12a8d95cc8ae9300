"""HTML: the main text with its headings, lists, tables and code; no scripts run and nothing is fetched.

Where the author marked the content (<main>, a single <article>), that is the text. Elsewhere `trafilatura` finds it. It was
made for articles and drops much of a page that is none (half of a manual's listings), so its result is held against all
words of the page outside links and navigation, and the page wins where too much would be lost.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from indexers.loaders.outline import Page, Parsed
from indexers.loaders.reading import damaged, decode
from rag.settings import Settings

if TYPE_CHECKING:
    from lxml.etree import _Element

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "body", "caption", "cell", "center", "dd", "details", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "list", "main", "nav", "ol", "p",
    "quote", "row", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul",
})
_ITEMS = frozenset({"li", "item"})
# Never the page's own words, wherever they stand.
_SILENT = frozenset({
    "audio", "button", "canvas", "embed", "iframe", "input", "map", "noscript", "object", "script", "select", "style",
    "svg", "template", "textarea", "title", "video",
})
_FURNITURE = frozenset({"nav", "footer", "aside", "form", "dialog", "menu"})
_FURNITURE_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "complementary"})
_KEPT_SHARE = 0.75
# `trafilatura` reads about 1 MB/s; beyond this the page is taken as it stands.
_MAX_EXTRACTED_CHARS = 5_000_000
_DECLARED = re.compile(rb"<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)=[\"']?([\w-]{3,20})", re.IGNORECASE)
_PROLOGUE = re.compile(r"\s*<\?xml[^>]*\?>")
_STATED = {
    "author": "//meta[@name='author']/@content",
    "date": "//meta[@property='article:published_time' or @name='date' or @name='dcterms.date']/@content",
}
_MAX_DEPTH = 150
_BREAK = "\v"


def parse(data: bytes, *, name: str, settings: Settings) -> Parsed:
    """Title: the page's <title>, else its first heading.

    Raises:
        UnsupportedFile: nested so deeply that the parser gives up.
    """
    tree, text = _tree(data, "")
    if tree is None:
        return Parsed(text="", blocks=())
    page = _content(tree, text) or _written(tree, skip=frozenset()).page
    return _parsed(page, tree, title=_title(tree) or page.outline.first)


def whole(data: bytes, *, declared: str = "") -> Parsed:
    """All words and headings, for what is content throughout: a book's chapter, a mail. Title: the page's, or none.

    `declared`: its encoding, if that is stated elsewhere.

    Raises:
        UnsupportedFile: nested so deeply that the parser gives up.
    """
    tree, _ = _tree(data, declared)
    if tree is None:
        return Parsed(text="", blocks=())
    return replace(_parsed(_written(tree, skip=frozenset()).page, tree, title=""), title=_title(tree))


def _tree(data: bytes, declared: str) -> tuple[_Element | None, str]:
    """None for nothing but white space or comments."""
    from lxml import etree, html

    stated = _DECLARED.search(data[:2048])
    # An encoding declaration inside decoded text is an error to lxml.
    text = _PROLOGUE.sub("", decode(data, declared=declared or (stated.group(1).decode() if stated else "")), count=1)
    parser = html.HTMLParser(no_network=True, remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        tree = html.document_fromstring(text, parser=parser)
    except etree.ParserError:
        return None, text
    if any("depth" in entry.message for entry in parser.error_log):
        raise damaged("HTML page", "its elements are nested too deeply")
    return tree, text


def _title(tree: _Element) -> str:
    return " ".join((tree.findtext(".//title") or "").split())


def _parsed(page: Page, tree: _Element, *, title: str) -> Parsed:
    stated = {name: " ".join(found.split()) for name, path in _STATED.items() for found in tree.xpath(path)[:1]}
    language = tree.get("lang") or tree.get("{http://www.w3.org/XML/1998/namespace}lang") or ""
    parsed = page.parsed(title, media_type="text/html", metadata={**stated, "date": stated.get("date", "")[:10]})
    return replace(parsed, language=language.strip())


def _content(tree: _Element, text: str) -> Page | None:
    """None where nothing is left without the page's furniture."""
    for path in ("//main | //*[@role='main']", "//article"):
        marked: list[_Element] = tree.xpath(path)
        if len(marked) == 1 and (page := _written(marked[0], skip=_FURNITURE).page).length:
            return page
    body = _written(tree, skip=_FURNITURE | {"header"})
    extracted = _extracted(text)
    if extracted and extracted.length >= _KEPT_SHARE * (body.page.length - body.linked):
        return extracted
    return body.page if body.page.length else None


def _extracted(text: str) -> Page | None:
    if len(text) > _MAX_EXTRACTED_CHARS:
        return None
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)     # it complains of pages that hold little
    found = trafilatura.bare_extraction(text, include_comments=False, include_tables=True)
    return None if found is None or found.body is None else _written(found.body, skip=frozenset()).page


def _written(element: _Element, *, skip: frozenset[str]) -> _Writer:
    writer = _Writer(skip=skip)
    writer.visit(element)
    writer.flush()
    return writer


class _Writer:
    """Walks HTML, or the like tree that `trafilatura` makes (<head>, <item>, <row>, <cell>, <lb>)."""

    def __init__(self, *, skip: frozenset[str]) -> None:
        self.page = Page()
        self.linked = 0                 # characters inside links
        self._skip = skip
        self._run: list[str] = []       # inline text since the last block

    def visit(self, element: _Element, depth: int = 0) -> None:
        """Below a depth that no sane page has, the words are taken without their structure."""
        self._run.append(element.text or "")
        for child in element:
            if isinstance(child.tag, str) and not self._unwanted(child):
                if depth < _MAX_DEPTH:
                    self._child(child, child.tag.lower(), depth)
                else:
                    self._run.append(" ".join(child.itertext()))
            self._run.append(child.tail or "")

    def flush(self) -> None:
        lines = (" ".join(line.split()) for line in "".join(self._run).split(_BREAK))
        text = "\n".join(line for line in lines if line)
        self._run.clear()
        if text != "-":
            self.page.paragraph(text, tight=text.startswith("- "))

    def _child(self, child: _Element, tag: str, depth: int) -> None:
        if tag in {"br", "lb"}:
            self._run.append(_BREAK)
        elif tag in _HEADINGS or tag == "head":
            self.flush()
            self.page.heading(_HEADINGS.get(child.get("rend", tag), 2), _words(child).strip("§¶# "))    # anchors
        elif tag == "table" and (rows := _rows(child)):
            self.flush()
            for caption in child.iterchildren("caption"):
                self.page.paragraph(_words(caption))
            header = [words for _, words in rows[0]] if all(head for head, _ in rows[0]) and len(rows) > 1 else []
            self.page.table(header, [[words for _, words in row] for row in rows[bool(header):]])
        elif tag == "pre" or (tag == "code" and "\n" in "".join(child.itertext())):
            self.flush()
            self.page.lines("".join(child.itertext()))
        elif tag in _BLOCKS or tag in _ITEMS:
            self.flush()
            self._run.append("- " if tag in _ITEMS else "")
            self.visit(child, depth + 1)
            self.flush()
        else:
            self.linked += len(_words(child)) if tag == "a" else 0
            self.visit(child, depth + 1)

    def _unwanted(self, element: _Element) -> bool:
        hidden = (element.get("hidden") is not None or element.get("aria-hidden") == "true"
                  or "display:none" in element.get("style", "").replace(" ", ""))
        furniture = bool(self._skip) and element.get("role") in _FURNITURE_ROLES
        return hidden or furniture or element.tag.lower() in _SILENT or element.tag.lower() in self._skip


def _rows(table: _Element) -> list[list[tuple[bool, str]]]:
    """Rows of (is a header cell, words). None for a table that only lays out the page: one column, or blocks inside."""
    if table.xpath(".//table | .//h1 | .//h2 | .//h3 | .//pre | .//head"):
        return []
    rows = [[(cell.tag == "th" or cell.get("role") == "head", _words(cell)) for cell in row.iterchildren("td", "th", "cell")]
            for row in table.iter("tr", "row")]
    rows = [row for row in rows if any(words for _, words in row)]
    return rows if max(map(len, rows), default=0) > 1 else []


def _words(element: _Element) -> str:
    return " ".join("".join(_pieces(element, 0)).split())


def _pieces(element: _Element, depth: int) -> Iterator[str]:
    """Texts in reading order; blocks and line breaks inside keep words apart."""
    yield element.text or ""
    for child in element:
        apart = " " if child.tag in _BLOCKS or child.tag in _ITEMS or child.tag in ("br", "lb") else ""
        yield apart
        if isinstance(child.tag, str) and child.tag not in _SILENT:
            yield from _pieces(child, depth + 1) if depth < _MAX_DEPTH else child.itertext()
        yield apart + (child.tail or "")
