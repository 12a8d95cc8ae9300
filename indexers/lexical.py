"""The words of a segment's chunks as an inverted index that is read in place: what every BM25 engine searches or is built from.

A segment's index is one immutable file (`indexers.lexical_file` describes it). Opening maps it; a search reads the postings
of its words and nothing else, so a segment of a million chunks opens in a millisecond and takes next to no memory.
A word that a chunk holds more than `MOST` times counts `MOST` times, everywhere: in frequencies, lengths and every engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexers.lexical_file import FILE, LENGTHS, MOST, Arrays, corrupt, digest, length_bytes, opened, save
from indexers.lexical_merge import indexed, merged
from indexers.lexical_words import words

__all__ = ["FILE", "LENGTHS", "MOST", "LexicalIndex", "length_bytes", "merge", "words", "write"]

# Chunks tokenised or turned back into word lists together: a few million words.
_BLOCK = 16384
# Postings checked together.
_PIECE = 1 << 22


def write(folder: Path, texts: Sequence[str]) -> None:
    """The index of these texts, position i for text i. The folder holds none yet."""
    blocks = [indexed(texts[start:start + _BLOCK]) for start in range(0, len(texts), _BLOCK)]
    save(folder, *merged([(block, np.arange(len(block.lengths))) for block in blocks]))


def merge(folder: Path, parts: Sequence[tuple[LexicalIndex, NDArray[np.int64]]]) -> None:
    """One index of the kept positions of each part, in order, without reading a text again. The folder holds none yet.
    Memory: some hundred bytes a word and eight bytes a chunk of the parts, and a fixed amount for the postings.

    Raises:
        ValueError: positions of a part do not ascend.
    """
    save(folder, *merged([(part.arrays, keep) for part, keep in parts]))


class LexicalIndex:
    """One segment's index, opened. Thread-safe; never changes. `size`: chunks; `tokens`: words of all, repeats counted.

    Raises:
        SnapshotCorrupt: the file is missing or not whole, when opened; its parts disagree, when a search meets that.
        SnapshotMismatch: it has another format.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.arrays: Arrays = opened(folder)
        self.size = len(self.arrays.lengths)
        self.tokens = self.arrays.tokens

    @property
    def lengths(self) -> NDArray[np.int32]:
        """Words of each chunk, repeats counted."""
        return self.arrays.lengths

    def find(self, wanted: Sequence[str]) -> list[int]:
        """The number of each word in this index, -1 for those that no chunk holds."""
        keys = self.arrays.keys
        digests = np.asarray([digest(word.encode()) for word in wanted], keys.dtype)
        places = np.searchsorted(keys, digests).tolist()
        return [at if at < len(keys) and keys[at] == key else -1 for at, key in zip(places, digests, strict=True)]

    def span(self, word: int) -> tuple[int, int]:
        """Where the postings of the word with this number begin and end in `arrays.positions` and `arrays.codes`."""
        start, end = int(self.arrays.starts[word]), int(self.arrays.starts[word + 1])
        if not 0 <= start <= end <= len(self.arrays.positions):
            raise corrupt(self.path, f"has postings of word {word} from {start} to {end}, outside of it")
        return start, end

    def postings(self, word: str) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Positions of the chunks that hold `word`, ascending, and how often each does; both empty for an unseen word."""
        number = self.find([word])[0]
        start, end = self.span(number) if number >= 0 else (0, 0)
        return self.arrays.positions[start:end], (self.arrays.codes[start:end] >> 8).astype(np.uint8)

    def vocabulary(self) -> list[str]:
        """All words, by number."""
        data, ends = self.arrays.letters.tobytes(), self.arrays.ends.tolist()
        try:
            return [data[start:end].decode() for start, end in itertools.pairwise(ends)]
        except UnicodeDecodeError as error:
            raise corrupt(self.path, "holds words that are no UTF-8") from error

    def bags(self) -> Iterator[list[str]]:
        """The words of each chunk, position by position, in no particular order, repeats kept."""
        known = np.asarray(self.vocabulary(), object)
        for first in range(0, self.size, _BLOCK):
            where = np.concatenate(list(self._inside(first, first + _BLOCK)))
            order = np.argsort(self.arrays.positions[where], kind="stable")
            where = where[order]
            number = np.searchsorted(self.arrays.starts, where, side="right") - 1
            times = (self.arrays.codes[where] >> 8).astype(np.int64)
            flat = np.repeat(known[number], times).tolist()
            ends = np.concatenate([[0], np.cumsum(self.lengths[first:first + _BLOCK], dtype=np.int64)]).tolist()
            for start, end in itertools.pairwise(ends):
                yield flat[start:end]

    def _inside(self, first: int, last: int) -> Iterator[NDArray[np.int64]]:
        """Indexes of the postings of chunks `first` to `last`."""
        for start in range(0, max(1, len(self.arrays.positions)), _PIECE):
            piece = self.arrays.positions[start:start + _PIECE]
            yield start + np.flatnonzero((piece >= first) & (piece < last))

    def problems(self) -> list[str]:
        """Everything in which the file contradicts itself, in words that name it; empty when sound. Reads all of it."""
        arrays = self.arrays
        for name, offsets in (("word", arrays.ends), ("posting", arrays.starts)):
            if (np.diff(offsets) < (name == "posting")).any():
                return [f"{self.path}: {name} offsets do not ascend"]  # nothing else can be read without them
        found = [*self._word_problems(), *self._posting_problems()]
        return [f"{self.path}: {problem}" for problem in found]

    def _word_problems(self) -> Iterator[str]:
        keys = self.arrays.keys
        if (keys[1:] <= keys[:-1]).any():
            yield "words are not in the order of their digests"
        data, ends = self.arrays.letters.tobytes(), self.arrays.ends.tolist()
        spelled = np.asarray([digest(data[start:end]) for start, end in itertools.pairwise(ends)], keys.dtype)
        wrong = int((keys != spelled).sum())
        if wrong:
            yield f"{wrong} words do not have the digest they are found by"

    def _posting_problems(self) -> Iterator[str]:
        arrays = self.arrays
        totals = np.zeros(self.size, np.int64)
        first_of_word = np.zeros(len(arrays.positions) + 1, bool)
        first_of_word[arrays.starts] = True
        unordered = outside = misjudged = 0
        expected = length_bytes(arrays.lengths)
        for start in range(0, len(arrays.positions), _PIECE):
            positions, codes = arrays.positions[start:start + _PIECE], arrays.codes[start:start + _PIECE]
            before = np.concatenate([arrays.positions[max(0, start - 1):start], positions])
            falling = np.flatnonzero(before[1:] <= before[:-1]) + start + (start == 0)
            unordered += int((~first_of_word[falling]).sum())
            inside = (positions >= 0) & (positions < self.size)
            outside += int((~inside).sum())
            positions, codes = positions[inside], codes[inside]
            misjudged += int((expected[positions] != (codes & 0xFF)).sum())
            totals += np.bincount(positions, weights=codes >> 8, minlength=self.size).astype(np.int64)
        if outside:
            yield f"{outside} postings name chunks that are not there"
        if unordered:
            yield f"{unordered} postings are out of order"
        if misjudged:
            yield f"{misjudged} postings disagree with the length of their chunk"
        wrong = int((totals != arrays.lengths).sum())
        if wrong:
            yield f"{wrong} chunks do not have as many words as their postings say"
        if int(arrays.lengths.sum(dtype=np.int64)) != arrays.tokens:
            yield f"the header counts {arrays.tokens} words, the chunks {int(arrays.lengths.sum(dtype=np.int64))}"
