"""The lists of one range from its passages, and its passages from its lists: compiled, each a counting sort.

Numba's cache notices changes of this file alone: a function here must not use a compiled function of another file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexers.sparse_file import GROUP, RANGE, Section
from rag.compiled import compiled

_Lists = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8], NDArray[np.int16], NDArray[np.uint8]]
_Passages = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8], bool]


def section_of(counts: NDArray[np.int64], tokens: NDArray[np.int32], impacts: NDArray[np.uint8], *, vocabulary: int) -> Section:
    """Lists of up to `RANGE` passages. `tokens` are below `vocabulary` and ascend within each passage."""
    return Section(*_lists(counts, tokens, impacts, vocabulary))


def passages_of(section: Section, *, size: int, vocabulary: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8]]:
    """Tokens of each of the `size` passages, all tokens end to end, ascending within a passage, and their impacts.

    Raises:
        ValueError: lists that are no lists of `size` passages over this vocabulary.
    """
    counts, tokens, impacts, sound = _passages(section.tokens, section.starts, section.positions, section.impacts, size, vocabulary)
    if not sound:
        raise ValueError("lists of other passages")
    return counts, tokens, impacts


@compiled
def _lists(counts: NDArray[np.int64], tokens: NDArray[np.int32], impacts: NDArray[np.uint8], vocabulary: int) -> _Lists:
    sizes = np.zeros(vocabulary, np.int64)
    for token in tokens:
        sizes[token] += 1
    groups = -(-vocabulary // GROUP)
    first = np.zeros(groups + 1, np.int32)
    held = 0
    for token in range(vocabulary):
        if token % GROUP == 0:
            first[token // GROUP] = held
        if sizes[token] > 0:
            held += 1
    first[groups] = held
    names = np.empty(held, np.int32)
    starts = np.zeros(held + 1, np.int32)
    number = np.empty(vocabulary, np.int64)
    free = np.empty(held, np.int64)
    at = 0
    for token in range(vocabulary):
        if sizes[token] > 0:
            names[at] = token
            number[token] = at
            free[at] = starts[at]
            starts[at + 1] = starts[at] + sizes[token]
            at += 1
    peaks = np.zeros(held, np.uint8)
    positions = np.empty(len(tokens), np.int16)
    values = np.empty(len(tokens), np.uint8)
    read = 0
    for position in range(len(counts)):
        for _ in range(counts[position]):
            which = number[tokens[read]]
            positions[free[which]] = position
            values[free[which]] = impacts[read]
            peaks[which] = max(peaks[which], impacts[read])
            free[which] += 1
            read += 1
    return first, names, starts, peaks, positions, values


@compiled
def _passages(names: NDArray[np.int32], starts: NDArray[np.int32], positions: NDArray[np.int16], impacts: NDArray[np.uint8],
              size: int, vocabulary: int) -> _Passages:
    counts = np.zeros(size, np.int64)
    tokens = np.empty(len(positions), np.int32)
    values = np.empty(len(positions), np.uint8)
    for position in positions:
        if not 0 <= position < size:
            return counts, tokens, values, False
        counts[position] += 1
    free = np.cumsum(counts) - counts
    end = 0
    before = -1
    for which in range(len(names)):
        if not before < names[which] < vocabulary or starts[which] != end or not end <= starts[which + 1] <= len(positions):
            return counts, tokens, values, False
        before = names[which]
        end = starts[which + 1]
        for at in range(starts[which], end):
            place = free[positions[at]]
            tokens[place] = names[which]
            values[place] = impacts[at]
            free[positions[at]] += 1
    return counts, tokens, values, end == len(positions)


@compiled
def flaws(first: NDArray[np.int32], names: NDArray[np.int32], starts: NDArray[np.int32], peaks: NDArray[np.uint8],
          positions: NDArray[np.int16], impacts: NDArray[np.uint8], size: int, vocabulary: int) -> NDArray[np.int64]:
    """How many lists cannot be found by their token or begin where they must not, have another peak than they say, and how many
    postings are out of order or outside of the range's `size` passages, or have no impact. All zero when sound."""
    found = np.zeros(4, np.int64)
    group = 0
    end = 0
    for which in range(len(names)):
        while group < len(first) and group * GROUP <= names[which]:
            found[0] += first[group] != which
            group += 1
        ordered = names[which] < vocabulary and (which == 0 or names[which] > names[which - 1])
        if not ordered or starts[which] != end or starts[which + 1] <= end or starts[which + 1] > len(positions):
            found[0] += 1
            return found    # what follows has no known place
        end = starts[which + 1]
        peak = 0
        before = -1
        for at in range(starts[which], end):
            found[2] += positions[at] <= before or positions[at] >= min(size, RANGE)
            found[3] += impacts[at] == 0
            before = max(before, positions[at])
            peak = max(peak, impacts[at])
        found[1] += peak != peaks[which]
    while group < len(first):
        found[0] += first[group] != len(names)
        group += 1
    found[0] += end != len(positions)
    return found
