"""From the printed lines of a paragraph to running text: joined where they flow on, broken words mended."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise

from indexers.loaders.pdf_lines import Line, without_leaders

_RAGGED_SHARE = 0.2             # of a paragraph's width that a full line may leave free
# How pdfium marks a hyphen at a line's end.
_BREAK = "\ufffe"
_BROKEN_WORD = re.compile(r"([^\W\d_]*)\ufffe([^\W\d_]*)")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\ufffe\uffff\ud800-\udfff]")


def vocabulary(pages: Sequence[Sequence[Line]]) -> frozenset[str]:
    """The words of a document in lower case, those that are broken at a line's end left out."""
    everything = " ".join(line.text.lower() for lines in pages for line in lines)
    return frozenset(_WORD.findall(_BROKEN_WORD.sub(" ", everything) if _BREAK in everything else everything))


def printable(text: str) -> str:
    """On one line, without what cannot be printed."""
    return " ".join(_UNPRINTABLE.sub("", text).split())


def joined(paragraph: Sequence[Line]) -> str:
    """Full lines flow on; a line that stops short ends there, as in lists, tables and addresses."""
    right = max(line.right for line in paragraph)
    full = right - _RAGGED_SHARE * (right - min(line.left for line in paragraph))
    parts = [paragraph[0].text]
    for previous, line in pairwise(paragraph):
        if previous.text.endswith("-") and previous.text[-2:-1].isalnum():
            separator = ""
        else:
            flows = line.text[0].islower() or (previous.right >= full and not previous.text.endswith(":"))
            separator = " " if flows else "\n"
        parts.append(separator + line.text)
    return "".join(parts)


def mended(text: str, words: Collection[str]) -> str:
    """pdfium marks a hyphen at a line's end with U+FFFE: whether it stays is what the rest of the document tells."""

    def mend(match: re.Match[str]) -> str:
        before, after = match.groups()
        compound = f"{before}-{after}".lower()
        keep = (not before or not after or after[0].isupper() or compound in words
                or (before.lower() in words and after.lower() in words and (before + after).lower() not in words))
        return f"{before}-{after}" if keep else before + after

    text = without_leaders(text)
    return _UNPRINTABLE.sub("", _BROKEN_WORD.sub(mend, text) if _BREAK in text else text)
