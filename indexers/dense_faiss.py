"""What we ask of FAISS beyond its documented calls: searching a mapped float16 array without a copy of it, masks, how many
threads a call takes, and files that are whole or raise.

FAISS splits a search over threads by query, so one query gains nothing from a team of threads and pays for waking it; teams
of several callers at once fight for the cores. `threads` gives one query one thread, and a team to one batch at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.errors import ConfigError, SnapshotCorrupt

# FAISS hands over a written index in pieces of this many bytes.
_PIECE = 1 << 20
_team = threading.Lock()


def faiss() -> Any:
    """The FAISS module, or an error that says which of the two exclusive extras to install."""
    try:
        import faiss
    except ImportError as error:
        raise ConfigError("FAISS is not installed, and dense search needs it.",
                          hint="Install one of: pip install 'thriftrag[cpu]' or, with CUDA, 'thriftrag[gpu]'.") from error
    return faiss


def flat(vectors: NDArray[np.float16]) -> Any:
    """An exact inner-product index over the memory of `vectors`, contiguous and of shape (size, dimension): nothing is copied.

    Rows of float16 are what FAISS itself stores for its half-precision scalar quantizer, so its codes can be a view of them.
    The caller keeps `vectors` alive for as long as the index.
    """
    library = faiss()
    index = library.IndexScalarQuantizer(vectors.shape[1], library.ScalarQuantizer.QT_fp16, library.METRIC_INNER_PRODUCT)
    codes, memory = index.codes, library.swig_ptr(vectors.reshape(-1).view(np.uint8))
    codes.is_owned = False
    codes.view_data = codes.c_ptr = memory
    codes.view_size = codes.c_size = vectors.nbytes
    index.ntotal = len(vectors)
    return index


def selector(allowed: NDArray[np.bool_] | None) -> Any:
    """Restricts a search to the positions where `allowed` is True; None for all."""
    if allowed is None:
        return None
    bits = np.packbits(allowed, bitorder="little")
    chosen = faiss().IDSelectorBitmap(bits)
    chosen.bits = bits  # FAISS keeps the address alone
    return chosen


@contextmanager
def threads(queries: int) -> Iterator[None]:
    """As many threads as `queries` can use while no other batch has them, else one. OpenMP counts them per calling thread."""
    library = faiss()
    usual = library.omp_get_max_threads()
    team = min(queries, usual) > 1 and _team.acquire(blocking=False)
    library.omp_set_num_threads(min(queries, usual) if team else 1)
    try:
        yield
    finally:
        library.omp_set_num_threads(usual)
        if team:
            _team.release()


@contextmanager
def one_thread() -> Iterator[None]:
    """For work whose result depends on how threads interleave."""
    library = faiss()
    usual = library.omp_get_max_threads()
    library.omp_set_num_threads(1)
    try:
        yield
    finally:
        library.omp_set_num_threads(usual)


def save(index: Any, path: Path, *, storage: bool = True) -> None:
    """`storage` False leaves out the vectors of a graph.

    Raises:
        OSError: the disk refused. FAISS's own file writer only prints when a full disk fails its last buffer.
    """
    library = faiss()
    with path.open("wb") as stream:
        writer = library.PyCallbackIOWriter(stream.write, _PIECE)
        library.write_index(index, writer, 0 if storage else library.IO_FLAG_SKIP_STORAGE)


def load(path: Path) -> Any:
    """The index in `path`, as its own class. Its graph or its lists stay mapped where FAISS can; packed codes are read.

    Raises:
        SnapshotCorrupt: missing, cut short, or not an index.
    """
    library = faiss()
    try:
        return library.read_index(str(path), library.IO_FLAG_MMAP_IFC | library.IO_FLAG_SKIP_STORAGE)
    except (RuntimeError, MemoryError) as error:
        raise SnapshotCorrupt(f"{path} is not a readable index.", hint="Run `thriftrag collections rebuild`.") from error
