"""Lends a GPU to FAISS where `faiss-gpu` finds one; files and results stay those of the CPU.

Training and adding hand the nearest-centroid search to the GPU, which is nearly all of their work, so that one path serves
every kind with lists. Searching moves a large index over whole. GPU indexes ignore masks, take no two searches at once and
bring up at most 2,048 candidates: such searches run on the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers.dense_faiss import faiss
from indexers.encoders import Vectors

# A smaller index is searched before the question has reached the GPU.
LARGE = 50_000
MOST = 2048


def available() -> bool:
    return int(getattr(faiss(), "get_num_gpus", int)()) > 0


def lent(index: Any) -> Any:
    """`index` on the GPU where there is one, else itself."""
    return _moved(index) if available() else index


@contextmanager
def assigning(index: Any) -> Iterator[None]:
    """While vectors are added to an index with lists: their nearest centroids are found on the GPU."""
    own = index.quantizer
    centroids = lent(own)
    index.quantizer = centroids
    try:
        yield
    finally:
        index.quantizer = own


class GpuSearch:
    """A copy of `index` on the GPU, asked by one thread at a time; `exact` scores what it brings up.

    Raises:
        RuntimeError: the GPU has no room for it.
    """

    def __init__(self, index: Any, *, exact: Any) -> None:
        self._copy, self._exact = _moved(index), exact
        self._refined = faiss().IndexRefine(self._copy, exact)
        self._lock = threading.Lock()

    def search(self, queries: Vectors, k: int, *, parameters: Any) -> tuple[Vectors, NDArray[np.int64]]:
        """As FAISS returns them: best first, -1 where there are fewer."""
        with self._lock:
            scores, positions = self._refined.search(queries, k, params=parameters)
        return scores, positions


def _moved(index: Any) -> Any:
    library = faiss()
    options = library.GpuClonerOptions()
    options.use_cuvs = False  # cuVS takes no scalar quantizers
    resources = library.StandardGpuResources()
    moved = library.index_cpu_to_gpu(resources, 0, index, options)
    moved.referenced_objects = [resources]  # lives as long
    return moved
