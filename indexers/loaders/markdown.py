"""Markdown: the text stays as written, `markdown-it` says where headings, tables and code stand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, cast

from indexers.loaders.outline import Outline, Parsed
from indexers.loaders.reading import decode
from rag.settings import Settings
from rag.types import FieldValue, Scalar, Span

if TYPE_CHECKING:
    from markdown_it.token import Token

_NEWLINE = re.compile(r"\r\n?|\n")
_FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*(?:\r\n?|\n)(.*?)(?:\r\n?|\n)(?:---|\.\.\.)[ \t]*(?:\r\n?|\n|$)", re.DOTALL)
_PAIR = re.compile(r"([A-Za-z][\w-]{0,40}):[ \t]*([^\s\[{&*|>].*?)[ \t]*")
_FLOW = re.compile(r"([A-Za-z][\w-]{0,40}):[ \t]*\[([^\[\]{}:]*)\][ \t]*")
_KEY = re.compile(r"([A-Za-z][\w-]{0,40}):[ \t]*")
_ITEM = re.compile(r"[ \t]*-[ \t]+([^\s\[{&*|>][^:]*?)[ \t]*")
_MAX_FRONT_MATTER = 4000


def parse(data: bytes, *, name: str, settings: Settings) -> Parsed:
    """Title: the front matter's, else the first level-1 heading."""
    from markdown_it import MarkdownIt

    text = decode(data)
    body_start, metadata = _front_matter(text)
    lines = _line_starts(text, body_start)
    outline = Outline()
    stated = metadata.pop("title", "")
    title = stated if isinstance(stated, str) else ""
    done = body_start           # everything before it stands in a block, in a heading or is front matter
    for kind, token, name in _landmarks(MarkdownIt("commonmark").enable("table").parse(text[body_start:])):
        assert token.map is not None
        start, end = lines[token.map[0]], lines[min(token.map[1], len(lines) - 1)]
        _prose(outline, text, (done, start))
        if kind == "heading":
            level = int(token.tag[1:])
            title = title or (name if level == 1 else "")
            outline.heading(level, name, span=_trimmed(text, start, end))
        elif kind == "table":
            rows = [_trimmed(text, *line) for line in pairwise(lines[token.map[0] + 2:token.map[1] + 1])]
            if rows:
                _units(outline, rows, header=name)
            else:
                _prose(outline, text, (start, end))     # a header without rows still says something
        else:
            held = len(token.content.split("\n")) - token.content.endswith("\n")
            _code(outline, text, lines[token.map[0] + 1:token.map[0] + held + 2], whole=_trimmed(text, start, end))
        done = end
    _prose(outline, text, (done, len(text)))
    return Parsed(text=text, blocks=outline.blocks(title), title=title, media_type="text/markdown", metadata=metadata)


def _landmarks(tokens: Sequence[Token]) -> Iterator[tuple[str, Token, str]]:
    """Headings, tables and fences of the outermost level, each with its words: a heading's text, a table's header."""
    for index, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        if token.type == "heading_open":
            yield "heading", token, _plain(tokens[index + 1])
        elif token.type == "table_open":
            yield "table", token, _header(tokens, index)
        elif token.type == "fence":
            yield "code", token, ""


def _header(tokens: Sequence[Token], index: int) -> str:
    names: list[str] = []
    for token in tokens[index:]:
        if token.type == "thead_close":
            break
        if token.type == "inline":
            names.append(_plain(token))
    return " | ".join(names)


def _plain(inline: Token) -> str:
    """Without markup: `**Big** [link](x)` reads "Big link"."""
    words = "".join(" " if child.type in {"softbreak", "hardbreak"} else child.content for child in inline.children or ())
    return " ".join(words.split())


def _prose(outline: Outline, text: str, span: Span) -> None:
    start, end = _trimmed(text, *span)
    if start < end:
        outline.body((start, end))


def _code(outline: Outline, text: str, lines: Sequence[int], *, whole: Span) -> None:
    """Each line (they begin at `lines`) a unit; the fences, of which the last may be missing, go with the first and last."""
    inner = [_trimmed(text, *line) for line in pairwise(lines)]
    units = [line for line in inner if line[0] < line[1]]
    if units:
        units[0] = (whole[0], units[0][1])
        units[-1] = (units[-1][0], whole[1])
    _units(outline, units)


def _units(outline: Outline, units: Sequence[Span], *, header: str = "") -> None:
    if units:
        outline.body((units[0][0], units[-1][1]), header=header, units=units)


def _trimmed(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())


def _line_starts(text: str, offset: int) -> list[int]:
    """Where each line begins, and the end of the text: `markdown-it` counts lines from `offset`."""
    return [offset, *(match.end() for match in _NEWLINE.finditer(text, offset)), len(text)]


def _front_matter(text: str) -> tuple[int, dict[str, FieldValue]]:
    """Its end, and its plain values and lists of such; what is nested deeper is left out."""
    match = _FRONT_MATTER.match(text[:_MAX_FRONT_MATTER])
    if not match:
        return 0, {}
    found: dict[str, FieldValue] = {}
    listed = ""                 # the key whose items the next lines may be
    for line in match.group(1).splitlines():
        pair, flow, key, item = (pattern.fullmatch(line) for pattern in (_PAIR, _FLOW, _KEY, _ITEM))
        if item and listed:
            found[listed] = (*cast(tuple[Scalar, ...], found.get(listed, ())), item.group(1).strip("\"'"))
            continue
        listed = key.group(1) if key else ""
        if pair:
            found[pair.group(1)] = pair.group(2).strip("\"'")
        elif flow and (items := [part.strip(" \t\"'") for part in flow.group(2).split(",") if part.strip()]):
            found[flow.group(1)] = tuple(items)
    return match.end(), found
