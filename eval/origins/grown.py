"""Collections of any size from the term weights of real passages: these first, and made-up ones after them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from eval.origins.bags import Bags
from indexers.impacts import Impacts

_BLOCK = 8192


class Grown:
    """Passage i is the same in every collection of the same seed, however large. A made-up passage is a real one of whose tokens
    a random share (none to all) is exchanged for tokens drawn, with their weights, from all real passages: so lengths, document
    frequencies and weights stay as the model gives them. A token that is drawn twice stays once."""

    def __init__(self, passages: Bags, *, vocabulary: int, seed: int) -> None:
        self._real = passages
        self._ends = np.cumsum(passages.counts)
        self._vocabulary = vocabulary
        self._seed = seed

    def between(self, first: int, last: int) -> Iterator[Impacts]:
        for at in range(first, min(last, self._real.size)):
            end = int(self._ends[at])
            yield (self._real.tokens[end - int(self._real.counts[at]):end],
                   self._real.weights[end - int(self._real.counts[at]):end])
        first, last = max(first - self._real.size, 0), last - self._real.size
        for block in range(first // _BLOCK, -(-last // _BLOCK)):
            counts, tokens, weights = self._made(block)
            ends = np.concatenate([[0], np.cumsum(counts)]).tolist()
            for at in range(max(first - block * _BLOCK, 0), min(last - block * _BLOCK, _BLOCK)):
                yield tokens[ends[at]:ends[at + 1]], weights[ends[at]:ends[at + 1]]

    def _made(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """Tokens of each made-up passage of a block, and all tokens and weights end to end."""
        rng = np.random.default_rng([self._seed, block])
        which = rng.integers(self._real.size, size=_BLOCK)
        counts = self._real.counts[which]
        passage = np.repeat(np.arange(_BLOCK), counts)
        starts = (self._ends - self._real.counts)[which]
        entry = np.arange(len(passage)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(starts, counts)
        exchanged = rng.random(len(entry)) < np.repeat(rng.random(_BLOCK), counts)
        entry[exchanged] = rng.integers(len(self._real.tokens), size=int(exchanged.sum()))
        pairs, kept = np.unique(passage * self._vocabulary + self._real.tokens[entry], return_index=True)
        return (np.bincount(pairs // self._vocabulary, minlength=_BLOCK), (pairs % self._vocabulary).astype(np.int32),
                self._real.weights[entry[kept]])
