"""A Qdrant mirror beside the collection's own FAISS flat and BM25 indexes: upload, disk, search times, recall, filtered search.

Synthetic passages with clustered vectors, written, mirrored and searched by the code that users run. Embedded always; also on the
server at `qdrant_url` where that is set. Every ratio compares with the row of the local indexes of the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.bench import Measurement, Options
from indexers import store
from indexers.encoders import Vectors
from indexers.qdrant import Mirror, mirror_of
from indexers.segments import IndexOptions
from indexers.snapshot import Snapshot
from indexers.writer import Indexed, writing
from rag.filters import Equals, Filter
from rag.types import Chunk, Document, OnProgress, Progress, no_progress
from retrievers import fusion
from retrievers.backend import Backend, Local
from retrievers.dense import Ranked
from retrievers.qdrant import QdrantBackend

SIZES = (10_000, 50_000)
DIMENSION = 384
QUERIES = 100
WARM_UP = 10
K = 10
_CHUNKS_OF_A_DOCUMENT = 10
_WORDS_OF_A_CHUNK = 120
_VOCABULARY = 50_000
_DOCUMENTS_AT_ONCE = 500
# Names of documents' fields with the share of documents that have the value asked for.
_FILTERS: dict[str, Filter] = {"1 %": Equals("group", "g7"), "50 %": Equals("half", "h1")}


def run(options: Options, *, on_progress: OnProgress = no_progress) -> list[Measurement]:
    rows: list[Measurement] = []
    for size in options.sizes or SIZES:
        rows += _at(size, options, on_progress)
    return rows


def _at(size: int, options: Options, on_progress: OnProgress) -> list[Measurement]:
    folder = options.scratch / f"qdrant-{size}"
    questions = _written(folder, size, options.seed, on_progress)
    snapshot = Snapshot(folder)
    rows = _searched(f"local at {size}", Local(snapshot, engine="native"), questions, snapshot, None)
    rows.append(Measurement(f"local at {size}: disk", _disk_mb(folder / store.SEGMENTS), "MB", size))
    settings = replace(options.settings, qdrant_url="", qdrant_api_key="")
    kinds = {"embedded": settings} | ({"server": options.settings} if options.settings.qdrant_url else {})
    for kind, chosen in kinds.items():
        mirror = mirror_of(snapshot, settings=chosen)
        try:
            rows += _mirrored(f"{kind} at {size}", mirror, questions, snapshot, on_progress, beside=f"local at {size}", so_far=rows)
        finally:
            mirror.drop()
            mirror.close()
    snapshot.close()
    return rows


def _mirrored(name: str, mirror: Mirror, questions: tuple[Vectors, list[str]], snapshot: Snapshot, on_progress: OnProgress, *,
              beside: str, so_far: list[Measurement]) -> list[Measurement]:
    mirror.drop()
    marks: dict[str, float] = {}

    def heard(tick: Progress) -> None:
        marks.setdefault(tick.note, time.perf_counter())
        on_progress(replace(tick, note=f"{name} {tick.note}"))

    begun = time.perf_counter()
    mirror.sync(snapshot, on_progress=heard)
    ended = time.perf_counter()
    sent = marks["search graphs"] - begun
    problems = mirror.problems(snapshot)
    if problems:
        raise AssertionError(f"the mirror differs from the store: {problems}")
    rows = [Measurement(f"{name}: upload", snapshot.size / sent, "chunks/s", snapshot.size),
            Measurement(f"{name}: search graphs", ended - marks["search graphs"], "s", 1)]
    again = time.perf_counter()
    mirror.sync(snapshot)
    rows.append(Measurement(f"{name}: sync of nothing", 1000 * (time.perf_counter() - again), "ms", 1))
    if name.startswith("embedded"):
        rows.append(Measurement(f"{name}: disk", _disk_mb(snapshot.folder / "qdrant"), "MB", snapshot.size))
    rows += _searched(name, QdrantBackend(snapshot, mirror), questions, snapshot, beside)
    return [_beside(row, name, beside, so_far) for row in rows]


def _searched(name: str, backend: Backend, questions: tuple[Vectors, list[str]], snapshot: Snapshot, beside: str | None
              ) -> list[Measurement]:
    vectors, texts = questions
    searches: dict[str, Callable[[int], Ranked]] = {
        "dense": lambda i: backend.dense(vectors[i], k=K),
        "sparse": lambda i: backend.lexical(texts[i], k=K),
        "hybrid": lambda i: fusion.reciprocal_rank({"dense": backend.dense(vectors[i], k=4 * K),
                                                    "bm25": backend.lexical(texts[i], k=4 * K)}, k=K)}
    for share, where in _FILTERS.items():
        searches[f"dense, {share} allowed"] = lambda i, where=where: backend.dense(vectors[i], k=K, where=where)  # type: ignore[misc]
        searches[f"sparse, {share} allowed"] = lambda i, where=where: backend.lexical(texts[i], k=K, where=where)  # type: ignore[misc]
    rows = []
    for what, search in searches.items():
        times, found = _timed(search)
        rows += [Measurement(f"{name}: {what} {label}", float(np.percentile(times, share)), "ms", len(times))
                 for label, share in (("p50", 50), ("p95", 95))]
        if what.startswith("dense"):
            allowing = next((where for share, where in _FILTERS.items() if share in what), None)
            rows.append(Measurement(f"{name}: {what} recall@{K}", _recall(found, vectors, snapshot, allowing), "", len(found)))
    return rows


def _timed(search: Callable[[int], Ranked]) -> tuple[list[float], list[Ranked]]:
    """Milliseconds and answers of each question, after a warm-up with the first of them."""
    for i in range(WARM_UP):
        search(i)
    times, found = [], []
    for i in range(QUERIES):
        begun = time.perf_counter()
        found.append(search(i))
        times.append(1000 * (time.perf_counter() - begun))
    return times, found


def _recall(found: list[Ranked], vectors: Vectors, snapshot: Snapshot, where: Filter | None) -> float:
    """Share of the exact best `K` that was found, by one product of everything allowed."""
    rows = np.concatenate([segment.rows if mask is None else segment.rows[mask]
                           for segment, mask in zip(snapshot.segments, snapshot.allowed(where), strict=True)])
    scores = vectors @ snapshot.vectors(rows.tolist()).T
    hits = 0
    for i, ranked in enumerate(found):
        best = rows[np.argpartition(-scores[i], K - 1)[:K]]
        hits += len({row for row, _ in ranked} & set(best.tolist()))
    return hits / (K * len(found))


def _beside(row: Measurement, name: str, beside: str, so_far: list[Measurement]) -> Measurement:
    other = row.name.replace(name, beside)
    values = {found.name: found.value for found in so_far}
    return replace(row, ratio=row.value / values[other], ratio_to=other) if values.get(other) else row


def _disk_mb(folder: Path) -> float:
    """What the files occupy: an embedded shard reserves more than it fills."""
    return sum(path.lstat().st_blocks for path in folder.rglob("*")) * 512 / 1e6


def _written(folder: Path, size: int, seed: int, on_progress: OnProgress) -> tuple[Vectors, list[str]]:
    """A collection of `size` chunks, and vectors and texts of questions of the same kind."""
    rng = np.random.default_rng(seed)
    words = np.asarray([f"w{number}" for number in range(_VOCABULARY)], object)
    centres = rng.normal(size=(max(1, size // 100), DIMENSION)).astype(np.float32)
    store.create(folder, encoder=f"clustered@{seed}", dimension=DIMENSION, chunk_tokens=200)
    with writing(folder, options=IndexOptions(kind="flat")) as writer:
        documents = size // _CHUNKS_OF_A_DOCUMENT
        for first in range(0, documents, _DOCUMENTS_AT_ONCE):
            on_progress(Progress("write", first * _CHUNKS_OF_A_DOCUMENT, size))
            numbers = range(first, min(documents, first + _DOCUMENTS_AT_ONCE))
            writer.publish([_document(rng, number, words, centres) for number in numbers])
    return _vectors(rng, centres, QUERIES), list(_texts(rng, words, QUERIES, length=6))


def _document(rng: np.random.Generator, number: int, words: NDArray[np.object_], centres: Vectors) -> Indexed:
    name = f"d{number:07}"
    texts = list(_texts(rng, words, _CHUNKS_OF_A_DOCUMENT, length=_WORDS_OF_A_CHUNK))
    document = Document(id=name, source=f"{name}.txt", uri=f"/{name}.txt", title="", text="\n".join(texts), content_hash=name,
                        blocks=(), metadata={"group": f"g{number % 100}", "half": f"h{number % 2}", "year": 1990 + number % 40})
    chunks, start = [], 0
    for i, text in enumerate(texts):
        chunks.append(Chunk(id=f"{name}:{i}", doc_id=name, ordinal=i, text=text, span=(start, start + len(text)),
                            sentences=((0, len(text)),), tokens=_WORDS_OF_A_CHUNK, source=document.source,
                            content_hash=f"{name}:{i}"))
        start += len(text) + 1
    return Indexed(document, document.uri, tuple(chunks), _vectors(rng, centres, len(texts)))


def _texts(rng: np.random.Generator, words: NDArray[np.object_], count: int, *, length: int) -> Iterator[str]:
    """Words by Zipf's law, as in real text."""
    ranks = rng.zipf(1.15, size=(count, length)) % len(words)
    return (" ".join(line) for line in words[ranks])


def _vectors(rng: np.random.Generator, centres: Vectors, count: int) -> Vectors:
    found = centres[rng.integers(0, len(centres), count)] + 0.7 * rng.normal(size=(count, DIMENSION)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)
