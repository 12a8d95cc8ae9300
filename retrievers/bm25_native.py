"""BM25 over the segments' own inverted indexes, read in place: the engine for collections of any size.

Words are taken rarest first. Scores are gathered until the words that are left, all together, could not lift a new chunk
into the best `k`; what those words add is then looked up for the remaining candidates alone. This is MaxScore (Turtle
and Flood, Query Evaluation: Strategies and Optimizations, 1995, section 4.2) a word at a time, on arrays: exact, and
the posting lists of words such as "the" are hardly ever read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexers import lexical
from indexers.lexical_file import corrupt
from retrievers.bm25_statistics import Statistics, Term, WordSegment
from retrievers.dense import Ranked, best
from retrievers.segments import Allowed, Mask

Scores = NDArray[np.float64]
# One lookup by binary search costs as much as adding this many postings in passing.
_LOOKUP = 8


@dataclass(frozen=True, slots=True, eq=False)
class _List:
    """The postings of one word in one segment. `weight`: more than the word can add to any score."""

    weight: np.float32
    positions: NDArray[np.int32]
    codes: NDArray[np.uint16]


class NativeBm25:
    """Opened in milliseconds; thread-safe; holds nothing that grows with the collection."""

    engine = "native"

    def __init__(self, segments: Sequence[WordSegment]) -> None:
        self._segments = tuple(segments)
        self._statistics = Statistics(segments)
        # 1 + tf / K of every code a posting can have.
        tf = np.arange(lexical.MOST + 1, dtype=np.float32)
        self._saturation = (np.float32(1) + tf[:, None] * self._statistics.inverse_norms()).reshape(-1)

    def search(self, question: str, *, k: int, allowed: Allowed | None = None) -> Ranked:
        terms = self._statistics.terms(lexical.words(question))
        if not terms or k < 1:
            return []
        rows: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
        scores: list[Scores] = [np.zeros(0)]
        floor = 0.0
        masks = [segment.live for segment in self._segments] if allowed is None else list(allowed)
        # The largest segment first: it is the likeliest to set a floor that spares work in the others.
        for i in sorted(range(len(self._segments)), key=lambda i: -self._segments[i].lexical.size):
            index = self._segments[i].lexical
            try:
                at, found = _Search(self._saturation, k, floor, masks[i]).run(self._lists(terms, i), index.size)
            except IndexError as error:
                raise corrupt(index.path, "has postings of chunks that are not there") from error
            rows.append(self._segments[i].rows[at])
            scores.append(found)
            floor = max(floor, _floor(np.concatenate(scores), k))
        return best(np.concatenate(scores), np.concatenate(rows), k=k)

    def idf(self, terms: Sequence[str]) -> dict[str, float]:
        return self._statistics.idf_of(terms)

    def _lists(self, terms: Sequence[Term], segment: int) -> list[_List]:
        """Rarest word of the collection first, which is the greatest weight first unless words are repeated."""
        index = self._segments[segment].lexical
        found = []
        for term in terms:
            if term.numbers[segment] >= 0:
                start, end = index.span(term.numbers[segment])
                weight = np.float32(term.asked) * np.float32(self._statistics.idf(term.holding))
                found.append(_List(weight, index.arrays.positions[start:end], index.arrays.codes[start:end]))
        return found


@dataclass(slots=True)
class _Search:
    """One question in one segment. `floor`: what a score must reach, rising as better chunks are met."""

    saturation: NDArray[np.float32]
    k: int
    floor: float
    mask: Mask | None

    def run(self, lists: Sequence[_List], size: int) -> tuple[NDArray[np.int64], Scores]:
        """Positions and scores of all that may be among the best `k`, and perhaps some more."""
        rest = [float(total) for total in np.cumsum([0.0, *(each.weight for each in reversed(lists))])[::-1]]
        scores = np.zeros(size)
        done = 0
        while done < len(lists) and rest[done] >= self.floor:
            values = self._add(lists[done], scores)
            done += 1
            if done < len(lists) and rest[0] - rest[done] > max(rest[done], self.floor):
                self._raise(values if self.mask is None else values[self.mask.take(lists[done - 1].positions)])
        least = max(self.floor - rest[done], np.finfo(np.float64).tiny)
        candidates = np.flatnonzero(scores >= least)
        if self.mask is not None:
            candidates = candidates[self.mask.take(candidates)]
        return self._refine(candidates, scores, lists[done:], rest[done:])

    def _add(self, each: _List, scores: Scores) -> Scores:
        """Adds what a word gives to every chunk that holds it; returns their scores so far."""
        at = each.positions.astype(np.intp)  # what numpy would make of them twice; `take` is faster than brackets
        values = scores.take(at)
        values += self._gain(each, each.codes)
        scores[at] = values
        return values

    def _refine(self, candidates: NDArray[np.int64], scores: Scores, lists: Sequence[_List],
                rest: Sequence[float]) -> tuple[NDArray[np.int64], Scores]:
        """Adds the remaining words to the candidates and drops those that fall behind, word by word."""
        values = scores.take(candidates)
        for each, after in zip(lists, rest[1:], strict=True):
            if len(candidates) * _LOOKUP < len(each.positions):
                wanted = candidates.astype(np.int32)
                at = np.minimum(np.searchsorted(each.positions, wanted), len(each.positions) - 1)
                held = np.flatnonzero(each.positions.take(at) == wanted)
                values[held] += self._gain(each, each.codes.take(at[held]))
            else:
                scores[candidates] = values
                self._add(each, scores)
                values = scores.take(candidates)
            self._raise(values)
            keep = np.flatnonzero(values + after >= self.floor)
            candidates, values = candidates[keep], values[keep]
        return candidates, values.astype(np.float32).astype(np.float64)

    def _gain(self, each: _List, codes: NDArray[np.uint16]) -> NDArray[np.float32]:
        return each.weight - each.weight / self.saturation.take(codes)

    def _raise(self, values: Scores) -> None:
        self.floor = max(self.floor, _floor(values[values > self.floor], self.k))


def _floor(values: Scores, k: int) -> float:
    """What a further score must reach if these are `k` or more chunks that may be returned: one step of single precision
    below the last of the best `k`, because scores that round to the same are ties."""
    if len(values) < k:
        return 0.0
    last = np.partition(values, len(values) - k)[len(values) - k]
    return float(np.nextafter(np.float32(last), np.float32(0)))
