"""One colour, marker and dash for each system, the same in every plot and table of a report.

Colours are told apart with the common colour vision deficiencies where few lines meet; with seventeen systems no palette
can carry that alone, so markers and dashes differ too and lines are labelled at their ends. Each colour has a contrast of
at least 3 to 1 with the page, in light and dark (WCAG 2.2, 1.4.11).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

PAGE_LIGHT, PAGE_DARK = "#fdfdfb", "#15171a"
Marker = Literal["circle", "square", "diamond", "triangle", "down", "cross"]


@dataclass(frozen=True, slots=True)
class Style:
    """`dash` as in SVG's stroke-dasharray, "" for a solid line."""

    light: str
    dark: str
    marker: Marker = "circle"
    dash: str = ""


_INK, _GREY = ("#3b3f45", "#d3d6da"), ("#80868e", "#9198a1")
_VERMILLION, _BLUE, _SKY = ("#c9440a", "#ff8a52"), ("#0067b0", "#56a8ea"), ("#2a93cf", "#7cc7f2")
_GREEN, _ORANGE, _PURPLE = ("#00805e", "#35c49a"), ("#b97700", "#f0b03f"), ("#b0578f", "#e29ac6")
_WINE, _INDIGO, _OLIVE = ("#832255", "#d87aa8"), ("#4a3fa5", "#a49bf0"), ("#7a7a1f", "#c3c15a")
_TEAL, _BROWN = ("#24857c", "#5fcabd"), ("#8a5a2b", "#cf9e6c")

_KNOWN = {
    "thrift": Style(*_VERMILLION),
    # Rank order in greys: the background against which the others are seen.
    "topk": Style(*_INK, "square"),
    "topk_whole": Style(*_INK, "square", "7 3"),
    "topk_dense": Style(*_GREY, "diamond"),
    "topk_dense_whole": Style(*_GREY, "diamond", "7 3"),
    "topk_bm25": Style(*_GREY, "down", "2 3"),
    "topk_bm25_whole": Style(*_GREY, "down", "7 3 2 3"),
    "sentences": Style(*_SKY, "triangle"),
    "mmr": Style(*_GREEN, "diamond"),
    "knapsack": Style(*_BLUE, "square"),
    "adagres": Style(*_PURPLE, "triangle"),
    "carrot": Style(*_ORANGE, "down"),
    "greedy": Style(*_WINE, "circle", "7 3"),
    # Peers are dashed: other people's retrieval and packing.
    "llamaindex": Style(*_INDIGO, "cross", "4 3"),
    "haystack": Style(*_OLIVE, "cross", "4 3"),
    "txtai": Style(*_TEAL, "cross", "4 3"),
    # Ceilings and floor: lines across the plot.
    "gold": Style(*_OLIVE, "diamond", "1 3"),
    "gold_sentences": Style(*_GREEN, "diamond", "1 3"),
    "closed_book": Style(*_GREY, "diamond", "1 3"),
}
_SPARE = [Style(*colours, marker, "5 2") for marker in ("circle", "triangle", "square")
          for colours in (_BROWN, _BLUE, _PURPLE, _TEAL, _ORANGE, _INDIGO, _GREEN)]


def styles(systems: Iterable[str]) -> dict[str, Style]:
    """Known systems have their own style in every report; others get spare ones in the order given."""
    spare = 0
    found: dict[str, Style] = {}
    for name in dict.fromkeys(systems):
        if name in _KNOWN:
            found[name] = _KNOWN[name]
        else:
            found[name] = _SPARE[spare % len(_SPARE)]
            spare += 1
    return found
