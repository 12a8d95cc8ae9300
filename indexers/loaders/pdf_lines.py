"""What the geometry of printed lines says: which are furniture, which are headings, which make a paragraph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile, pairwise, takewhile
from statistics import median

_REPEATED_PAGES = 3             # running titles repeat, numbers aside, at the outermost line of some pages ...
_REPEATED_SHARE = 0.5           # ... or at the second line of most
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


def without_furniture(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """The pages without page numbers and without running titles."""
    outer = [_extremes(lines, 0) for lines in pages]
    inner = [_extremes(lines, 1) for lines in pages]
    outer_times = Counter(key for lines in outer for key in {_key(line) for line in lines})
    times = outer_times + Counter(key for lines in inner for key in {_key(line) for line in lines})
    enough = max(_REPEATED_PAGES, _REPEATED_SHARE * len(pages))

    def is_furniture(line: Line, number: int) -> bool:
        key = _key(line)
        if line in outer[number]:
            return ((outer_times[key] >= _REPEATED_PAGES and _worded(key))
                    or (len(pages) > 1 and _PAGE_NUMBER.fullmatch(line.text) is not None))
        return line in inner[number] and times[key] >= enough and _worded(key)

    return [[line for line in lines if not is_furniture(line, number)] for number, lines in enumerate(pages)]


def heading_levels(pages: Sequence[Sequence[Line]]) -> dict[float, int]:
    """Heading level, 1 the largest, of each type size that headings have; empty where sizes tell nothing."""
    lines = [line for page in pages for line in page]
    large = [line for line in lines if line.size >= _HEADING_RATIO * _body_size(lines) and _nameable(line.text)]
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


def _extremes(lines: Sequence[Line], depth: int) -> list[Line]:
    """The highest and lowest lines, or with depth 1 those next to them."""
    by_height = sorted(lines, key=lambda line: line.first)
    return [by_height[at] for at in {depth, len(lines) - 1 - depth} if 0 <= at < len(lines)]


def _key(line: Line) -> str:
    return _NUMBER.sub("#", line.text.lower())


def _worded(text: str) -> bool:
    return any(char.isalpha() for char in text)


def _nameable(text: str) -> bool:
    return len(text) <= _HEADING_CHARS and _worded(text) and not text.endswith((".", ",")) and not _LEADERS.search(text)
