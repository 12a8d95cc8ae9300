"""The dense index of one segment: FAISS over unit vectors, inner product, so that scores are cosines.

The vectors themselves stay in the segment's mapped float16 array and nowhere else. `dense.faiss` holds what finds them:

- `flat`    nothing but a description: every vector is compared. Exact.
- `hnsw`    the links of a graph over them.
- `ivf`     8-bit codes in inverted lists; what they bring up is scored again from the vectors.
- `ivfpq`   4-bit product-quantizer codes in inverted lists, likewise.

So scores are the same whatever the kind, to the last bit. Ids are positions in the segment; a segment is never empty.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexers import dense_gpu
from indexers.dense_build import TRAINABLE, blocks, build
from indexers.dense_faiss import faiss, flat, load, save, selector, threads
from indexers.encoders import Vectors
from rag.errors import ConfigError, InputError, SnapshotCorrupt

__all__ = ["FILE", "KINDS", "DenseIndex", "faiss", "kind_for", "write"]

FILE = "dense.faiss"
KINDS = ("flat", "hnsw", "ivf", "ivfpq")
_FORMAT = 1
_CLASSES = {"IndexHNSWSQ": "hnsw", "IndexIVFScalarQuantizer": "ivf", "IndexIVFPQFastScan": "ivfpq"}

# Up to here comparing every vector takes under 2 ms, less than encoding the question.
_FLAT_UP_TO = 50_000
# What a search of a lossy kind looks at, so that recall@10 is at least .99 on MiniLM vectors of real passages.
_PROBES = 256
_BREADTH = 256
_BREADTH_PER_RESULT = 4
_OVERFETCH = {"ivf": 3, "ivfpq": 10}
# Comparing this many allowed vectors, times the square root of the size, takes no longer than a search that passes over the
# rest; for this many times the results asked for it takes no longer than bringing up that many.
_EXACT_PER_ROOT = {"hnsw": 60, "ivf": 60, "ivfpq": 25}
_EXACT_PER_RESULT = 50
# Allowed vectors are gathered and compared where they are at most one in this many, else compared in place.
_SPARSE = 20


def kind_for(size: int) -> str:
    """The kind that serves a segment of `size` vectors best."""
    return "flat" if size <= _FLAT_UP_TO else "ivfpq"


def write(folder: Path, vectors: NDArray[np.floating], *, kind: str = "auto", seed: int = 0) -> Path:
    """Writes the index of `vectors`, shape (size, dimension), float16 or to be rounded to it; the same file for the same
    `seed`, vectors and build of FAISS. A segment too small to train the kind asked for becomes flat.

    Raises:
        InputError: there are none, they have no two dimensions, or one is not finite.
        ConfigError: no kind goes by that name.
    """
    if vectors.ndim != 2 or not vectors.size:
        raise InputError(f"Vectors of shape {vectors.shape} cannot be indexed.", field="vectors", hint="Give (size, dimension).")
    if kind not in ("auto", *KINDS):
        raise ConfigError(f"There is no dense index {kind!r}.", field="index", hint=f"Use auto or one of {', '.join(KINDS)}.")
    size, dimension = vectors.shape
    kind = kind_for(size) if kind == "auto" else kind
    path = folder / FILE
    if kind == "flat" or (kind != "hnsw" and size < TRAINABLE):
        for _ in blocks(vectors):  # refuses what is not finite
            pass
        path.write_text(json.dumps({"format": _FORMAT, "kind": "flat", "size": size, "dimension": dimension}), encoding="utf-8")
    else:
        save(build(kind, vectors, seed=seed), path, storage=kind != "hnsw")
    return path


class DenseIndex:
    """An opened segment index. Searches are thread-safe."""

    def __init__(self, folder: Path, vectors: NDArray[np.float16]) -> None:
        """`vectors`: those that the index was written from, usually mapped; they are read for as long as the index lives.

        Raises:
            SnapshotCorrupt: the file is missing, cut short, of another kind of index, or of other vectors than these.
        """
        path = folder / FILE
        self._vectors = np.ascontiguousarray(vectors, np.float16)
        self._flat = flat(self._vectors)
        index: Any = None if _is_description(path) else load(path)
        self.kind, self.size, self.dimension = _facts(path, index)
        if (self.size, self.dimension) != self._vectors.shape:
            raise SnapshotCorrupt(f"{path} indexes {self.size} vectors of {self.dimension} dimensions, but the segment holds "
                                  f"{len(self._vectors)} of {self._vectors.shape[1]}.", hint="Run `thriftrag collections rebuild`.")
        self._nlist = index.nlist if self.kind in _OVERFETCH else 0
        self._searched = self._attached(index)
        self._gpu = self._on_gpu(index)

    def search(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None
               ) -> tuple[Vectors, NDArray[np.int64]]:
        """Cosines and positions of the best `k` for each row of `queries` (n, dimension), unit vectors: shape
        (n, min(k, size)), best first, ties by position, filled up with -inf and -1.

        `allowed`: which positions may be returned, shape (size,). Exactly min(k, size, allowed ones) come back.

        Raises:
            InputError: `k` is below 1, or the queries have another dimension or a value that is not finite.
        """
        queries = self._checked(queries, k, allowed)
        count = self.size if allowed is None else int(np.count_nonzero(allowed))
        allowed = None if count == self.size else allowed
        wanted = min(k, count)
        scores = np.full((len(queries), min(k, self.size)), -np.inf, np.float32)
        positions = np.full(scores.shape, -1, np.int64)
        if wanted and len(queries):
            with threads(len(queries)):
                scores[:, :wanted], positions[:, :wanted] = self._found(queries, wanted, allowed=allowed, count=count)
        return scores, positions

    def vectors_at(self, positions: NDArray[np.int64]) -> Vectors:
        """The vectors of these positions, in the order given."""
        found: Vectors = self._vectors[positions].astype(np.float32)
        return found

    def _found(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None, count: int
               ) -> tuple[Vectors, NDArray[np.int64]]:
        """`count`: how many are allowed, at least `k`."""
        if self._gpu is not None and allowed is None and k * self._overfetch <= dense_gpu.MOST:
            scores, positions = self._gpu.search(queries, k, parameters=self._lists(k, allowed=None, count=count))
        elif self.kind == "flat" or count <= max(_EXACT_PER_ROOT[self.kind] * math.sqrt(self.size), _EXACT_PER_RESULT * k):
            return self._exact(queries, k, allowed=allowed, count=count)
        elif self.kind == "hnsw":
            scores, positions = self._graph(queries, k, allowed=allowed, count=count)
        else:
            scores, positions = self._searched.search(queries, k, params=self._lists(k, allowed=allowed, count=count))
        short = (positions < 0).any(axis=1)
        if short.any():  # what was looked at holds too few of the allowed
            scores[short], positions[short] = self._exact(queries[short], k, allowed=allowed, count=count)
        return _ordered(scores, positions)

    def _lists(self, k: int, *, allowed: NDArray[np.bool_] | None, count: int) -> Any:
        """How to search lists, or a GPU's copy of a flat index. The fewer are allowed, the more lists hold the best of them."""
        library = faiss()
        if self.kind == "flat":
            return library.IndexRefineSearchParameters(k_factor=self._overfetch)
        probes = min(self._nlist, math.ceil(_PROBES * math.sqrt(self.size / count)))
        lists = library.SearchParametersIVF(nprobe=probes, sel=selector(allowed))
        return library.IndexRefineSearchParameters(k_factor=self._overfetch, base_index_params=lists)

    def _graph(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None, count: int
               ) -> tuple[Vectors, NDArray[np.int64]]:
        """A graph leads to the nearest, allowed or not: they are brought up regardless and the allowed ones kept. A walk that
        skips the others instead ends among them when a filter leaves out what the question is about."""
        depth = k if allowed is None else min(self.size, math.ceil(2 * k * self.size / count))
        breadth = max(_BREADTH, _BREADTH_PER_RESULT * depth)
        scores, positions = self._searched.search(queries, depth, params=faiss().SearchParametersHNSW(efSearch=breadth))
        if allowed is not None:
            barred = (positions < 0) | ~allowed[positions]
            scores[barred], positions[barred] = -np.inf, -1
        scores, positions = _ordered(scores, positions)
        return scores[:, :k], positions[:, :k]

    def _exact(self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None, count: int
               ) -> tuple[Vectors, NDArray[np.int64]]:
        """Compares every allowed vector. Asks for one more than `k`, and more while the last ones tie, so that which of
        equal vectors come back depends on their positions alone."""
        index, chosen, of = self._flat, selector(allowed), None
        if allowed is not None and count * _SPARSE <= self.size:
            of = np.flatnonzero(allowed)
            gathered = self._vectors[of]
            index, chosen = flat(gathered), None
        parameters = None if chosen is None else faiss().SearchParameters(sel=chosen)
        asked = min(k + 1, count)
        while True:
            scores, positions = index.search(queries, asked, params=parameters)
            if asked == count or not (scores[:, k - 1] == scores[:, -1]).any():
                break
            asked = min(2 * asked, count)
        scores, positions = _ordered(scores, positions if of is None else of[positions])
        return scores[:, :k], positions[:, :k]

    def _checked(self, queries: Vectors, k: int, allowed: NDArray[np.bool_] | None) -> Vectors:
        if k < 1:
            raise InputError(f"k = {k} asks for no results.", field="k", hint="Use 1 or more.")
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise InputError(f"Queries of shape {queries.shape} do not fit an index of {self.dimension} dimensions.",
                             field="query", hint="Encode them with the encoder of the collection.")
        if not np.isfinite(queries).all():
            raise InputError("A query vector holds a value that is not finite.", field="query",
                             hint="The encoder failed on it: try precision f32.")
        if allowed is not None and (allowed.shape != (self.size,) or allowed.dtype != np.bool_):
            raise InputError(f"A mask of {allowed.dtype} and shape {allowed.shape} does not fit {self.size} vectors.",
                             field="allowed", hint="Give one truth value for each position.")
        return np.ascontiguousarray(queries, np.float32)

    @property
    def _overfetch(self) -> int:
        return _OVERFETCH.get(self.kind, 2)

    def _attached(self, index: Any) -> Any:
        """`index` with the vectors that its graph links, or that score what its lists bring up."""
        if self.kind == "hnsw":
            index.storage, index.own_fields = self._flat, False
        return faiss().IndexRefine(index, self._flat) if self.kind in _OVERFETCH else index

    def _on_gpu(self, index: Any) -> dense_gpu.GpuSearch | None:
        if self.kind not in ("flat", "ivf") or self.size < dense_gpu.LARGE or not dense_gpu.available():
            return None
        try:
            return dense_gpu.GpuSearch(self._flat if index is None else index, exact=self._flat)
        except RuntimeError:  # no room: the CPU serves
            return None


