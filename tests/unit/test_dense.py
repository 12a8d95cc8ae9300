"""The dense index of a segment: every kind against brute force, what it refuses, and when a GPU is used."""

from __future__ import annotations

import errno
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from indexers import dense, dense_build, dense_faiss, dense_gpu
from indexers.dense import DenseIndex
from indexers.encoders import Vectors
from rag.errors import ConfigError, InputError, SnapshotCorrupt
from retrievers import dense as retrieval

SIZE, DIMENSION = 3000, 32
LOSSY = [kind for kind in dense.KINDS if kind != "flat"]


def unit(vectors: NDArray[np.floating]) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def clustered(size: int, *, seed: int = 3) -> Vectors:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((60, DIMENSION))
    return unit(centres[rng.integers(0, 60, size)] + 0.6 * rng.standard_normal((size, DIMENSION)))


VECTORS = clustered(SIZE).astype(np.float16)
QUERIES = clustered(80, seed=4)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DenseIndex]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in dense.KINDS}
    for kind, folder in folders.items():
        dense.write(folder, VECTORS, kind=kind)
    return {kind: DenseIndex(folder, VECTORS) for kind, folder in folders.items()}


@pytest.fixture
def approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small indexes are searched as large ones are, and not exhaustively."""
    monkeypatch.setattr(dense, "_EXACT_PER_ROOT", dict.fromkeys(LOSSY, 0))
    monkeypatch.setattr(dense, "_EXACT_PER_RESULT", 0)


def brute_force(query: Vectors, k: int, allowed: NDArray[np.bool_]) -> list[tuple[int, float]]:
    cosines = VECTORS.astype(np.float64) @ query.astype(np.float64)
    return sorted(((int(i), float(cosines[i])) for i in np.flatnonzero(allowed)), key=lambda pair: (-pair[1], pair[0]))[:k]


@pytest.mark.parametrize("share", [1.0, 0.5, 0.02])
def test_flat_equals_brute_force(opened: dict[str, DenseIndex], share: float) -> None:
    allowed = np.random.default_rng(1).random(SIZE) < share
    scores, positions = opened["flat"].search(QUERIES, 12, allowed=allowed)
    for i, query in enumerate(QUERIES):
        expected = brute_force(query, 12, allowed)
        assert positions[i].tolist() == [position for position, _ in expected]
        assert scores[i].tolist() == pytest.approx([score for _, score in expected], abs=2e-6)


@pytest.mark.parametrize("kind", LOSSY)
@pytest.mark.usefixtures("approximate")
def test_lossy_kinds_find_what_flat_finds_with_its_scores(opened: dict[str, DenseIndex], kind: str) -> None:
    exact_scores, exact = opened["flat"].search(QUERIES, 10)
    scores, positions = opened[kind].search(QUERIES, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(positions, exact, strict=True)])
    assert recall >= 0.99
    for row in range(len(QUERIES)):
        known = dict(zip(exact[row].tolist(), exact_scores[row].tolist(), strict=True))
        for position, score in zip(positions[row].tolist(), scores[row].tolist(), strict=True):
            assert score == known.get(position, score)


@pytest.mark.parametrize("kind", dense.KINDS)
def test_an_index_knows_what_it_holds(opened: dict[str, DenseIndex], kind: str) -> None:
    index = opened[kind]
    assert (index.kind, index.size, index.dimension) == (kind, SIZE, DIMENSION)
    assert (index.vectors_at(np.asarray([7, 2999, 7])) == VECTORS[[7, 2999, 7]].astype(np.float32)).all()
    assert index.vectors_at(np.asarray([7])).dtype == np.float32


def test_equal_vectors_come_in_the_order_of_their_positions(tmp_path: Path) -> None:
    # Far more copies than are asked for, so that the cut goes through them.
    vectors = VECTORS.copy()
    vectors[::7] = vectors[0]
    dense.write(tmp_path, vectors, kind="flat")
    index = DenseIndex(tmp_path, vectors)
    query = vectors[:1].astype(np.float32)
    assert index.search(query, 9)[1][0].tolist() == list(range(0, 63, 7))
    allowed = np.ones(SIZE, bool)
    allowed[:70] = False
    assert index.search(query, 9, allowed=allowed)[1][0].tolist() == list(range(70, 133, 7))


@pytest.mark.parametrize("kind", dense.KINDS)
def test_results_are_filled_up_where_fewer_are_allowed(opened: dict[str, DenseIndex], kind: str) -> None:
    allowed = np.zeros(SIZE, bool)
    allowed[[5, 2000]] = True
    scores, positions = opened[kind].search(QUERIES[:3], 4, allowed=allowed)
    assert (np.sort(positions[:, :2]) == [5, 2000]).all()
    assert (positions[:, 2:] == -1).all()
    assert np.isneginf(scores[:, 2:]).all()
    assert opened[kind].search(QUERIES[:3], SIZE + 9)[1].shape == (3, SIZE)
    assert opened[kind].search(QUERIES[:0], 4)[1].shape == (0, 4)
    assert (opened[kind].search(QUERIES[:3], 4, allowed=np.zeros(SIZE, bool))[1] == -1).all()


@pytest.mark.parametrize("kind", LOSSY)
@pytest.mark.usefixtures("approximate")
def test_a_mask_that_leaves_out_the_nearest_gives_the_best_of_the_rest(opened: dict[str, DenseIndex], kind: str) -> None:
    near = opened["flat"].search(QUERIES, 150)[1]
    found, wanted = 0, 0
    for i in range(0, len(QUERIES), 8):
        allowed = np.ones(SIZE, bool)
        allowed[near[i]] = False
        best = opened["flat"].search(QUERIES[i:i + 1], 10, allowed=allowed)[1][0]
        found += len(set(best) & set(opened[kind].search(QUERIES[i:i + 1], 10, allowed=allowed)[1][0]))
        wanted += 10
    assert found / wanted >= 0.97


@pytest.mark.usefixtures("approximate")
def test_a_search_that_comes_up_short_compares_everything(opened: dict[str, DenseIndex], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_PROBES", 1)
    scores, positions = opened["ivfpq"].search(QUERIES, 1500)
    exact_scores, exact = opened["flat"].search(QUERIES, 1500)
    assert (positions == exact).all()
    assert (scores == exact_scores).all()


def test_many_threads_at_once_get_what_one_gets(opened: dict[str, DenseIndex]) -> None:
    expected = {kind: index.search(QUERIES, 5) for kind, index in opened.items()}

    def search(number: int) -> bool:
        kind, at = dense.KINDS[number % 4], number % len(QUERIES)
        batch = slice(at, at + (1 if number % 3 else 40))
        scores, positions = opened[kind].search(QUERIES[batch], 5)
        return bool((positions == expected[kind][1][batch]).all() and (scores == expected[kind][0][batch]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(search, range(400)))


def test_one_query_takes_one_thread_and_one_batch_at_a_time_a_team() -> None:
    faiss.omp_set_num_threads(2)
    with dense_faiss.threads(1):
        assert faiss.omp_get_max_threads() == 1
    with dense_faiss.threads(5):
        assert faiss.omp_get_max_threads() == 2
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(_threads_of_a_batch).result() == 1
    assert faiss.omp_get_max_threads() == 2
    assert _threads_of_a_batch() == 2


def _threads_of_a_batch() -> int:
    faiss.omp_set_num_threads(2)
    with dense_faiss.threads(5):
        return int(faiss.omp_get_max_threads())


def test_vectors_are_searched_where_they_lie(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", VECTORS)
    for kind in ("flat", "hnsw"):
        path = dense.write(tmp_path, VECTORS, kind=kind)
        assert path.stat().st_size < SIZE * 300  # links, no vectors: those would take 64 bytes here, 768 in 384 dimensions
        mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r+")
        index = DenseIndex(tmp_path, mapped)
        before = index.search(QUERIES[:1], 1)[0][0, 0]
        mapped[index.search(QUERIES[:1], 1)[1][0, 0]] = 0
        assert index.search(QUERIES[:1], 1)[0][0, 0] < before
        np.save(tmp_path / "vectors.npy", VECTORS)


@pytest.mark.parametrize("kind", dense.KINDS)
def test_the_same_seed_writes_the_same_file(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense_build, "_LISTS_PER_ROOT", 1)  # few lists, so that some vectors are not in the training sample
    first = dense.write(tmp_path, VECTORS, kind=kind, seed=5).read_bytes()
    if kind != "hnsw":  # a graph depends on the order of insertion, and FAISS reorders each block
        monkeypatch.setattr(dense_build, "_BLOCK", 700)
    assert dense.write(tmp_path, VECTORS.astype(np.float32), kind=kind, seed=5).read_bytes() == first
    faiss.omp_set_num_threads(1)
    try:
        assert dense.write(tmp_path, VECTORS, kind=kind, seed=5).read_bytes() == first
    finally:
        faiss.omp_set_num_threads(2)
    other = dense.write(tmp_path, VECTORS, kind=kind, seed=6).read_bytes()
    assert (other == first) == (kind == "flat")


def test_the_kind_follows_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [dense.kind_for(size) for size in (1, 50_000, 50_001, 10**7)] == ["flat", "flat", "ivfpq", "ivfpq"]
    dense.write(tmp_path, VECTORS)
    assert DenseIndex(tmp_path, VECTORS).kind == "flat"
    monkeypatch.setattr(dense, "_FLAT_UP_TO", SIZE - 1)
    dense.write(tmp_path, VECTORS)
    assert DenseIndex(tmp_path, VECTORS).kind == "ivfpq"


@pytest.mark.parametrize("kind", ["ivf", "ivfpq"])
def test_a_segment_too_small_to_train_becomes_flat(tmp_path: Path, kind: str) -> None:
    for size, expected in ((dense_build.TRAINABLE - 1, "flat"), (dense_build.TRAINABLE, kind)):
        dense.write(tmp_path, VECTORS[:size], kind=kind)
        index = DenseIndex(tmp_path, VECTORS[:size])
        assert index.kind == expected
        assert index.search(QUERIES[:2], 3)[1].min() >= 0


@pytest.mark.parametrize("kind", dense.KINDS)
def test_one_vector_of_an_odd_dimension(tmp_path: Path, kind: str) -> None:
    vectors = np.asarray([[0.6, 0.0, 0.8]], np.float16)
    dense.write(tmp_path, vectors, kind=kind)
    scores, positions = DenseIndex(tmp_path, vectors).search(np.asarray([[0, 0, 1]], np.float32), 5)
    assert positions.tolist() == [[0]]
    assert scores[0, 0] == pytest.approx(0.8, abs=1e-3)


def test_an_odd_dimension_can_be_quantized(tmp_path: Path) -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((1100, 7))).astype(np.float16)
    dense.write(tmp_path, vectors, kind="ivfpq")
    index = DenseIndex(tmp_path, vectors)
    assert index.kind == "ivfpq"
    assert (index.search(vectors[:20].astype(np.float32), 1)[1][:, 0] == np.arange(20)).all()


@pytest.mark.parametrize("kind", dense.KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_vectors_that_are_not_finite_are_refused(tmp_path: Path, kind: str, value: float) -> None:
    vectors = VECTORS.astype(np.float32)
    vectors[1234, 5] = value
    with pytest.raises(InputError, match="position 1234 "):
        dense.write(tmp_path, vectors, kind=kind)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(0, 32\)"):
        dense.write(tmp_path, VECTORS[:0])
    with pytest.raises(InputError, match=r"\(32,\)"):
        dense.write(tmp_path, VECTORS[0])
    with pytest.raises(ConfigError, match="'annoy'") as raised:
        dense.write(tmp_path, VECTORS, kind="annoy")
    assert "ivfpq" in raised.value.hint


@pytest.mark.parametrize("kind", ["flat", "ivfpq"])
def test_queries_that_make_no_sense_are_refused(opened: dict[str, DenseIndex], kind: str) -> None:
    index = opened[kind]
    for k in (0, -3):
        with pytest.raises(InputError, match=f"k = {k} "):
            index.search(QUERIES, k)
    for queries in (QUERIES[:, :31], QUERIES[0]):
        with pytest.raises(InputError, match="do not fit an index of 32"):
            index.search(queries, 3)
    for value in (np.nan, np.inf):
        broken = QUERIES.copy()
        broken[1, 1] = value
        with pytest.raises(InputError, match="not finite"):
            index.search(broken, 3)
    for allowed in (np.ones(SIZE - 1, bool), np.ones(SIZE, np.int64)):
        with pytest.raises(InputError, match="does not fit 3000 vectors"):
            index.search(QUERIES, 3, allowed=allowed)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", dense.KINDS)
def test_a_file_cut_short_is_refused(tmp_path: Path, kind: str) -> None:
    path = dense.write(tmp_path, VECTORS, kind=kind)
    whole = path.read_bytes()
    for share in (0, 0.001, 0.3, 0.9):
        path.write_bytes(whole[:int(len(whole) * share)])
        with pytest.raises(SnapshotCorrupt, match=r"dense\.faiss"):
            DenseIndex(tmp_path, VECTORS)
    path.unlink()
    with pytest.raises(SnapshotCorrupt, match=r"dense\.faiss"):
        DenseIndex(tmp_path, VECTORS)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 something else", b"{", b"[]", b'{"format": 1}', b"{}" * 99,
                                     json.dumps({"format": 2, "kind": "flat", "size": SIZE, "dimension": DIMENSION}).encode(),
                                     json.dumps({"format": 1, "kind": "ivf", "size": SIZE, "dimension": DIMENSION}).encode()])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / dense.FILE).write_bytes(content)
    with pytest.raises(SnapshotCorrupt, match=r"dense\.faiss.*rebuild"):
        DenseIndex(tmp_path, VECTORS)


def test_an_index_of_another_kind_or_measure_is_refused(tmp_path: Path) -> None:
    other = faiss.IndexFlatIP(DIMENSION)
    distance = faiss.IndexHNSWSQ(DIMENSION, faiss.ScalarQuantizer.QT_fp16, 4)
    for index in (other, distance):
        index.add(VECTORS.astype(np.float32))
        faiss.write_index(index, str(tmp_path / dense.FILE))
        with pytest.raises(SnapshotCorrupt, match=type(index).__name__):
            DenseIndex(tmp_path, VECTORS)


@pytest.mark.parametrize("kind", dense.KINDS)
def test_an_index_of_other_vectors_is_refused(tmp_path: Path, kind: str) -> None:
    dense.write(tmp_path, VECTORS, kind=kind)
    with pytest.raises(SnapshotCorrupt, match="3000 vectors of 32 dimensions, but the segment holds 2999 of 32"):
        DenseIndex(tmp_path, VECTORS[1:])
    with pytest.raises(SnapshotCorrupt, match="holds 3000 of 16"):
        DenseIndex(tmp_path, np.ascontiguousarray(VECTORS[:, :16]))


def test_a_full_disk_raises(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / dense.FILE).symlink_to(full)
    for kind in dense.KINDS:
        with pytest.raises(OSError, match="No space left") as raised:
            dense.write(tmp_path, VECTORS[:1100], kind=kind)
        assert raised.value.errno == errno.ENOSPC


def test_faiss_that_is_missing_names_both_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ConfigError) as raised:
        dense.faiss()
    assert "thriftrag[cpu]" in raised.value.hint
    assert "thriftrag[gpu]" in raised.value.hint


class Gpu:
    """Stands in for the GPU calls of FAISS: a copy in memory takes the place of one on the GPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, has_room: bool = True) -> None:
        self.moved: list[str] = []
        self.has_room = has_room
        for name, value in (("get_num_gpus", lambda: 1), ("StandardGpuResources", SimpleNamespace),
                            ("GpuClonerOptions", SimpleNamespace), ("index_cpu_to_gpu", self.move)):
            monkeypatch.setattr(faiss, name, value, raising=False)
        monkeypatch.setattr(dense_gpu, "LARGE", SIZE)

    def move(self, resources: Any, device: int, index: Any, options: Any) -> Any:
        assert device == 0
        assert options.use_cuvs is False
        if not self.has_room:
            raise RuntimeError("out of memory")
        self.moved.append(type(faiss.downcast_index(index)).__name__)
        return faiss.clone_index(index)


