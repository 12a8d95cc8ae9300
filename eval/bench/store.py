"""What keeping a collection costs as it grows: publishing, adding, changing and deleting documents, opening, verifying.

The encoder is replaced by seeded random vectors, so that the store is measured and not the model; everything else is what
`ingest` runs. Documents are passages of the data put together at random, eight chunks each.
"""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from eval.bench import Measurement, Options
from eval.datasets import load
from indexers import store
from indexers.chunking import embedding_text, normalised_hash
from indexers.encoders import Vectors
from indexers.ingest import index_options
from indexers.sentences import split
from indexers.snapshot import Snapshot
from indexers.writer import FileState, Indexed, writing
from rag.durable import tree_bytes
from rag.filters import And, Equals, Filter, Not, Range
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import Chunk, Document, OnProgress, Progress
from retrievers.hybrid import Searcher

SIZES = (10_000, 100_000)
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
DIMENSION = 384
PER_DOCUMENT = 8
_BATCH = 64                     # documents a transaction: the 512 chunks of the default
_TIMES = 9
FILTERS: dict[str, Filter] = {
    "one document": Equals("id", "d7"), "4 % by equality": Equals("year", 2007), "50 % by equality": Equals("lang", "en"),
    "20 % by range": Range("year", gte=2020), "three conditions": And((Equals("lang", "en"), Range("year", gte=2020),
                                                                      Not(Equals("year", 2022))))}