def _is_description(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(1) == b"{"
    except OSError as error:
        raise SnapshotCorrupt(f"{path} cannot be read: {error.strerror}.", hint="Run `thriftrag collections rebuild`.") from error


def _facts(path: Path, index: Any) -> tuple[str, int, int]:
    """Kind, size and dimension."""
    if index is not None:
        kind = _CLASSES.get(type(index).__name__)
        if kind is None or index.metric_type != faiss().METRIC_INNER_PRODUCT:
            raise SnapshotCorrupt(f"{path} holds a {type(index).__name__} that this version did not write.",
                                  hint="Run `thriftrag collections rebuild`.")
        return kind, int(index.ntotal), int(index.d)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != _FORMAT or facts["kind"] != "flat":
            raise ValueError(facts)
        return "flat", int(facts["size"]), int(facts["dimension"])
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotCorrupt(f"{path} is not a readable index.", hint="Run `thriftrag collections rebuild`.") from error


def _ordered(scores: Vectors, positions: NDArray[np.int64]) -> tuple[Vectors, NDArray[np.int64]]:
    order = np.lexsort((positions, -scores), axis=-1)
    each = np.arange(len(order))[:, None]   # `take_along_axis` takes several times as long for the few that a search brings
    return scores[each, order], positions[each, order]
