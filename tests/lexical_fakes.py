"""Segments with nothing but words, and BM25 written out slowly, for the tests of the BM25 engines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexers import lexical
from indexers.lexical import LexicalIndex
from retrievers.bm25_statistics import K1, B


@dataclass(frozen=True)
class WordSegment:
    """What the BM25 engines use of a segment."""

    folder: Path
    rows: NDArray[np.int64]
    live: NDArray[np.bool_] | None
    lexical: LexicalIndex

    @property
    def size(self) -> int:
        return len(self.rows)


def segments_of(folder: Path, texts: Sequence[Sequence[str]], *, dead: Sequence[int] = (), first_row: int = 0) -> list[WordSegment]:
    """One segment for each list of texts, rows counted through from `first_row`; `dead` are rows."""
    made = []
    for number, some in enumerate(texts):
        place = folder / f"segment{number}"
        place.mkdir(parents=True)
        lexical.write(place, some)
        rows = np.arange(first_row, first_row + len(some))
        live = ~np.isin(rows, dead)
        made.append(WordSegment(place, rows, None if live.all() else live, LexicalIndex(place)))
        first_row += len(some)
    return made


def stored_length(length: int) -> int:
    """What is left of a length in one byte: Lucene's SmallFloat.byte4ToInt(intToByte4(length)), written from its description:
    24 is taken off, four binary digits are kept of the remainder, the others become 0."""
    rest = max(0, length - 24)
    lost = max(0, rest.bit_length() - 4)
    return length if length < 24 else 24 + (rest >> lost << lost)


def slow_bm25(texts: dict[int, str], question: str) -> dict[int, float]:
    """Row to score, of every chunk in `texts` (row to text) that holds a word of the question. Double precision."""
    bags = {row: Counter(lexical.words(text)) for row, text in texts.items()}
    bags = {row: Counter({word: min(times, lexical.MOST) for word, times in bag.items()}) for row, bag in bags.items() if bag}
    mean = sum(bag.total() for bag in bags.values()) / max(1, len(bags))
    scores: dict[int, float] = {}
    for word in lexical.words(question):
        holding = [row for row, bag in bags.items() if word in bag]
        idf = math.log(1 + (len(bags) - len(holding) + 0.5) / (len(holding) + 0.5))
        for row in holding:
            times = bags[row][word]
            norm = K1 * (1 - B + B * stored_length(bags[row].total()) / mean)
            scores[row] = scores.get(row, 0.0) + idf * times / (times + norm)
    return scores


def agree(found: Sequence[tuple[int, float]], scores: dict[int, float], *, k: int) -> None:
    """Asserts that `found` is a best `k` of `scores`: right scores, falling, none better left out. Ties, to the precision
    of the engines, may be in any order."""
    close = 2e-6
    assert len(found) == min(k, len(scores))
    assert len({row for row, _ in found}) == len(found)
    for row, score in found:
        assert math.isclose(score, scores[row], rel_tol=close), (row, score, scores[row])
    values = [score for _, score in found]
    assert values == sorted(values, reverse=True)
    left = [score for row, score in scores.items() if row not in dict(found)]
    if left and found:
        assert max(left) <= values[-1] * (1 + close)
