"""Source code: the text stays as written, each line is a unit, and what it stands in is its heading: `class Lamp > def glow`.

Python is read through `ast` (scopes are in `scopes`). Elsewhere, and in Python that does not parse, indentation tells them.
The chunker divides a scope between its lines, at blank lines where it can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from indexers.loaders.kinds import LANGUAGES, plain
from indexers.loaders.outline import SEPARATOR, Parsed
from indexers.loaders.reading import decode
from indexers.loaders.scopes import Line, Scope, scopes_of
from rag.settings import Settings
from rag.types import Block, Span

_PHYSICAL = re.compile(r"([^\r\n]*)(?:\r\n?|\n|\Z)")
# Of fewer lines a scope is no piece of its own, and one of fewer lines than the second is not looked into.
_LEAST_LINES, _DIVIDED_LINES = 3, 30
_MAX_LEVELS = 2


def parse(data: bytes, *, name: str, settings: Settings) -> Parsed:
    """Title: the file's name, as programmers call it."""
    text = decode(data)
    language = LANGUAGES.get(plain(PurePath(name)).suffix, "")
    lines = _lines(text)
    paths = _paths(len(lines), scopes_of(text, lines, language=language))
    return Parsed(text=text, blocks=tuple(_blocks(lines, paths)), title=PurePath(name).name, media_type="text/x-source",
                  metadata={"programming_language": language})


def _lines(text: str) -> list[Line]:
    """Those that are not blank."""
    return [Line(number, match.start(), match.group(1)) for number, match in enumerate(_PHYSICAL.finditer(text), start=1)
            if match.group(1).strip()]


def _blocks(lines: Sequence[Line], paths: Sequence[str]) -> Iterator[Block]:
    """Neighbouring lines under one heading."""
    first = 0
    for index in range(1, len(lines) + 1):
        if index == len(lines) or paths[index] != paths[first]:
            units = tuple(_unit(line) for line in lines[first:index])
            yield Block(span=(units[0][0], units[-1][1]), heading=paths[first], units=units)
            first = index


def _unit(line: Line) -> Span:
    return line.start + line.indent, line.start + len(line.text.rstrip())


def _paths(count: int, scopes: Sequence[Scope]) -> list[str]:
    """The heading of each line. Scopes come in the order in which they begin, outer ones first."""
    paths = [""] * count
    around: list[tuple[Scope, tuple[str, ...], bool]] = []      # with its path, and whether it is looked into
    for scope in scopes:
        while around and around[-1][0].last < scope.first:
            around.pop()
        path, divided = (around[-1][1], around[-1][2]) if around else ((), True)
        size = scope.last - scope.first + 1
        if divided and size >= _LEAST_LINES:
            path = (*path, scope.name)
            paths[scope.first:scope.last + 1] = [SEPARATOR.join(path)] * size
        around.append((scope, path, divided and size >= _DIVIDED_LINES and len(path) < _MAX_LEVELS))
    return paths
