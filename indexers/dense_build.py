"""Builds the dense index of a segment from its vectors, block by block: a million are never held as float32 at once.

- `hnsw`: a graph (Malkov and Yashunin 2018, arXiv:1603.09320) whose nodes are the segment's own float16 vectors; only the links
  are stored. It is built by one thread, because its links depend on the order in which threads insert.
- `ivf`: inverted lists around k-means centroids (Jégou, Douze, Schmid 2011, section IV) of 8-bit codes.
- `ivfpq`: such lists of product-quantizer codes, 4 bits for a pair of components, scanned in registers (André, Kermarrec,
  Le Scouarnec 2015, "Cache locality is not enough"; FAISS calls it fast scan).

A search re-scores what the codes of the last two bring up from the vectors themselves. The centroids and the product
quantizer are trained on a sample; the number of lists grows with the square root of the size. The constants were chosen on
40,000 real passages and on the made-up vectors of `thriftrag bench dense`, which measures what they give: docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers import dense_gpu
from indexers.dense_faiss import faiss, one_thread
from indexers.encoders import Vectors
from rag.errors import InputError

# Fewer vectors than this train no centroids worth having.
TRAINABLE = 1024
# Lists: this many times the square root of the size, each trained on this many vectors in this many rounds of k-means.
_LISTS_PER_ROOT = 3
_POINTS_PER_LIST = 40
_ROUNDS = 8
_LINKS = 32
_CANDIDATES = 100
# Errors of components even out over many of them: vectors up to this long get 4 bits for each, longer ones for each pair.
_SHORT = 128
_BLOCK = 16_384


def build(kind: str, vectors: NDArray[np.floating], *, seed: int) -> Any:
    """A trained and filled FAISS index of `vectors`, shape (size, dimension), rounded to float16 as they are stored."""
    index = _empty(kind, *vectors.shape, seed=seed)
    if kind == "hnsw":
        with one_thread():
            for block in blocks(vectors):
                index.add(block)
        return index
    _train(index, vectors, seed=seed)
    with dense_gpu.assigning(index):
        for block in blocks(vectors):
            index.add(block)
    return index


def blocks(vectors: NDArray[np.floating]) -> Iterator[Vectors]:
    """All rows in order as float32.

    Raises:
        InputError: names the first that is not finite.
    """
    for start in range(0, len(vectors), _BLOCK):
        yield _rounded(vectors, np.arange(start, min(start + _BLOCK, len(vectors))))


def _train(index: Any, vectors: NDArray[np.floating], *, seed: int) -> None:
    wanted = min(len(vectors), _POINTS_PER_LIST * index.nlist)
    sample = _rounded(vectors, np.sort(np.random.default_rng(seed).choice(len(vectors), wanted, replace=False)))
    clustering = faiss().Clustering(index.d, index.nlist)
    clustering.seed, clustering.niter, clustering.spherical = seed, _ROUNDS, True
    clustering.max_points_per_centroid, clustering.min_points_per_centroid = _POINTS_PER_LIST, 1
    clustering.train(sample, dense_gpu.lent(faiss().IndexFlatIP(index.d)))
    index.quantizer.add(faiss().vector_to_array(clustering.centroids).reshape(index.nlist, index.d))
    # Codebooks are trained in thousands of steps too small to share: a team of threads would mostly wait for each other.
    with one_thread():
        index.train(sample)


def _rounded(vectors: NDArray[np.floating], positions: NDArray[np.int64]) -> Vectors:
    """These rows, contiguous, as float16 holds them."""
    with np.errstate(over="ignore"):  # found by its result, and named
        rows = np.ascontiguousarray(vectors[positions].astype(np.float16, copy=False), np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        raise InputError(f"The vector at position {positions[int(np.argmin(finite))]} holds a value that float16 cannot hold.",
                         field="vectors", hint="The encoder failed on this text: try the setting precision = f32.")
    return rows


def _empty(kind: str, size: int, dimension: int, *, seed: int) -> Any:
    library = faiss()
    product = library.METRIC_INNER_PRODUCT
    if kind == "hnsw":
        index = library.IndexHNSWSQ(dimension, library.ScalarQuantizer.QT_fp16, _LINKS, product)
        index.hnsw.efConstruction = _CANDIDATES
        index.hnsw.rng = library.RandomGenerator(seed)
        return index
    lists = max(1, min(round(_LISTS_PER_ROOT * size**0.5), size // _POINTS_PER_LIST))
    centroids = library.IndexFlatIP(dimension)
    if kind == "ivf":
        return library.IndexIVFScalarQuantizer(centroids, dimension, lists, library.ScalarQuantizer.QT_8bit, product)
    parts = dimension if dimension <= _SHORT or dimension % 2 else dimension // 2
    index = library.IndexIVFPQFastScan(centroids, dimension, lists, parts, 4, product)
    index.pq.cp.seed = seed
    return index
