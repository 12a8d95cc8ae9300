"""What an ordered choice of candidates is worth to a search that looks for the best one.

The searches of CARROT call a cross-encoder with the question and the concatenated text. `by_concatenation` stands for it where
no model may run: the cosine of the question to the concatenation, whose vector is the normalised mean of its sentences'
vectors. Like a cross-encoder's score it is a value of the whole set: bounded, not additive, and not monotone, since a chunk
that brings in something else than the question asks for lowers it. Unlike one it does not depend on the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from optimizers.pool import Pool
from optimizers.vectors import sums

_LEAST = 1e-9


class Reward(Protocol):
    def __call__(self, orders: Sequence[tuple[int, ...]]) -> Sequence[float]:
        """Worth of each of these ordered, non-empty choices of candidates, by their index in the pool; higher is better.
        One call is one batch of a model that reads texts."""


def by_concatenation(pool: Pool) -> Reward:
    """See the module; values in [-1, 1]."""
    rows = sums(pool, range(len(pool.candidates)))
    # The question's vector is not in the pool, but its product with each sentence's is, and that is all a cosine needs.
    products = np.asarray([sum(candidate.sentence_relevance) for candidate in pool.candidates], np.float64)

    def reward(orders: Sequence[tuple[int, ...]]) -> Sequence[float]:
        if not orders:
            return []
        members = np.concatenate([np.asarray(order, np.intp) for order in orders])
        starts = np.cumsum([0, *map(len, orders[:-1])])
        lengths = np.linalg.norm(np.add.reduceat(rows[members], starts), axis=1)
        cosines: list[float] = (np.add.reduceat(products[members], starts) / np.maximum(lengths, _LEAST)).tolist()
        return cosines

    return reward
