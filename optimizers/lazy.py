"""Greedy choice under a knapsack with lazy evaluation (Minoux 1978), the sentence of the largest gain per token first.

Taken as often as there are `POWERS` r, by gain / tokens^r, and the best of those sets and of all single sentences is kept: with
gains per token alone, greedy can be arbitrarily bad where one long sentence is worth more than many short ones.

What a sentence gained earlier bounds what it gains now, as long as no passage under its heading was opened since; so few gains are
computed again. With a worth that is not so, the choice is still a set that the budget holds, but not always greedy's.
"""

from __future__ import annotations

import math

import numpy as np

from optimizers.space import NONE, Space

POWERS = (1.0, 0.5, 0.0)
UNKNOWN, CLOSED = math.inf, -math.inf


def search(space: Space) -> None:
    """See the module. `POWERS` share what they learn of sets."""
    if not space.open():
        return
    space.score([1 << u for u in range(space.rows)])
    for power in POWERS:
        grow(space, power=power)


def grow(space: Space, *, power: float) -> int:
    """The greedy set for one power. The first sentence is taken even if it costs more than it is worth."""
    a = space.utility.prepared
    heading = a.heading[a.candidate]
    bits, value, tokens = 0, 0.0, 0
    # Upper bounds of gain / tokens^power; UNKNOWN where an earlier one is none, CLOSED for what is in the set or cannot enter it.
    rates = np.full(space.rows, UNKNOWN)
    fresh = np.zeros(space.rows, np.bool_)
    while space.rows and space.open():
        u = int(np.argmax(rates))
        if rates[u] == CLOSED or (bits and rates[u] <= 0):
            break
        if fresh[u]:
            bits |= 1 << u
            value, tokens = space.known[bits], space.spent[bits]
            # Its heading is paid now, and what did not fit may fit.
            rates[[row for row in np.flatnonzero(heading == heading[u]).tolist() if not bits >> row & 1]] = UNKNOWN
            rates[u] = CLOSED
            fresh[:] = False
            continue
        stale = np.flatnonzero(rates == UNKNOWN).tolist() or [u]
        sets = [bits | 1 << row for row in stale]
        for row, grown, found in zip(stale, sets, space.score(sets), strict=True):
            rates[row] = CLOSED if found == NONE else (found - value) / max(1, space.spent[grown] - tokens) ** power
        fresh[stale] = True
    return bits
