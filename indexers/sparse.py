"""The term weights of a segment's passages as an impact index that is read in place: what sparse search and its exports read.

TILDEv2 (Zhuang and Zuccon 2021, arXiv 2108.08513) stores the tokens of each passage with their weights and scores candidates of
BM25; here the same weights, in eight bits, are also an inverted index, as for DeepImpact and uniCOIL, that finds candidates itself
and looks any of them up. `indexers.sparse_file` describes the file, `indexers.impacts` the weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexers.impacts import Bag, Impacts, bag, check_model, restored
from indexers.sparse_file import (
    FILE,
    FIRST,
    GROUP,
    IMPACTS,
    LISTS,
    PEAKS,
    POSITIONS,
    POSTINGS,
    RANGE,
    STARTS,
    TOKENS,
    Facts,
    Section,
    Views,
    Writer,
    corrupt,
    opened,
)
from rag.errors import SnapshotMismatch

__all__ = ["FILE", "RANGE", "Facts", "SparseIndex", "merge", "write"]

_NO_BAG = Bag(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.uint8))


def write(folder: Path, impacts: Iterable[Impacts], *, vocabulary: int, scale: float) -> Facts:
    """The index of these passages, position i for passage i. The folder holds none yet. `vocabulary`: tokens of the model;
    `scale`: its largest weight. Memory: some 30 MB for passages of 120 tokens, however many there are.

    Raises:
        InputError: names the passage whose ids do not ascend or are outside of the vocabulary, or whose weights are not
            positive and finite; then the file is there, incomplete, and never opens.
    """
    check_model(vocabulary=vocabulary, scale=scale)
    return _save(folder, _bags(impacts, vocabulary, scale), vocabulary=vocabulary, scale=scale)


def merge(folder: Path, parts: Sequence[tuple[SparseIndex, NDArray[np.int64]]]) -> Facts:
    """One index of the kept positions of each part, in order; impacts are taken over as they are. The folder holds none yet.
    Memory: as `write`. What a part counts as clipped stays counted.

    Raises:
        SnapshotMismatch: parts of different models. SnapshotCorrupt: a part contradicts itself.
        ValueError: no part, or positions of a part that do not ascend or are not there.
    """
    if not parts or any((np.diff(keep) <= 0).any() or (len(keep) and not 0 <= keep[0] <= keep[-1] < part.size)
                        for part, keep in parts):
        raise ValueError("positions to keep must ascend within each part, of which there must be one")
    model = parts[0][0]
    for part, _ in parts:
        part.check_same_model(model)
    bags = itertools.chain.from_iterable(part.bags(keep) for part, keep in parts)
    return _save(folder, bags, vocabulary=model.vocabulary, scale=model.scale, clipped=sum(part.clipped for part, _ in parts))


class SparseIndex:
    """One segment's index, opened. Thread-safe; never changes.

    Raises:
        SnapshotCorrupt: the file is missing or not whole, when opened; its parts disagree, when a search meets that. Changed
            impacts are found by the checksum to which the store holds every file, and by `problems`.
        SnapshotMismatch: it has another format.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.facts: Facts
        self.views: Views
        self.facts, self.views = opened(folder)

    @property
    def size(self) -> int:
        return self.facts.passages

    @property
    def vocabulary(self) -> int:
        return self.facts.vocabulary

    @property
    def scale(self) -> float:
        return self.facts.scale

    @property
    def clipped(self) -> int:
        """Weights above the scale when the passages were written, deleted ones included."""
        return self.facts.clipped

    @cached_property
    def holding(self) -> NDArray[np.int64]:
        """How many passages, deleted ones included, have a weight for each token, (vocabulary,). Read once: some milliseconds for
        100,000 passages."""
        found = np.zeros(self.vocabulary, np.int64)
        for number in range(len(self.views.layout)):
            section = self.section(number)
            found[section.tokens] += np.diff(section.starts)
        return found

    def check_same_model(self, other: SparseIndex) -> None:
        """
        Raises:
            SnapshotMismatch: `other` has another vocabulary or scale.
        """
        if (self.vocabulary, self.scale) != (other.vocabulary, other.scale):
            raise SnapshotMismatch(f"{self.path} has a vocabulary of {self.vocabulary} tokens and weights up to {self.scale}, "
                                   f"{other.path} one of {other.vocabulary} and up to {other.scale}.",
                                   hint="Run `thriftrag collections rebuild`: all segments are then made with one model.")

    def section(self, number: int) -> Section:
        """The lists of passages number * `RANGE` and on, as they are in the file."""
        layout, views = self.views.layout[number].tolist(), self.views
        groups, lists, postings = -(-self.vocabulary // GROUP), layout[LISTS], layout[POSTINGS]
        return Section(views.words[layout[FIRST]:layout[FIRST] + groups + 1], views.words[layout[TOKENS]:layout[TOKENS] + lists],
                       views.words[layout[STARTS]:layout[STARTS] + lists + 1], views.bytes_[layout[PEAKS]:layout[PEAKS] + lists],
                       views.shorts[layout[POSITIONS]:layout[POSITIONS] + postings],
                       views.bytes_[layout[IMPACTS]:layout[IMPACTS] + postings])

    def postings(self, token: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Positions of the passages that hold the token, ascending, and its impact in each; both empty for one that none holds."""
        positions, impacts = [np.zeros(0, np.int64)], [np.zeros(0, np.uint8)]
        for number in range(len(self.views.layout)):
            section = self.section(number)
            at = int(np.searchsorted(section.tokens, token))
            if at < len(section.tokens) and section.tokens[at] == token:
                some = slice(int(section.starts[at]), int(section.starts[at + 1]))
                positions.append(section.positions[some].astype(np.int64) + number * RANGE)
                impacts.append(section.impacts[some])
        return np.concatenate(positions), np.concatenate(impacts)

    def bags(self, keep: NDArray[np.int64] | None = None) -> Iterator[Bag]:
        """The passages of each range in order, only those at the positions `keep` (ascending) if it is given.

        Raises:
            SnapshotCorrupt: a range contradicts itself.
        """
        for number in range(len(self.views.layout)):
            first = number * RANGE
            if keep is None:
                yield self._bag(number)
            else:
                wanted = keep[np.searchsorted(keep, first):np.searchsorted(keep, first + RANGE)] - first
                if len(wanted):
                    yield _chosen(self._bag(number), wanted)

    def passage(self, position: int) -> Impacts:
        """The tokens of one passage, ascending, with the weights that their impacts stand for. Reads its whole range.

        Raises:
            IndexError: there is no such position.
        """
        if not 0 <= position < self.size:
            raise IndexError(position)
        found = _chosen(self._bag(position // RANGE), np.asarray([position % RANGE]))
        return found.tokens, restored(found.impacts, scale=self.scale)

    def problems(self) -> list[str]:
        """Everything in which the file contradicts itself, in words that name it; empty when sound. Reads all of it."""
        from indexers.sparse_lists import flaws

        total = np.zeros(4, np.int64)
        for number in range(len(self.views.layout)):
            each = self.section(number)
            total += flaws(each.first, each.tokens, each.starts, each.peaks, each.positions, each.impacts,
                           self._inside(number), self.vocabulary)
        said = ("lists are not where their token says", "lists have another largest impact than they say",
                "postings are out of order or name passages that are not there", "postings have no impact")
        return [f"{self.path}: {count} {what}" for count, what in zip(total.tolist(), said, strict=True) if count]

    def _inside(self, number: int) -> int:
        """Passages of a range."""
        return min(RANGE, self.size - number * RANGE)

    def _bag(self, number: int) -> Bag:
        from indexers.sparse_lists import passages_of

        try:
            return Bag(*passages_of(self.section(number), size=self._inside(number), vocabulary=self.vocabulary))
        except ValueError as error:
            raise corrupt(self.path, f"has in range {number} {error}") from error


def _save(folder: Path, bags: Iterable[Bag], *, vocabulary: int, scale: float, clipped: int = 0) -> Facts:
    from indexers.sparse_lists import section_of

    passages = 0
    with (folder / FILE).open("xb") as stream:
        writer = Writer(stream, vocabulary=vocabulary, scale=scale)
        for each in _ranges(bags):
            writer.add(section_of(each.counts, each.tokens, each.impacts, vocabulary=vocabulary))
            passages += len(each.counts)
            clipped += each.clipped
        return writer.finish(passages=passages, clipped=clipped)


def _bags(impacts: Iterable[Impacts], vocabulary: int, scale: float) -> Iterator[Bag]:
    waiting = iter(impacts)
    for first in itertools.count(0, RANGE):
        passages = list(itertools.islice(waiting, RANGE))
        if not passages:
            return
        yield bag(passages, vocabulary=vocabulary, scale=scale, first=first)


def _ranges(bags: Iterable[Bag]) -> Iterator[Bag]:
    """The same passages, `RANGE` to a bag, fewer only in the last."""
    waiting, count = [_NO_BAG], 0
    for each in bags:
        rest = each
        while count + len(rest.counts) >= RANGE:
            head, rest = _cut(rest, RANGE - count)
            yield _joined([*waiting, head])
            waiting, count = [_NO_BAG], 0
        waiting.append(rest)
        count += len(rest.counts)
    if count:
        yield _joined(waiting)


def _cut(each: Bag, passages: int) -> tuple[Bag, Bag]:
    """The first passages, which take all that is counted as clipped, and the others."""
    tokens = int(each.counts[:passages].sum())
    return (Bag(each.counts[:passages], each.tokens[:tokens], each.impacts[:tokens], each.clipped),
            Bag(each.counts[passages:], each.tokens[tokens:], each.impacts[tokens:]))


def _joined(bags: Sequence[Bag]) -> Bag:
    return Bag(np.concatenate([each.counts for each in bags]), np.concatenate([each.tokens for each in bags]),
               np.concatenate([each.impacts for each in bags]), sum(each.clipped for each in bags))


def _chosen(each: Bag, positions: NDArray[np.int64]) -> Bag:
    """Only the passages at these positions, which ascend."""
    if len(positions) == len(each.counts):
        return each
    wanted = np.zeros(len(each.counts), bool)
    wanted[positions] = True
    tokens = np.repeat(wanted, each.counts)
    return Bag(each.counts[positions], each.tokens[tokens], each.impacts[tokens])
