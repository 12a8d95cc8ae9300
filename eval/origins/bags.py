"""Weighted tokens of many texts end to end, and the scores of all passages for all queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexers.impacts import NOTHING, Impacts, quantised, restored

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Bags:
    """`counts`: tokens of each text (N,); `tokens`, `weights`: of all texts end to end, (sum of counts,)."""

    counts: NDArray[np.int64]
    tokens: NDArray[np.int32]
    weights: NDArray[np.float32]

    @property
    def size(self) -> int:
        return len(self.counts)

    @property
    def texts(self) -> NDArray[np.int64]:
        """The text of each entry."""
        return np.repeat(np.arange(self.size), self.counts)

    def of(self, text: int) -> Impacts:
        start = int(self.counts[:text].sum())
        end = start + int(self.counts[text])
        return self.tokens[start:end], self.weights[start:end]

    def only(self, kept: NDArray[np.bool_]) -> Bags:
        """The entries that the mask names."""
        counts = np.bincount(self.texts[kept], minlength=self.size)
        return Bags(counts.astype(np.int64), self.tokens[kept], self.weights[kept])

    def in_eight_bits(self, *, scale: float) -> Bags:
        """With the weights that an index of this scale keeps."""
        return Bags(self.counts, self.tokens, restored(quantised(self.weights, scale=scale)[0], scale=scale))


def bags(texts: Sequence[Impacts]) -> Bags:
    return Bags(np.asarray([len(ids) for ids, _ in texts], np.int64),
                np.concatenate([NOTHING[0], *(ids for ids, _ in texts)]).astype(np.int32),
                np.concatenate([NOTHING[1], *(weights for _, weights in texts)]).astype(np.float32))


def products(queries: Bags, passages: Bags) -> Scores:
    """Sum over common tokens of the products of weights, (queries, passages)."""
    order = np.argsort(passages.tokens, kind="stable")
    tokens, weights, holders = passages.tokens[order], passages.weights[order], passages.texts[order]
    found = np.zeros((queries.size, passages.size), np.float32)
    starts = np.searchsorted(tokens, queries.tokens, side="left")
    ends = np.searchsorted(tokens, queries.tokens, side="right")
    for query, weight, start, end in zip(queries.texts.tolist(), queries.weights, starts.tolist(), ends.tolist(), strict=True):
        found[query, holders[start:end]] += weight * weights[start:end]     # a passage holds a token once
    return found
