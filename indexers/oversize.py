"""Cutting a sentence that is longer than a chunk may be: at a clause's end, else at white space, else between characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from math import ceil

from rag.types import Span

Count = Callable[[Sequence[str]], list[int]]
Offsets = Callable[[str], list[tuple[int, int]]]

_CLAUSE = re.compile(r"[,;:،؛][\"'”’)\]]*\s+|[，；：、。！？]|\s[—–-]\s")
_SPACE = re.compile(r"\s+")
# Pieces are aimed a little under the limit, and cut within this share of it around the even place.
_FILL = 0.85
_LEEWAY = 0.12
_JOINERS = "\u200d\ufe0e\ufe0f"


def windows(text: str, span: Span, *, chars: int) -> Iterator[Span]:
    """The span in pieces of at most `chars` characters, in one pass and without counting a token."""
    start, end = span
    while end - start > chars:
        cut = start + _nearest(text[start:start + chars], chars, lowest=chars // 2)
        yield from _trimmed(text, start, cut)
        start = cut
    yield from _trimmed(text, start, end)


def cut_to_size(text: str, *, limit: int, count: Count, offsets: Offsets, special: int) -> list[tuple[Span, int]]:
    """Spans of `text` and their tokens, in order, about even, each of at most `limit` tokens.

    Only a single character that alone has more tokens stays above the limit.
    """
    done: list[tuple[Span, int]] = []
    pending = [(span, _tokens(text, span, count, special)) for span in _even(text, (0, len(text)), limit, offsets)][::-1]
    while pending:
        span, tokens = pending.pop()
        if tokens <= limit or span[1] - span[0] == 1:
            done.append((span, tokens))
        else:
            pending += [(half, _tokens(text, half, count, special)) for half in halves(text, span)][::-1]
    return done


def halves(text: str, span: Span) -> list[Span]:
    """The span cut once, near its middle; at least two characters long."""
    start, end = span
    piece = text[start:end]
    cut = start + _nearest(piece, len(piece) // 2, lowest=len(piece) // 4)
    return [*_trimmed(text, start, cut), *_trimmed(text, cut, end)]


def _even(text: str, span: Span, limit: int, offsets: Offsets) -> list[Span]:
    tokens = offsets(text)
    parts = ceil(len(tokens) / max(1, _FILL * limit))
    if parts < 2:
        return halves(text, span)
    leeway = max(1, int(_LEEWAY * limit))
    spans: list[Span] = []
    start = 0
    for part in range(1, parts):
        index = part * len(tokens) // parts
        lowest, highest = tokens[max(0, index - leeway)][0], tokens[min(len(tokens) - 1, index + leeway)][0]
        base = max(start, lowest)
        if highest <= base:
            continue
        cut = base + _nearest(text[base:highest], tokens[index][0] - base, lowest=1)
        spans.extend(_trimmed(text, start, cut))
        start = cut
    return [*spans, *_trimmed(text, start, len(text))]


def _nearest(text: str, place: int, *, lowest: int) -> int:
    """The best cut of `text` near `place` and not before `lowest`: from 1 to its length, never inside a character."""
    for pattern in (_CLAUSE, _SPACE):
        cuts = [match.end() for match in pattern.finditer(text) if lowest <= match.end() < len(text)]
        if cuts:
            return min(cuts, key=lambda cut: abs(cut - place))
    place = min(max(1, place), len(text))
    cut = place
    while cut < len(text) and cut - place < 16 and (unicodedata.combining(text[cut]) or text[cut] in _JOINERS
                                                    or text[cut - 1] == _JOINERS[0]):
        cut += 1
    return cut


def _tokens(text: str, span: Span, count: Count, special: int) -> int:
    return count([text[slice(*span)]])[0] - special


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    piece = text[start:end]
    body = piece.strip()
    if body:
        first = start + len(piece) - len(piece.lstrip())
        yield first, first + len(body)
