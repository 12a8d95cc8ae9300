"""One segment: the index files of some chunks, written once, then only read or removed.

    segment.json        format, size, dimension, kind of dense index
    rows.npy            row of each position, ascending
    documents.npy       number of each position's document
    vectors.npy         float16 vectors: see `indexers.vectors`
    dense.faiss         see `indexers.dense`
    lexical.*           see `indexers.lexical`
    sparse.bin          only where the collection has term weights: see `indexers.sparse`
    lucene/             only where the setting `lexical` is lucene: see `indexers.lucene`

Every file is named with its sha256 in the transaction that publishes the segment, and held to it when a reader opens it.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from indexers import dense, lexical, sparse, vectors
from indexers.dense import DenseIndex
from indexers.encoders import Vectors
from indexers.files import explained
from indexers.impacts import Weighed
from indexers.lexical import LexicalIndex
from indexers.sparse import SparseIndex
from rag.durable import sha256_of, sync_folder, sync_tree
from rag.errors import SnapshotCorrupt

FORMAT = 2
FACTS = "segment.json"
ROWS = "rows.npy"
DOCUMENTS = "documents.npy"

Numbers = NDArray[np.int64]
_REBUILD = "Run `thriftrag collections rebuild`: every index can be made again from the store."
_MERGE_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """What new segments hold. `kind`: of the dense index; `lucene`: whether a Lucene index goes with it."""

    kind: str = "auto"
    lucene: bool = False


DEFAULT = IndexOptions()


@dataclass(frozen=True, slots=True)
class Written:
    """A segment on disk that no published state names yet; `files`: sha256 by path below its folder."""

    name: str
    size: int
    first_row: int
    last_row: int
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Segment:
    """An opened segment. `live`: which positions are not deleted, None where all live."""

    name: str
    folder: Path
    rows: Numbers
    documents: Numbers
    live: NDArray[np.bool_] | None
    dense: DenseIndex
    lexical: LexicalIndex
    sparse: SparseIndex | None

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def kept(self) -> Numbers:
        """Positions that live, ascending."""
        return np.arange(self.size) if self.live is None else np.flatnonzero(self.live)


def write(root: Path, *, rows: Numbers, documents: Numbers, encoded: Vectors, texts: Sequence[str],
          options: IndexOptions, weighed: Weighed | None = None) -> Written:
    """A segment of new chunks: `rows` ascending, `encoded` of shape (len(rows), dimension), `texts` for BM25, `weighed` for
    sparse search, which all segments of a collection have or none."""
    with _aside(root) as (name, folder):
        stored = vectors.write(folder, [encoded], size=len(rows), dimension=encoded.shape[1])
        lexical.write(folder, texts)
        if weighed is not None:
            sparse.write(folder, weighed.impacts, vocabulary=weighed.vocabulary, scale=weighed.scale)
        _complete(folder, rows, documents, stored, options)
    return _written(root, name, rows)


def merge(root: Path, parts: Sequence[Segment], *, options: IndexOptions) -> Written:
    """One segment with what lives of `parts`: nothing is encoded or split into words again. Rows stay as they are."""
    ordered = sorted(parts, key=lambda part: int(part.rows[0]))
    rows = np.concatenate([part.rows[part.kept] for part in ordered])
    documents = np.concatenate([part.documents[part.kept] for part in ordered])
    if (np.diff(rows) <= 0).any():
        raise ValueError("segments whose rows interleave cannot be merged")
    with _aside(root) as (name, folder):
        stored = vectors.write(folder, _blocks(ordered), size=len(rows), dimension=ordered[0].dense.dimension)
        lexical.merge(folder, [(part.lexical, part.kept) for part in ordered])
        weights = [(part.sparse, part.kept) for part in ordered if part.sparse is not None]
        if len(weights) == len(ordered):
            sparse.merge(folder, weights)
        _complete(folder, rows, documents, stored, options)
    return _written(root, name, rows)


def open_segment(root: Path, name: str, *, files: Mapping[str, str], dead: Numbers) -> Segment:
    """`dead`: rows that are deleted, ascending; those of other segments are ignored.

    Raises:
        SnapshotCorrupt: names the file that is missing, changed, or of another format.
    """
    folder = root / name
    _check_all(folder, files)
    try:
        facts = _facts(folder / FACTS)
        rows, documents = _numbers(folder / ROWS), _numbers(folder / DOCUMENTS)
        stored = vectors.read(folder)
        index, words = DenseIndex(folder, stored), LexicalIndex(folder)
        weights = SparseIndex(folder) if sparse.FILE in files else None
    except OSError as error:    # a writer that merged removed it just now; a snapshot then takes the newer state
        raise SnapshotCorrupt(f"{folder} is missing or unreadable: {error.strerror}.", hint=_REBUILD) from error
    sizes = {FACTS: facts["size"], ROWS: len(rows), DOCUMENTS: len(documents), vectors.FILE: len(stored), "lexical": words.size}
    if weights is not None:
        sizes[sparse.FILE] = weights.size
    if len(set(sizes.values())) != 1:
        raise SnapshotCorrupt(f"{folder} disagrees with itself: {sizes}.", hint=_REBUILD)
    return Segment(name, folder, rows, documents, live_of(rows, dead), index, words, weights)


def live_of(rows: Numbers, dead: Numbers) -> NDArray[np.bool_] | None:
    """Both ascending."""
    inside = dead[np.searchsorted(dead, rows[0]):np.searchsorted(dead, rows[-1], side="right")]
    at = np.searchsorted(rows, inside)
    at = at[rows[at] == inside]
    if not len(at):
        return None
    live = np.ones(len(rows), bool)
    live[at] = False
    return live


def sweep(root: Path, *, named: Iterable[str]) -> None:
    """Removes segment folders that no published state names: what a crash or a merge left behind."""
    keep = set(named)
    for path in root.iterdir():
        if path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)


def _blocks(parts: Sequence[Segment]) -> Iterator[NDArray[np.floating]]:
    for part in parts:
        kept = part.kept
        for start in range(0, len(kept), _MERGE_BLOCK):
            yield part.dense.vectors_at(kept[start:start + _MERGE_BLOCK])


def _complete(folder: Path, rows: Numbers, documents: Numbers, stored: vectors.Stored, options: IndexOptions) -> None:
    np.save(folder / ROWS, rows.astype(np.int64))
    np.save(folder / DOCUMENTS, documents.astype(np.int64))
    dense.write(folder, stored, kind=options.kind)
    if options.lucene:
        from indexers import lucene

        lucene.write(folder, LexicalIndex(folder))
    facts = {"format": FORMAT, "size": len(rows), "dimension": stored.shape[1]}
    (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")


@contextmanager
def _aside(root: Path) -> Iterator[tuple[str, Path]]:
    """A folder to fill, synced and renamed to its final name on success, removed on any failure."""
    name = uuid.uuid4().hex[:12]
    aside = root / f".{name}"
    with explained(root):
        aside.mkdir()
        try:
            yield name, aside
            sync_tree(aside)
            os.rename(aside, root / name)
            sync_folder(root)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def _written(root: Path, name: str, rows: Numbers) -> Written:
    folder = root / name
    return Written(name, len(rows), int(rows[0]), int(rows[-1]), {path.relative_to(folder).as_posix(): sha256_of(path)
                                                                  for path in sorted(folder.rglob("*")) if path.is_file()})


def _check_all(folder: Path, files: Mapping[str, str]) -> None:
    # Hashing releases the interpreter: two threads halve the time to open a large collection.
    with ThreadPoolExecutor(max_workers=2) as pool:
        for problem in pool.map(lambda file: _changed(folder / file, files[file]), files):
            if problem is not None:
                raise problem


def _changed(path: Path, expected: str) -> SnapshotCorrupt | None:
    try:
        found = sha256_of(path)
    except OSError as error:
        return SnapshotCorrupt(f"{path} is missing or unreadable: {error.strerror}.", hint=_REBUILD)
    if found != expected:
        return SnapshotCorrupt(f"{path} was changed on disk: sha256 expected {expected}, found {found}.", hint=_REBUILD)
    return None


def _facts(path: Path) -> dict[str, int]:
    try:
        facts: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
        found, _ = facts["format"], facts["size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SnapshotCorrupt(f"{path} is not a segment's description.", hint=_REBUILD) from error
    if found != FORMAT:
        raise SnapshotCorrupt(f"{path} has format {found}; this version reads format {FORMAT}.", hint=_REBUILD)
    return facts


def _numbers(path: Path) -> Numbers:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SnapshotCorrupt(f"{path} is not a readable array: {error}.", hint=_REBUILD) from error
    if found.dtype != np.int64 or found.ndim != 1 or not len(found):
        raise SnapshotCorrupt(f"{path} holds {found.dtype} of shape {found.shape}, not a list of numbers.", hint=_REBUILD)
    # Still mapped, without the bookkeeping of a memmap at every piece that is taken of it.
    return cast(Numbers, found.view(np.ndarray))
