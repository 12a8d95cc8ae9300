"""What a set of sentences is worth together: a set function fast enough to look at thousands of sets in a millisecond.

For a set S of sentences and a question with terms t of weight w_t (sum 1), p_u the chance that sentence u holds the answer:

    U(S) =  [1 - prod over u in S of (1 - TRUST * p_u)]                        relevance
          + COVERAGE * sum over t of w_t * max over u in S with t of p_u^(1/2)  coverage
          - REDUNDANCY * sum over pairs u, v of (p_u p_v)^(1/2) * alike(u, v)   redundancy
          - PRICE * tokens(S) / 100                                             cost

- Relevance is the chance that some sentence helps if they were independent. TRUST below 1 says that no sentence alone is ever
  believed to be enough, so that a second one keeps a worth.
- A term counts once, at its best carrier: another part of the question is worth more than the same part again.
- alike = max(0, cosine - ALIKE_FROM) / (1 - ALIKE_FROM). Near-duplicates may not both enter at all: such a set has no worth.
- tokens(S) as estimated in `packed`: neighbours in a chunk are joined, a chunk pays one mark, a heading is paid once. Because of
  that a second sentence of a passage is cheaper than the first, and U is neither submodular nor the sum of its parts.
- The order of S is not in U; it is decided at the end (`searching`).

The coefficients are fitted by `python -m optimizers.training.utility`, which writes `utility.json`. Compiled by numba at the first
use (`utility_compiled`); the tests hold a slow version that follows the formula to the letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from optimizers.coefficients import PRICE_TOKENS, Coefficients, shipped
from optimizers.packed import CARRIER_EXPONENT, Floats, Ints, Packed

NEVER = -1e9                # the worth of a set with near-duplicates


class Prepared(NamedTuple):
    """A `Packed` with the coefficients worked in: what the compiled functions read."""

    helps: Floats               # (n,) TRUST * p
    carries: Floats             # (n,) p^(1/2)
    repeats: Floats             # (n, n) REDUNDANCY * (p_u p_v)^(1/2) * alike
    weight: Floats              # (terms,) COVERAGE * w
    price: float                # per token
    tokens: Ints
    lead: Ints
    place: Ints
    candidate: Ints
    heading: Ints
    mark_tokens: int
    heading_tokens: Ints
    term_start: Ints
    term: Ints
    twins: Ints
    budget: int


class Worth(Protocol):
    """The worth of sets. `SetUtility` computes it; a model that reads texts can stand in its place."""

    def __call__(self, sets: Sequence[int] | Ints) -> Floats:
        """One value for each of these sets of rows, as bits; higher is better. One call is one batch. No duplicates are asked
        for in one batch, and none twice in one search."""


class SetUtility:
    """U over one packed pool. The empty set is worth 0."""

    def __init__(self, arrays: Packed, coefficients: Coefficients | None = None) -> None:
        self.prepared = prepared(arrays, coefficients or shipped())

    def __call__(self, sets: Sequence[int] | Ints) -> Floats:
        return self.measured(sets)[0]

    def tokens(self, sets: Sequence[int] | Ints) -> Ints:
        """What rendering each of these sets is estimated to cost."""
        return self.measured(sets)[1]

    def measured(self, sets: Sequence[int] | Ints) -> tuple[Floats, Ints]:
        """Worth and tokens of each set."""
        from optimizers.utility_compiled import measure

        asked = np.asarray(sets, np.int64)
        values, tokens = np.empty(len(asked), np.float64), np.empty(len(asked), np.int64)
        measure(asked, self.prepared, values, tokens)
        return values, tokens


def prepared(arrays: Packed, coefficients: Coefficients) -> Prepared:
    carries = arrays.chance ** CARRIER_EXPONENT
    alike = np.maximum(arrays.likeness - coefficients.alike_from, 0.0) / (1 - coefficients.alike_from)
    repeats = coefficients.redundancy * np.outer(carries, carries) * alike
    np.fill_diagonal(repeats, 0.0)
    return Prepared(helps=coefficients.trust * arrays.chance, carries=carries, repeats=repeats,
                    weight=coefficients.coverage * arrays.term_weight, price=coefficients.price / PRICE_TOKENS,
                    tokens=arrays.tokens, lead=arrays.lead, place=arrays.place, candidate=arrays.candidate,
                    heading=arrays.heading, mark_tokens=arrays.mark_tokens, heading_tokens=arrays.heading_tokens,
                    term_start=arrays.term_start, term=arrays.term, twins=arrays.twins, budget=arrays.budget)
