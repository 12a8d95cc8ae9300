"""The vectors of one segment as the encoder gave them: float16 in one memory-mapped array, from which every index is made.

Unit vectors lose about 1e-4 of a cosine in float16, less than bf16 arithmetic moves them, and take half the space.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from rag.errors import SnapshotCorrupt

FILE = "vectors.npy"

Stored = NDArray[np.float16]


def write(folder: Path, pieces: Iterable[NDArray[np.floating]], *, size: int, dimension: int) -> Stored:
    """The pieces end to end, `size` rows in all, never held at once. Returns them mapped."""
    mapped: Stored = np.lib.format.open_memmap(folder / FILE, mode="w+", dtype=np.float16,
                                               shape=(size, dimension))
    at = 0
    for piece in pieces:
        mapped[at:at + len(piece)] = piece
        at += len(piece)
    if at != size:
        raise ValueError(f"{at} vectors came for {size} chunks")
    mapped.flush()  # type: ignore[attr-defined]  # a memmap
    return read(folder)


def read(folder: Path) -> Stored:
    """
    Raises:
        SnapshotCorrupt: the file is missing, cut short or something else.
    """
    path = folder / FILE
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SnapshotCorrupt(f"{path} is not a readable array: {error}.", hint="Run `thriftrag collections rebuild`.") from error
    if found.dtype != np.float16 or found.ndim != 2:
        raise SnapshotCorrupt(f"{path} holds {found.dtype} in {found.ndim} dimensions, not float16 in 2.",
                              hint="Run `thriftrag collections rebuild`.")
    return cast(Stored, found)