def test_a_gpu_trains_and_assigns_and_the_file_stays_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = {kind: dense.write(tmp_path, VECTORS, kind=kind).read_bytes() for kind in dense.KINDS}
    gpu = Gpu(monkeypatch)
    for kind in dense.KINDS:
        gpu.moved.clear()
        assert dense.write(tmp_path, VECTORS, kind=kind).read_bytes() == plain[kind]
        assert gpu.moved == (["IndexFlatIP", "IndexFlatIP"] if kind in ("ivf", "ivfpq") else [])


def test_a_gpu_takes_the_centroids_only_while_vectors_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    index = dense_build.build("ivf", VECTORS, seed=0)
    own = int(index.quantizer.this)
    gpu.moved.clear()
    with dense_gpu.assigning(index):
        assert int(index.quantizer.this) != own
        assert gpu.moved == ["IndexFlatIP"]
    assert int(index.quantizer.this) == own


@pytest.mark.parametrize(("kind", "moved"), [("flat", "IndexScalarQuantizer"), ("ivf", "IndexIVFScalarQuantizer"),
                                             ("hnsw", None), ("ivfpq", None)])
def test_a_gpu_searches_the_large_indexes_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str,
                                                 moved: str | None, opened: dict[str, DenseIndex]) -> None:
    dense.write(tmp_path, VECTORS, kind=kind)
    gpu = Gpu(monkeypatch)
    index = DenseIndex(tmp_path, VECTORS)
    assert gpu.moved == ([moved] if moved else [])
    scores, positions = index.search(QUERIES, 10)
    assert (positions == opened[kind].search(QUERIES, 10)[1]).mean() > 0.99
    assert (scores[:, 0] == opened["flat"].search(QUERIES, 10)[0][:, 0]).mean() > 0.98
    if moved:
        asked: list[int] = []
        search = dense_gpu.GpuSearch.search
        monkeypatch.setattr(dense_gpu.GpuSearch, "search", lambda self, queries, k, *, parameters:
                            asked.append(k) or search(self, queries, k, parameters=parameters))
        index.search(QUERIES, 7)
        index.search(QUERIES, 8, allowed=np.arange(SIZE) % 2 == 0)  # a mask
        index.search(QUERIES, 1500)                                 # more than a GPU brings up
        assert asked == [7]


