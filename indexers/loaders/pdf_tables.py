"""Ruled tables of a PDF page: where printed rules cross to a grid, each word belongs to a cell.

pdfium knows no tables, but it tells every drawn path and the place of every character; together these give tables with rules
between rows and columns, the kind that word processors print. Tables set off by white space alone, or by rules above and
below only, are not found: their lines stay text, a row a line, as pdfium gives them. Cells merged over rows have their text
in the row where it is printed.
"""

from __future__ import annotations

import ctypes
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# In points: how thick a rule may be, how far its end may be from the one it meets, and how short it may be.
_THICK, _NEAR, _SHORT = 2.5, 3.0, 5.0
# A page with more is a drawing: looking for tables in it would cost more than the text.
_MAX_OBJECTS, _MAX_RULES, _MAX_SEGMENTS, _MAX_CELLS = 20_000, 4_000, 400, 4_000


@dataclass(frozen=True, slots=True)
class Rule:
    """A line along one axis: `at` on the other one, from `start` to `end`."""

    at: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Word:
    """The middle of its first character, and its letters."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Column edges from the left, row edges from the top, in points from the lower left corner."""

    columns: tuple[float, ...]
    rows: tuple[float, ...]

    def holds(self, left: float, right: float, height: float) -> bool:
        return self.columns[0] - _NEAR <= left and right <= self.columns[-1] + _NEAR and self._beside(height)

    def meets(self, left: float, right: float, height: float) -> bool:
        """Whether it holds part of a line."""
        return left <= self.columns[-1] and right >= self.columns[0] and self._beside(height)

    def column(self, x: float) -> int:
        return bisect(self.columns, x)

    def _beside(self, height: float) -> bool:
        return self.rows[-1] <= height <= self.rows[0]


def grids(horizontal: Sequence[Rule], vertical: Sequence[Rule]) -> list[Grid]:
    """From the top of the page. A grid has at least two rows and two columns, and its outer edges need not be drawn twice."""
    across, down = _merged(horizontal), _merged(vertical)
    if len(across) * len(down) > _MAX_RULES * 10:
        return []
    found: list[Grid] = []
    for group_across, group_down in _groups(across, down):
        columns, rows = _distinct(rule.at for rule in group_down), _distinct(rule.at for rule in group_across)
        if len(columns) > 2 and len(rows) > 2 and (len(columns) - 1) * (len(rows) - 1) <= _MAX_CELLS:
            found.append(Grid(tuple(columns), tuple(reversed(rows))))
    return sorted(found, key=lambda grid: -grid.rows[0])


def cells(grid: Grid, words: Iterable[Word]) -> list[list[str]]:
    """Rows of words, those of a cell in the order given; what lies outside counts for the cell at the edge."""
    table: list[list[list[str]]] = [[[] for _ in grid.columns[1:]] for _ in grid.rows[1:]]
    heights = [-row for row in grid.rows]
    for word in words:
        row = min(max(bisect(heights, -word.y) - 1, 0), len(table) - 1)
        column = min(max(bisect(grid.columns, word.x) - 1, 0), len(table[0]) - 1)
        table[row][column].append(word.text)
    return [[" ".join(cell) for cell in row] for row in table]


def rules(page: Any) -> tuple[list[Rule], list[Rule]]:
    """The page's drawn rules, horizontal and vertical; none for a page that is a drawing."""
    from pypdfium2 import raw

    across: list[Rule] = []
    down: list[Rule] = []
    count = raw.FPDFPage_CountObjects(page)
    for index in range(count if count <= _MAX_OBJECTS else 0):
        drawn = raw.FPDFPage_GetObject(page, index)
        if raw.FPDFPageObj_GetType(drawn) != raw.FPDF_PAGEOBJ_PATH:
            continue
        for left, bottom, right, top in _strokes(drawn):
            if top - bottom <= _THICK and right - left >= _SHORT:
                across.append(Rule((top + bottom) / 2, left, right))
            elif right - left <= _THICK and top - bottom >= _SHORT:
                down.append(Rule((left + right) / 2, bottom, top))
        if len(across) + len(down) > _MAX_RULES:
            return [], []
    return across, down


def _strokes(drawn: Any) -> Iterator[tuple[float, float, float, float]]:
    """Left, bottom, right and top of a thin path, or of each stroke of a larger one."""
    from pypdfium2 import raw

    bounds = [ctypes.c_float() for _ in range(4)]
    if not raw.FPDFPageObj_GetBounds(drawn, *bounds):
        return
    left, bottom, right, top = (value.value for value in bounds)
    if top - bottom <= _THICK or right - left <= _THICK:
        yield left, bottom, right, top
        return
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    count = raw.FPDFPath_CountSegments(drawn)
    if not raw.FPDFPath_GetDrawMode(drawn, fill, stroke) or not stroke.value or count > _MAX_SEGMENTS:
        return
    matrix = raw.FS_MATRIX()
    raw.FPDFPageObj_GetMatrix(drawn, matrix)
    x, y = ctypes.c_float(), ctypes.c_float()
    before = first = (0.0, 0.0)
    for index in range(count):
        segment = raw.FPDFPath_GetPathSegment(drawn, index)
        kind = raw.FPDFPathSegment_GetType(segment)
        raw.FPDFPathSegment_GetPoint(segment, x, y)
        point = (matrix.a * x.value + matrix.c * y.value + matrix.e, matrix.b * x.value + matrix.d * y.value + matrix.f)
        if kind == raw.FPDF_SEGMENT_MOVETO:
            first = point
        else:
            if kind == raw.FPDF_SEGMENT_LINETO:
                yield _box(before, point)
            if raw.FPDFPathSegment_GetClose(segment):
                yield _box(point, first)
        before = point


def _box(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float, float, float]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])


def _merged(drawn: Sequence[Rule]) -> list[Rule]:
    """Pieces of one line (programs draw each cell's own edges) made one."""
    merged: list[Rule] = []
    level: list[Rule] = []      # at one height

    def finish() -> None:
        for rule in sorted(level, key=lambda rule: rule.start):
            if merged and merged[-1].at == level[0].at and rule.start <= merged[-1].end + _NEAR:
                merged[-1] = Rule(level[0].at, merged[-1].start, max(merged[-1].end, rule.end))
            else:
                merged.append(Rule(level[0].at, rule.start, rule.end))
        level.clear()

    for rule in sorted(drawn, key=lambda rule: rule.at):
        if level and rule.at - level[0].at > _NEAR:
            finish()
        level.append(rule)
    if level:
        finish()
    return merged


def _groups(across: Sequence[Rule], down: Sequence[Rule]) -> Iterator[tuple[list[Rule], list[Rule]]]:
    """Rules that hang together by crossing or touching."""
    left = set(range(len(down)))
    unseen = set(range(len(across)))
    while unseen:
        pending = [unseen.pop()]
        group: list[Rule] = []
        crossing: list[Rule] = []
        while pending:
            rule = across[pending.pop()]
            group.append(rule)
            for at in [at for at in left if _touch(rule, down[at])]:
                left.discard(at)
                crossing.append(down[at])
                more = {other for other in unseen if _touch(across[other], down[at])}
                unseen -= more
                pending += more
        yield group, crossing


def _touch(across: Rule, down: Rule) -> bool:
    return (across.start - _NEAR <= down.at <= across.end + _NEAR) and (down.start - _NEAR <= across.at <= down.end + _NEAR)


def _distinct(places: Iterable[float]) -> list[float]:
    found: list[float] = []
    for place in sorted(places):
        if not found or place - found[-1] > _NEAR:
            found.append(place)
    return found
