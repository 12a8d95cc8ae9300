"""Inverted indexes from texts and from each other, in memory proportional to a piece of their postings.

Words are kept in the order of their digests in every index, so those of several merge into one run: the postings of some
words of the result are a contiguous part of each source, and the result can be written from front to back.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexers.lexical_file import MOST, Arrays, digest, joined, length_bytes, letters_of, spread
from indexers.lexical_words import words

# Postings looked at together: what bounds the memory of a merge, at some 50 bytes each.
_PIECE = 1 << 21
Piece = tuple[NDArray[np.int32], NDArray[np.uint16]]
# The first four fields of a `_Part`, before the words of the result are known.
_Surviving = tuple[Arrays, NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]


def indexed(texts: Sequence[str]) -> Arrays:
    """The index of these texts, in memory."""
    vocabulary: defaultdict[str, int] = defaultdict(itertools.count().__next__)  # a new word takes the next number
    flat: list[int] = []
    sizes: list[int] = []
    for text in texts:
        found = words(text)
        flat.extend(map(vocabulary.__getitem__, found))
        sizes.append(len(found))
    digests = np.asarray([digest(word.encode()) for word in vocabulary], "S16")
    order = np.argsort(digests, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    count = max(1, len(texts))
    # One sort by word, then chunk, gives the postings in file order.
    pairs, times = np.unique(rank[np.asarray(flat, np.int64)] * count + np.repeat(np.arange(len(texts)), sizes), return_counts=True)
    word_of, position = np.divmod(pairs, count)
    times = np.minimum(times, MOST)
    lengths = np.bincount(position, weights=times, minlength=len(texts)).astype(np.int32)
    known = list(vocabulary)
    letters, ends = joined([known[i] for i in order])
    return Arrays(keys=digests[order], ends=ends, starts=np.searchsorted(word_of, np.arange(len(order) + 1)), letters=letters,
                  lengths=lengths, positions=position.astype(np.int32),
                  codes=np.left_shift(times, 8).astype(np.uint16) | length_bytes(lengths)[position], tokens=int(lengths.sum()))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A source and its share of the result. `position`: of each chunk in the result, -1 for those left out; `words`: those
    that keep a posting, ascending; `kept`: how many they keep; `target`: where each is in the result."""

    arrays: Arrays
    position: NDArray[np.int32]
    words: NDArray[np.int64]
    kept: NDArray[np.int64]
    target: NDArray[np.int64]


def merged(sources: Sequence[tuple[Arrays, NDArray[np.int64]]]) -> tuple[Arrays, Iterator[Piece]]:
    """One index of the kept positions of each source, in order; its postings come piece by piece.

    Raises:
        ValueError: positions of a source do not ascend.
    """
    if any((np.diff(keep) <= 0).any() for _, keep in sources):
        raise ValueError("positions to keep must ascend")
    lengths = np.concatenate([np.zeros(0, np.int32), *(arrays.lengths[keep] for arrays, keep in sources)])
    surviving = [_surviving(arrays, position) for arrays, position in _placed(sources)]
    keys, place = np.unique(np.concatenate([np.zeros(0, "S16"), *(arrays.keys[some] for arrays, _, some, _ in surviving)]),
                            return_inverse=True)
    targets = np.split(place.astype(np.int64), np.cumsum([len(some) for _, _, some, _ in surviving])[:-1])
    parts = [_Part(*found, target) for found, target in zip(surviving, targets, strict=False)]  # nothing splits into one
    counts = np.zeros(len(keys), np.int64)
    for part in parts:
        counts[part.target] += part.kept
    starts = np.concatenate([[0], np.cumsum(counts)])
    letters, ends = _vocabulary(parts, len(keys))
    nothing = np.zeros(0, np.int32)
    whole = Arrays(keys=keys, ends=ends, starts=starts, letters=letters, lengths=lengths, positions=nothing,
                   codes=nothing.astype(np.uint16), tokens=int(lengths.sum(dtype=np.int64)))
    return whole, _pieces(parts, starts)


def _placed(sources: Sequence[tuple[Arrays, NDArray[np.int64]]]) -> Iterator[tuple[Arrays, NDArray[np.int32]]]:
    """Each source with the position in the result of each of its chunks, -1 for those left out."""
    first = 0
    for arrays, keep in sources:
        position = np.full(len(arrays.lengths), -1, np.int32)
        position[keep] = np.arange(first, first + len(keep), dtype=np.int32)
        first += len(keep)
        yield arrays, position


def _surviving(arrays: Arrays, position: NDArray[np.int32]) -> _Surviving:
    """The words that keep a posting, and how many each keeps."""
    counts = np.diff(arrays.starts)
    if (position < 0).any():
        counts = np.zeros(len(arrays.keys), np.int64)
        for first, last in _runs(arrays.starts):
            begin, end = int(arrays.starts[first]), int(arrays.starts[last])
            kept = np.concatenate([[0], np.cumsum(position[arrays.positions[begin:end]] >= 0)])
            counts[first:last] = np.diff(kept[arrays.starts[first:last + 1] - begin])
    some = np.flatnonzero(counts)
    return arrays, position, some, counts[some]


def _runs(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Consecutive words whose postings together are about one piece, as (first, after the last)."""
    first, count = 0, len(starts) - 1
    while first < count:
        last = int(np.searchsorted(starts, starts[first] + _PIECE, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


def _vocabulary(parts: Sequence[_Part], size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Letters and offsets of the result's words, each taken from the last source that has it."""
    counts = np.zeros(size, np.int64)
    owner = np.zeros(size, np.int64)
    for number, part in enumerate(parts):
        counts[part.target] = np.diff(part.arrays.ends)[part.words]
        owner[part.target] = number
    ends = np.concatenate([[0], np.cumsum(counts)])
    letters = np.empty(int(ends[-1]), np.uint8)
    for number, part in enumerate(parts):
        own = owner[part.target] == number
        found, sizes = letters_of(part.arrays, part.words[own])
        letters[spread(ends[part.target[own]], sizes)] = found
    return letters, ends


def _pieces(parts: Sequence[_Part], starts: NDArray[np.int64]) -> Iterator[Piece]:
    for first, last in _runs(starts):
        begin = int(starts[first])
        positions = np.empty(int(starts[last]) - begin, np.int32)
        codes = np.empty(len(positions), np.uint16)
        free = starts[first:last] - begin  # where the next posting of each word goes
        for part in parts:
            low, high = np.searchsorted(part.target, (first, last))
            if low == high:
                continue
            taken, code = _postings(part, int(low), int(high))
            which, kept = part.target[low:high] - first, part.kept[low:high]
            at = spread(free[which], kept)
            positions[at], codes[at] = taken, code
            free[which] += kept
        yield positions, codes


def _postings(part: _Part, low: int, high: int) -> Piece:
    """What this source keeps of the postings of its words number `low` to `high`, with positions of the result."""
    arrays = part.arrays
    begin, end = int(arrays.starts[part.words[low]]), int(arrays.starts[part.words[high - 1] + 1])
    positions = part.position[arrays.positions[begin:end]]
    alive = positions >= 0  # words between these that keep nothing fall out here
    return positions[alive], arrays.codes[begin:end][alive]