def test_small_indexes_and_full_gpus_leave_the_search_to_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                 opened: dict[str, DenseIndex]) -> None:
    dense.write(tmp_path, VECTORS, kind="flat")
    expected = opened["flat"].search(QUERIES, 10)[1]
    gpu = Gpu(monkeypatch, has_room=False)
    assert (DenseIndex(tmp_path, VECTORS).search(QUERIES, 10)[1] == expected).all()
    gpu.has_room = True
    monkeypatch.setattr(dense_gpu, "LARGE", SIZE + 1)
    assert (DenseIndex(tmp_path, VECTORS).search(QUERIES, 10)[1] == expected).all()
    assert gpu.moved == []


@dataclass(frozen=True)
class View:
    """As much of a segment as a dense search asks for."""

    dense: DenseIndex
    rows: NDArray[np.int64]
    live: NDArray[np.bool_] | None
    folder: Path = Path()
    lexical: Any = None


@pytest.fixture
def segments(tmp_path: Path) -> list[View]:
    """Three segments; rows leave gaps, and in the second only every other vector lives."""
    parts: list[View] = []
    row = 0
    for number, kind in enumerate(("flat", "ivfpq", "hnsw")):
        vectors = VECTORS[number::3]
        folder = tmp_path / str(number)
        folder.mkdir()
        dense.write(folder, vectors, kind=kind)
        rows = row + 2 * np.arange(len(vectors))
        row = int(rows[-1]) + 5
        parts.append(View(DenseIndex(folder, vectors), rows, np.arange(len(vectors)) % 2 == 0 if number == 1 else None))
    return parts


