"""What the geometry of printed lines says: which are furniture, which are headings, which make a paragraph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, pairwise, takewhile
from statistics import median

_EDGE_LINES = 3                 # running titles have at most so many lines,
_EDGE_GAP = 2.0                 # stand apart by so many type sizes,
_REPEATED_PAGES = 3             # and repeat on so many pages, numbers aside
_HEADING_RATIO = 1.12           # of the body's type size
_HEADING_SHARE = 0.25           # where more of the lines are large, size means something else (slides)
_HEADING_CHARS = 150
_TITLE_PAGES = 3                # from this many pages on, a size that only page 1 has is the title page's
_GAP_RATIO = 1.25               # of the usual distance between lines
_NUMBER = re.compile(r"\d+")
_PAGE_NUMBER = re.compile(r"\W*(?:page\s*|seite\s*)?(?:\d{1,5}(?:\s*(?:of|/|von|de|sur)\s*\d{1,5})?|[ivxlc]{1,7})\W*", re.I)
_ITEM = re.compile(r"[•‣◦▪·–*-]\s|\(?\d{1,3}[.)]\s")
_LEADERS = re.compile(r"(?:\s?[.·…_]){5,}\s?")


@dataclass(frozen=True, slots=True)
class Line:
    """One printed line; positions in points from the page's lower left corner. pdfium joins lines at a hyphen."""

    text: str
    left: float                 # of the first character
    right: float                # of the last character
    first: float                # baseline of the first character
    last: float                 # baseline of the last character
    size: float                 # type size of the first character, in points
    order: int = 0              # its place among the lines and tables of the page


def without_furniture(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """The pages without page numbers and running titles, which stand apart at the edges."""
    edges = [_edge(lines) for lines in pages]
    times = Counter(key for edge in edges for key in {_key(line) for line in edge})

    def is_furniture(line: Line) -> bool:
        repeated = times[_key(line)] >= _REPEATED_PAGES and any(map(str.isalpha, line.text))
        return repeated or (len(pages) > 1 and _PAGE_NUMBER.fullmatch(line.text) is not None)

    return [[line for line in lines if line not in edge or not is_furniture(line)]
            for lines, edge in zip(pages, edges, strict=True)]


def heading_levels(pages: Sequence[Sequence[Line]]) -> dict[float, int]:
    """Heading level, 1 the largest, of each type size that headings have; empty where sizes tell nothing."""
    lines = [line for page in pages for line in page]
    least = _HEADING_RATIO * _body_size(lines)
    large = [line for line in lines if line.size >= least and _nameable(line.text)]
    if len(large) > _HEADING_SHARE * len(lines):
        return {}
    sizes = {line.size for line in large}
    if len(pages) >= _TITLE_PAGES:
        sizes &= {line.size for page in pages[1:] for line in page}
    return {size: level for level, size in enumerate(sorted(sizes, reverse=True), start=1)}


def printed_title(pages: Sequence[Sequence[Line]]) -> str:
    """The largest words of page 1, the first of them, if they are larger than the text; else empty."""
    body = _body_size([line for page in pages for line in page])
    largest = max((line.size for line in pages[0]), default=0.0)
    found = dropwhile(lambda line: line.size < largest, pages[0])
    words = " ".join(line.text for line in takewhile(lambda line: line.size == largest, found))
    return words if largest >= _HEADING_RATIO * body and _nameable(words) else ""


def paragraphs(lines: Sequence[Line], *, headings: Mapping[float, int]) -> Iterator[list[Line]]:
    """In reading order; a wrapped heading stays together."""
    leading = _leading(lines)
    current: list[Line] = []
    for line in lines:
        if current and _starts(current[-1], line, leading, headings):
            yield current
            current = []
        current.append(line)
    if current:
        yield current


def is_heading(paragraph: Sequence[Line], headings: Mapping[float, int]) -> bool:
    return paragraph[0].size in headings and _nameable(" ".join(line.text for line in paragraph))


def without_leaders(text: str) -> str:
    """The dots between a heading and its page number in a table of contents cost tokens and say nothing."""
    return _LEADERS.sub(" … ", text)


def _starts(previous: Line, line: Line, leading: float, headings: Mapping[float, int]) -> bool:
    if previous.size != line.size and (previous.size in headings or line.size in headings):
        return True
    step = previous.last - line.first
    if step < 0:                # the next column goes on, unless a sentence ended
        return previous.text[-1] in ".!?:" and not line.text[0].islower()
    return step > _GAP_RATIO * max(leading, line.size if line.size in headings else 0.0) or bool(_ITEM.match(line.text))


def _leading(lines: Sequence[Line]) -> float:
    """The usual distance between the baselines of neighbouring lines."""
    steps = [(previous.last - line.first, line.size) for previous, line in pairwise(lines)]
    near = [step for step, size in steps if 0 < step < 3 * size]
    return median(near) if near else float("inf")


def _body_size(lines: Sequence[Line]) -> float:
    weights = Counter[float]()
    for line in lines:
        weights[line.size] += len(line.text)
    return weights.most_common(1)[0][0] if weights else 0.0


def _edge(lines: Sequence[Line]) -> list[Line]:
    """The first and last few lines of a page, where a gap sets them apart from the rest."""
    by_height = sorted(lines, key=lambda line: line.first)
    return [*_set_apart(by_height), *_set_apart(by_height[::-1])]


def _set_apart(lines: Sequence[Line]) -> Sequence[Line]:
    for at, (line, following) in enumerate(pairwise(lines[:_EDGE_LINES + 1]), start=1):
        if abs(line.first - following.first) > _EDGE_GAP * line.size:
            return lines[:at]
    return lines if len(lines) <= _EDGE_LINES else []


def _key(line: Line) -> str:
    return _NUMBER.sub("#", line.text.lower())


def _nameable(text: str) -> bool:
    is_prose = len(text) > _HEADING_CHARS or text.endswith((".", ","))
    return not is_prose and any(map(str.isalpha, text)) and not _LEADERS.search(text)