class RandomEncoder:
    """Seeded unit vectors in place of a model: the same text, the same vector."""

    name, dimension, max_tokens = "random@1", DIMENSION, 256

    def count(self, texts: Sequence[str]) -> list[int]:
        return [2 + len(text.split()) for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        spans, at = [], 0
        for word in text.split():
            at = text.index(word, at)
            spans.append((at, at + len(word)))
            at += len(word)
        return spans

    def encode(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> Vectors:
        made = np.stack([np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIMENSION, np.float32)
                         for text in texts]) if texts else np.zeros((0, DIMENSION), np.float32)
        if on_batch is not None:
            on_batch(len(texts))
        unit: Vectors = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
        return unit


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    sentences = [passage.text[start:end] for folder in options.data or (SAMPLE,) for passage in load(folder).passages
                 for start, end in split(passage.text)]
    rows: list[Measurement] = []
    for size in options.sizes or SIZES:
        rows += _at(size, sentences, options, on_progress)
    smallest = (options.sizes or SIZES)[0]
    rows = [_against(row, rows, smallest) for row in rows]
    if options.plots is not None:
        _plot(rows, options.plots / "store-growth.png")
    return rows


def _at(size: int, sentences: Sequence[str], options: Options, on_progress: OnProgress) -> list[Measurement]:
    rng = np.random.default_rng(options.seed)
    settings = dataclasses.replace(options.settings, home=options.scratch / f"home-{size}", workers=0, embedding_cache_mb=0)
    folder = settings.home / "collections" / "bench"
    store.create(folder, encoder=RandomEncoder.name, dimension=DIMENSION, chunk_tokens=200)
    documents = size // PER_DOCUMENT
    rows: list[Measurement] = []

    def add(name: str, value: float, unit: str, n: int) -> None:
        rows.append(Measurement(f"{size:,} chunks: {name}", value, unit, n))

    since, waited = time.perf_counter(), 0.0
    with writing(folder, options=index_options(settings)) as writer:
        for start in range(0, documents, _BATCH):
            paused = time.perf_counter()
            batch = [document(number, sentences, rng) for number in range(start, min(start + _BATCH, documents))]
            waited += time.perf_counter() - paused
            writer.publish(batch, finished=[_finished(item) for item in batch])
            on_progress(Progress(f"publish {size:,}", start * PER_DOCUMENT, size))
    seconds = time.perf_counter() - since - waited
    add("publish in batches of 512", size / seconds, "chunks/s", documents)
    add("on disk, text and indexes", tree_bytes(folder) / size, "bytes/chunk", size)
    add("open", _median(lambda: Snapshot(folder).close()) * 1e3, "ms", _TIMES)
    add("open and answer the first search", _median(lambda: _first_search(folder, settings)) * 1e3, "ms", _TIMES)
    with closing(Snapshot(folder)) as snapshot:
        for what, where in FILTERS.items():
            add(f"filter, {what}", _median(lambda where=where: snapshot.allowed(where)) * 1e3, "ms", _TIMES)  # type: ignore[misc]
        since = time.perf_counter()
        problems = snapshot.problems()
        add("verify", time.perf_counter() - since, "s", 1)
        add("problems found", len(problems), "problems", 1)
    _changes(documents, settings, add, options)
    since = time.perf_counter()
    with writing(folder, options=index_options(settings)) as writer:
        writer.compact()
    add("compact", time.perf_counter() - since, "s", 1)
    return rows


def _changes(documents: int, settings: Settings, add: Callable[[str, float, str, int], None], options: Options) -> None:
    """One file through the whole of `ingest`: added, changed, moved, deleted; then a hundred documents deleted at once."""
    aside = options.scratch / f"one-{documents}"
    aside.mkdir()
    file, moved = aside / "one.txt", aside / "two.txt"
    with ThriftRAG.open("bench", settings=settings, encoder=RandomEncoder()) as kb:
        def timed(name: str, work: Callable[[], object]) -> None:
            since = time.perf_counter()
            work()
            add(name, (time.perf_counter() - since) * 1e3, "ms", 1)

        file.write_text("Otters rest in kelp. They hold hands.\n" * 40, encoding="utf-8")
        timed("add one file", lambda: kb.ingest(file))
        file.write_text("Otters rest in kelp. They hold paws.\n" * 40, encoding="utf-8")
        timed("change one file", lambda: kb.ingest(file))
        file.rename(moved)
        timed("move one file", lambda: kb.ingest(moved))
        moved.unlink()
        (aside / "other.txt").write_text("Something else.", encoding="utf-8")
        timed("delete one file", lambda: kb.ingest(aside, prune=True))
        names = [f"d{number}" for number in range(0, documents, max(1, documents // 100))][:100]
        since = time.perf_counter()
        kb.delete(*names)
        seconds = time.perf_counter() - since
        add("delete 100 documents", seconds, "s", len(names))
        add("delete 100 documents, for each 10,000 chunks", seconds / (documents * PER_DOCUMENT / 10_000), "s", len(names))


def document(number: int, sentences: Sequence[str], rng: np.random.Generator) -> Indexed:
    """A document of eight chunks of six sentences drawn at random, with a year and a language to filter by."""
    texts = [" ".join(sentences[at] for at in rng.integers(0, len(sentences), 6)) for _ in range(PER_DOCUMENT)]
    text = "\n".join(texts)
    made = Document(id=f"d{number}", source=f"d{number}.txt", uri=f"/bench/d{number}.txt", title=f"Document {number}", text=text,
                    content_hash=str(number), blocks=(), metadata={"year": 2000 + number % 25, "lang": ("en", "de")[number % 2]})
    chunks, at = [], 0
    for ordinal, body in enumerate(texts):
        chunks.append(Chunk(id=f"d{number}:{ordinal}", doc_id=made.id, ordinal=ordinal, text=body, span=(at, at + len(body)),
                            sentences=split(body), tokens=len(body.split()), title=made.title, source=made.source,
                            content_hash=normalised_hash(body)))
        at += len(body) + 1
    return Indexed(made, made.uri, tuple(chunks), RandomEncoder().encode([embedding_text(chunk) for chunk in chunks]))


def _finished(item: Indexed) -> FileState:
    return FileState(item.document.uri, item.document.content_hash)


def _first_search(folder: Path, settings: Settings) -> None:
    with closing(Snapshot(folder)) as snapshot:
        Searcher(snapshot, RandomEncoder(), settings=settings).search("Which river is longest?", mode="hybrid", k=10)


def _median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_TIMES):
        since = time.perf_counter()
        work()
        times.append(time.perf_counter() - since)
    return float(np.median(times))


def _against(row: Measurement, rows: Sequence[Measurement], smallest: int) -> Measurement:
    """Growth: each figure against that of the smallest size in the same run."""
    _, _, what = row.name.partition(" chunks: ")
    name = f"{smallest:,} chunks: {what}"
    base = next((other.value for other in rows if other.name == name), 0.0)
    return row if row.name == name or not base else dataclasses.replace(row, ratio=row.value / base, ratio_to=name)


def _plot(rows: Sequence[Measurement], path: Path) -> None:
    from matplotlib.figure import Figure

    wanted = ("add one file", "delete 100 documents", "open", "verify", "compact")
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for what in wanted:
        points = [(int(size.replace(",", "")), row.value * (1e3 if row.unit == "s" else 1))
                  for row in rows for size, _, named in [row.name.partition(" chunks: ")] if named == what]
        axes.plot(*zip(*points, strict=True), marker="o", label=what)
    axes.set(xscale="log", yscale="log", xlabel="chunks in the collection", ylabel="ms", title="Cost against size")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