def ranked(segments: list[View], query: Vectors, masks: list[NDArray[np.bool_] | None], k: int) -> list[int]:
    cosines = [(-float(vector.astype(np.float64) @ query), int(row))
               for number, (segment, mask) in enumerate(zip(segments, masks, strict=True))
               for i, (vector, row) in enumerate(zip(VECTORS[number::3], segment.rows, strict=True)) if mask is None or mask[i]]
    return [row for _, row in sorted(cosines)[:k]]


def test_segments_are_searched_as_one(segments: list[View]) -> None:
    given = [np.arange(1000) < 400, None, np.zeros(1000, bool)]
    for query in QUERIES[:5]:
        found = retrieval.search(segments, query, k=8)
        assert [row for row, _ in found] == ranked(segments, query, [segment.live for segment in segments], 8)
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
        assert [row for row, _ in retrieval.search(segments, query, k=8, allowed=given)] == ranked(segments, query, given, 8)
    assert len(retrieval.search(segments, QUERIES[0], k=9000)) == 2500
    assert retrieval.search([], QUERIES[0], k=3) == []
    assert retrieval.search(segments, QUERIES[0], k=3, allowed=[np.zeros(1000, bool)] * 3) == []
    with pytest.raises(InputError, match="do not fit"):
        retrieval.search(segments, QUERIES[0][:5], k=3)
