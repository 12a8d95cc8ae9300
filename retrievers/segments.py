"""A segment as searches see it: its index files, which of its positions still live, and the row of each position."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexers.dense import DenseIndex
from indexers.lexical import LexicalIndex
from indexers.sparse import SparseIndex

Mask = NDArray[np.bool_]
# One entry for each segment of a snapshot: the positions that may be returned, None where all of them may.
Allowed = Sequence[Mask | None]


class SegmentView(Protocol):
    @property
    def folder(self) -> Path: ...

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each position, ascending, shape (size,)."""

    @property
    def live(self) -> Mask | None:
        """Which positions are not deleted; None: all."""

    @property
    def dense(self) -> DenseIndex: ...

    @property
    def lexical(self) -> LexicalIndex: ...

    @property
    def sparse(self) -> SparseIndex | None:
        """None where the collection holds no term weights."""


def alive(segments: Sequence[SegmentView]) -> Allowed:
    return [segment.live for segment in segments]
