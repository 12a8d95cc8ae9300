"""The dense index of one segment: FAISS over unit vectors, inner product, so that scores are cosines.

One segment holds an exact flat index; ids are positions in the segment. The reader maps them to chunk rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers.encoders import Vectors
from rag.errors import ConfigError, SnapshotCorrupt

FILE = "dense.faiss"


def faiss() -> Any:
    """The FAISS module, or an error that says which of the two exclusive extras to install."""
    try:
        import faiss
    except ImportError as error:
        raise ConfigError("FAISS is not installed, and dense search needs it.",
                          hint="Install one of: pip install 'thriftrag[cpu]' or, with CUDA, 'thriftrag[gpu]'.") from error
    return faiss


def write(folder: Path, vectors: Vectors) -> Path:
    index = faiss().IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    path = folder / FILE
    path.write_bytes(memoryview(faiss().serialize_index(index)))
    return path


class DenseIndex:
    """An opened segment index. Searches are thread-safe."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        try:
            self._index = faiss().read_index(str(path), faiss().IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise SnapshotCorrupt(f"{path} is not a readable index.", hint="Run `thriftrag collections rebuild`.") from error
        self.size: int = self._index.ntotal
        self.dimension: int = self._index.d

    def search(self, query: Vectors, k: int, *, without: NDArray[np.int64]) -> tuple[Vectors, NDArray[np.int64]]:
        """Scores and positions of the best `k` per row of `query` (n, dimension); -1 where there are fewer."""
        parameters = None
        if len(without):
            deleted = faiss().IDSelectorBatch(without)
            parameters = faiss().SearchParameters(sel=faiss().IDSelectorNot(deleted))
        scores, positions = self._index.search(query, min(k, self.size), params=parameters)
        return scores, positions

    def vectors(self) -> Vectors:
        """All vectors in order, shape (size, dimension)."""
        found: Vectors = self._index.reconstruct_n(0, self.size)
        return found

    def vectors_at(self, positions: NDArray[np.int64]) -> Vectors:
        """The vectors of these positions, in the order given."""
        found: Vectors = self._index.reconstruct_batch(positions)
        return found
