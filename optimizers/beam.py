"""Beam search over sets of sentences: the best sets of each size, each grown by every sentence, until growing stops to help."""

from __future__ import annotations

from optimizers.space import NONE, Space

WIDTH = 8
PATIENCE = 2                # sizes without a better set before it ends: utility is not monotone, and a heading is paid first


def search(space: Space, *, width: int = WIDTH, patience: int = PATIENCE) -> None:
    """See the module. Sets of one size are ranked by worth, ties by their bits."""
    states, idle = [0], 0
    while states and idle <= patience and space.open():
        grown = sorted({bits | 1 << u for bits in states for u in range(space.rows) if not bits >> u & 1})
        before = space.value
        ranked = sorted(zip(space.score(grown), grown, strict=True), key=lambda row: (-row[0], row[1]))
        states = [bits for value, bits in ranked[:width] if value > NONE]
        idle = 0 if space.value > before else idle + 1
