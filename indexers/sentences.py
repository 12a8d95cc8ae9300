"""Sentences as exact spans: the smallest units that selection may choose and a citation may quote.

Lines are judged first, because files mix wrapped prose with lists, headings and records: a line break ends a sentence
unless the next line plainly goes on. The joined stretches are then split by `sentencex` (rules and abbreviation lists for
many languages, about 70 MB/s), which is helped where it was found wanting: it panics on some rare white space, slows down
in long text without spaces, leaves an enumerator ("1.") alone, misses some abbreviations, and ends no sentence at ".)".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rag.types import Span

_LINE = re.compile(r"[^\r\n]+")
_NEWLINE = re.compile(r"\r\n?|\n")
# What opens a line of its own: a bullet, a number, a heading, a table row, a quotation, a code fence.
_MARKER = re.compile(r"\s*(?:[-*+•‣◦▪·–—]\s|\(?(?:\d{1,3}|[a-zA-Z])[.)]\s|#{1,6}\s|\||>|```|~~~|\\item)")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s")
_ODD_SPACE = re.compile(r"[^\S ]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CLOSED = re.compile(r"(?<=[.!?…])[)\]”’»]+ +(?=[\"'“‘«(\[]?[A-ZÀ-ÞА-ЯΑ-Ω0-9])")
_WIDE_CLOSED = re.compile(r"(?<=[。！？])[”’」』）》】!?！？。]*")
_ENUMERATOR = re.compile(r"[\"'“(\[]?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5})[.)]|[-*+•‣◦▪·–—]")
_WIDE_END = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]\s*$")
_FALLBACK_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]* +|(?<=[।؟])")
# Abbreviations that end no sentence and that `sentencex` does not know, by language; "" holds for all.
_ABBREVIATIONS: dict[str, frozenset[str]] = {
    "": frozenset({"approx.", "ca.", "cf.", "incl.", "fig.", "figs.", "eq.", "eqs.", "vol.", "nos.", "pp.", "resp."}),
    "ar": frozenset({"د.", "أ.", "م.", "ص."}),
    "es": frozenset({"dr.", "dra.", "sr.", "sra.", "srta.", "ud.", "uds.", "pág."}),
    "fr": frozenset({"m.", "mm.", "mme.", "mlle.", "dr.", "p.", "av.", "env."}),
    "ru": frozenset({"г.", "гг.", "д.", "ул.", "им.", "см.", "рис.", "т."}),
}
# Prose is wrapped within these widths; a shorter line that stops ends something, a longer one is a paragraph.
_WRAP_CHARS = (40, 120)
_WRAP_WIDE_CHARS = (18, 60)
# The library's time grows with the square of a stretch that has no spaces.
_WINDOW_CHARS = 4000


def split(text: str, language: str = "en") -> tuple[Span, ...]:
    """Spans in order, not overlapping, none empty or edged with white space; all else of the text is white space."""
    spans: list[Span] = []
    for start, end in _stretches(text):
        clean = _SURROGATE.sub("\ufffd", _ODD_SPACE.sub(" ", text[start:end]))
        offset = start
        for piece in _joined(_segments(clean, language), language):
            body = piece.strip()
            if body:
                first = offset + len(piece) - len(piece.lstrip())
                spans.append((first, first + len(body)))
            offset += len(piece)
    return tuple(spans)


def _stretches(text: str) -> Iterator[Span]:
    """Runs of lines that belong to one flow of prose."""
    start, end, previous = -1, -1, ""
    for match in _LINE.finditer(text):
        line = match.group()
        if start >= 0 and not (_adjoin(text, end, match.start()) and _continues(previous, line)):
            yield start, end
            start = -1
        if start < 0:
            start = match.start()
        end, previous = match.end(), line
    if start >= 0:
        yield start, end


def _adjoin(text: str, end: int, start: int) -> bool:
    return start - end == 1 or len(_NEWLINE.findall(text, end, min(start, end + 3))) == 1


def _continues(previous: str, line: str) -> bool:
    """Whether `line` goes on with the sentence of the line before it."""
    body = line.lstrip()
    if not body or not previous.strip() or _MARKER.match(line) or _HEADING.match(previous):
        return False
    if len(body.rstrip()) < 3 or body[0] in ",;:.)]}%" or len(previous.strip()) < 3:
        return True             # formulas and cells that came out one symbol a line
    if not any(map(str.isalnum, body[:80])) or not any(map(str.isalnum, previous[-80:])):
        return False            # rulers and underlines
    if body[0].islower():
        return True
    low, high = _WRAP_WIDE_CHARS if _WIDE_END.search(previous[-8:]) else _WRAP_CHARS
    return low <= len(previous.rstrip()) <= high


def _segments(clean: str, language: str) -> Iterator[str]:
    """Pieces whose concatenation is `clean`."""
    for part in _cut(clean, _WIDE_CLOSED):
        start = 0
        while len(part) - start > _WINDOW_CHARS:
            window = part[start:start + _WINDOW_CHARS]
            # The last piece may go on beyond the window; one that fills it is cut at a space if it has any.
            pieces = _library_segments(window, language)[:-1] or [window[:window.rfind(" ") + 1] or window]
            yield from pieces
            start += sum(map(len, pieces))
        yield from _library_segments(part[start:], language)


def _library_segments(clean: str, language: str) -> list[str]:
    import sentencex

    try:
        pieces: list[str] = sentencex.segment(language, clean)
    except BaseException as error:
        # A panic in the library arrives as a BaseException of a type that cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        pieces = []
    if sum(map(len, pieces)) != len(clean):
        return _cut(clean, _FALLBACK_END)
    return [part for piece in pieces for part in _cut(piece, _CLOSED)]


def _cut(text: str, ends: re.Pattern[str]) -> list[str]:
    parts: list[str] = []
    start = 0
    for match in ends.finditer(text):
        parts.append(text[start:match.end()])
        start = match.end()
    parts.append(text[start:])
    return parts


def _joined(pieces: Iterable[str], language: str) -> Iterator[str]:
    """The pieces, an enumerator or abbreviation joined with what follows it."""
    known = _ABBREVIATIONS[""] | _ABBREVIATIONS.get(language, frozenset())
    held: list[str] = []
    for piece in pieces:
        held.append(piece)
        body = piece.strip()
        last = body[-12:].rpartition(" ")[2].lstrip("([\"'“‘«").lower()
        if body and not (last in known or (len(held) == 1 and _ENUMERATOR.fullmatch(body))):
            yield "".join(held)
            held = []
    if held:
        yield "".join(held)
