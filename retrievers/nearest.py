"""Vectors in memory that come and go one by one, and the nearest of them: exact while they are few, then by an index over most of
them and exact over the rest.

All stand as float16 in one matrix. Beyond `FLAT_UP_TO` a thread in the background builds an index (`indexers.dense`: inverted lists
of short codes whose finds are scored again from the matrix) over what is there; what came later is compared one by one, what went
is masked. Until the index is done, and wherever it is thrown away, searches stay exact and take longer.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexers import dense
from indexers.dense_faiss import flat, selector, threads
from indexers.encoders import Vectors
from rag.errors import RagError

# As for the index of a collection: comparing so many takes a few milliseconds.
FLAT_UP_TO = 50_000
_FIRST = 256
_log = logging.getLogger(__name__)
Found = list[tuple[int, float]]


class Nearest:
    """Unit vectors by a number of the caller's. Safe to use from several threads."""

    def __init__(self, dimension: int) -> None:
        self._matrix: NDArray[np.float16] = np.zeros((_FIRST, dimension), np.float16)
        self._ids: NDArray[np.int64] = np.zeros(_FIRST, np.int64)
        self._live: NDArray[np.bool_] = np.zeros(_FIRST, np.bool_)
        self._place: dict[int, int] = {}
        self._used = 0
        self._index: dense.DenseIndex | None = None
        self._building: threading.Thread | None = None
        self._epoch = 0
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, number: int) -> bool:
        return number in self._place

    def add(self, numbers: Sequence[int], vectors: NDArray[np.floating]) -> None:
        """Vectors (n, dimension) under these numbers, in place of what was there."""
        with self._lock:
            self.remove(numbers)
            self._grow(self._used + len(numbers))
            end = self._used + len(numbers)
            self._matrix[self._used:end] = vectors
            self._ids[self._used:end] = numbers
            self._live[self._used:end] = True
            self._place.update(zip(numbers, range(self._used, end), strict=True))
            self._used = end
            self._tidy()

    def remove(self, numbers: Iterable[int]) -> None:
        """Those that are not there are no matter."""
        with self._lock:
            for number in numbers:
                place = self._place.pop(number, None)
                if place is not None:
                    self._live[place] = False

    def search(self, vector: Vectors, k: int) -> Found:
        """Numbers and cosines of the nearest `k` to a unit vector, best first, ties by age; fewer where there are fewer."""
        with self._lock:
            index, used = self._index, self._used
            matrix, live, ids = self._matrix[:used], self._live[:used].copy(), self._ids[:used]
            wanted = min(k, len(self._place))
        if not wanted:
            return []
        covered = 0 if index is None else index.size
        found: Found = []
        if index is not None:
            scores, places = index.search(vector[None], wanted, allowed=live[:covered])
            found += [(place, score) for place, score in zip(places[0].tolist(), scores[0].tolist(), strict=True) if place >= 0]
        if covered < used:
            tail = flat(np.ascontiguousarray(matrix[covered:]))
            mask = live[covered:]
            if mask.any():
                with threads(1):
                    scores, places = tail.search(np.ascontiguousarray(vector[None], np.float32), min(wanted, int(mask.sum())),
                                                 params=_parameters(mask))
                found += [(place + covered, score) for place, score in zip(places[0].tolist(), scores[0].tolist(), strict=True)
                          if place >= 0]
        found.sort(key=lambda each: (-each[1], each[0]))
        return [(int(ids[place]), float(score)) for place, score in found[:wanted]]

    def settle(self) -> None:
        """Waits for an index that is being built."""
        thread = self._building
        if thread is not None:
            thread.join()

    def _grow(self, size: int) -> None:
        """Room for `size`, without those that went where most did."""
        if size <= len(self._ids):
            return
        room = max(_FIRST, 2 * size)
        for name in ("_matrix", "_ids", "_live"):
            old = getattr(self, name)
            new = np.zeros((room, *old.shape[1:]), old.dtype)
            new[:self._used] = old[:self._used]
            setattr(self, name, new)

    def _tidy(self) -> None:
        """Begins an index where a quarter is in none yet; closes ranks where half of all went."""
        if self._used > 2 * max(len(self._place), _FIRST):
            kept = np.flatnonzero(self._live[:self._used])
            self._matrix, self._ids = self._matrix[kept].copy(), self._ids[kept].copy()
            self._live, self._used = np.ones(len(kept), np.bool_), len(kept)
            self._place = {number: place for place, number in enumerate(self._ids.tolist())}
            self._index, self._epoch = None, self._epoch + 1
        covered = 0 if self._index is None else self._index.size
        if self._used - covered > max(FLAT_UP_TO, self._used // 4) and self._building is None:
            self._building = threading.Thread(target=self._build, name="reservoir-index", daemon=True)
            self._building.start()

    def _build(self) -> None:
        with self._lock:
            # Rows once written stay as they are, so the index may look at them in place.
            vectors, epoch = self._matrix[:self._used], self._epoch
        try:
            with tempfile.TemporaryDirectory(prefix="thriftrag-reservoir-", ignore_cleanup_errors=True) as aside:
                dense.write(Path(aside), vectors)
                index = dense.DenseIndex(Path(aside), vectors)
                with self._lock:
                    # Places have moved, where ranks were closed meanwhile.
                    if epoch == self._epoch:
                        self._index = index
        except (RagError, OSError, MemoryError) as error:
            _log.warning("The index of the reservoir could not be built (%s): searches compare every vector.", error)
        finally:
            self._building = None


def _parameters(mask: NDArray[np.bool_]) -> object:
    return dense.faiss().SearchParameters(sel=selector(mask))
