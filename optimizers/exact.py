"""The best set of sentences by branch and bound, for the set function alone; for pools up to about 20 sentences that can be worth
their tokens, and often for larger ones.

It starts from what beam search finds and needs only to prove that nothing is better. Where that takes more than `NODES_AT_MOST`
nodes, or longer than `stop` allows, the best so far is returned and `Space.proven` stays False: the trace says so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from optimizers import beam, lazy
from optimizers.packed import Floats, Ints
from optimizers.space import Space

NODES_AT_MOST = 200_000
_SLICE = 300                # nodes between two looks at the clock: a few milliseconds
DEPTH, NODES, STEPS, DONE = range(4)


class State(NamedTuple):
    """A depth-first search that can be left and taken up: one row for each depth, from no sentence decided to all."""

    order: Ints             # rows as they are decided
    step: Ints              # 0: not looked at, 1: tried with the sentence, 2: without it too
    bits: Ints
    tokens: Ints
    passages: Ints
    missing: Floats
    benefit: Floats
    covered: Floats         # (depths, terms)
    best: Floats            # (1,) worth of the best set
    control: Ints           # by DEPTH, NODES looked at, the best set's bits under STEPS, and whether it is DONE


def search(space: Space, *, nodes: int = NODES_AT_MOST) -> None:
    """See the module. `Space.calls` counts the nodes too. Raises ValueError for a worth other than the set function's: there is
    no bound for it."""
    if space.worth is not None:
        raise ValueError("branch and bound needs a bound, and only the set function has one")
    lazy.search(space)
    beam.search(space)
    if not space.rows or not space.best:
        space.proven = not space.cut
        return
    from optimizers.exact_compiled import advance

    state, banned = _state(space), np.asarray(sorted(space.banned), np.int64)
    while not state.control[DONE] and state.control[NODES] < nodes and space.open():
        advance(state, space.utility.prepared, banned, _SLICE)
    space.calls += int(state.control[NODES])
    space.proven = bool(state.control[DONE])
    if state.control[STEPS]:
        [bits] = state.control[[STEPS]].tolist()
        [value] = space.utility([bits]).tolist()
        space.take(bits, value)


def _state(space: Space) -> State:
    a = space.utility.prepared
    n, terms = len(a.tokens), len(a.weight)
    alone = space.utility([1 << u for u in range(n)])
    order = np.argsort(-(alone + a.price * a.tokens) / a.tokens ** 0.5, kind="stable").astype(np.int64)
    state = State(order, np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64),
                  np.ones(n + 1), np.zeros(n + 1), np.zeros((n + 1, terms)), np.asarray([space.value]), np.zeros(4, np.int64))
    return state
