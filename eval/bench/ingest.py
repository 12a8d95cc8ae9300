"""From files to a published snapshot: passages a second, against what other programs take for the encoding alone.

Ours reads one text file a passage, chunks, encodes, indexes (vectors and words), syncs and publishes. The others get the
chunks that ours made, ready cut, and encode and index them as their documentation shows: sentence-transformers in f32 (which
writes nothing), txtai and LlamaIndex with their own stores. All use the same weights, on the same processor, one after the
other. With a size of 20,000 or more the resident memory of the largest run is followed too.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

from eval.bench import Measurement, Options
from eval.datasets import load
from eval.memory import Sampler
from indexers.chunking import embedding_text
from indexers.encoders import Encoder, Vectors, open_encoder, term_weights
from indexers.encoders.term_weights import TermModel
from indexers.impacts import Impacts
from indexers.snapshot import Snapshot
from rag.models import ModelCache
from rag.thriftrag import ThriftRAG
from rag.types import OnProgress, Progress

SIZES = (512,)
PRECISIONS = ("int8", "bf16", "f32")
BASELINE = "sentence-transformers f32, encoding alone"
# From this many passages on, memory is followed; the first tenth is warming up.
_LONG = 20_000
_WARM = 0.1


class _Timed:
    """An encoder that adds up the seconds it computes."""

    def __init__(self, inner: Encoder) -> None:
        self.inner = inner
        self.name, self.dimension, self.max_tokens = inner.name, inner.dimension, inner.max_tokens
        self.count, self.offsets = inner.count, inner.offsets
        self.seconds = 0.0

    @property
    def terms(self) -> TermModel | None:
        weighing = term_weights.of(self.inner)
        return weighing.terms if weighing else None

    def encode(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> Vectors:
        with self._counting():
            return self.inner.encode(texts, on_batch=on_batch)

    def encode_with_terms(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None
                          ) -> tuple[Vectors, list[Impacts]]:
        weighing = term_weights.of(self.inner)
        assert weighing is not None, "asked only of an encoder with `terms`"
        with self._counting():
            return weighing.encode_with_terms(texts, on_batch=on_batch)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        since = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - since


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    sizes = options.sizes or SIZES
    cache = ModelCache(options.settings.models)
    folder = _files(options, sizes[0])
    rows: list[Measurement] = []
    chunks: list[str] = []
    for number, precision in enumerate(PRECISIONS):
        on_progress(Progress("ours", number, len(PRECISIONS) + 1, "runs", precision))
        made, chunks = _ours(options, folder, cache, precision, sparse="off")
        rows += made
    on_progress(Progress("ours", len(PRECISIONS), len(PRECISIONS) + 1, "runs", "with term weights"))
    rows += _weighing(options, folder, cache, dense=rows[0])
    published = cache.published(options.settings.embedder, options.scratch / "model")
    others: list[tuple[str, str, Callable[[Sequence[str], Path, Path], float]]] = [
        (BASELINE, "sentence_transformers", _sentence_transformers), ("txtai", "txtai", _txtai),
        ("LlamaIndex", "llama_index", _llama_index)]
    for name, package, measured in others:
        if find_spec(package) is not None:
            on_progress(Progress(name, 0, None, "passages"))
            rows.append(Measurement(name, len(chunks) / measured(chunks, published, options.scratch), "passages/s", len(chunks)))
    rows = _with_ratios(rows)
    if sizes[-1] >= _LONG:
        rows += _long(options, sizes[-1], cache, on_progress)
    return rows


def _with_ratios(rows: Sequence[Measurement]) -> list[Measurement]:
    base = next((row.value for row in rows if row.name == BASELINE), None)
    if base is None:
        return list(rows)
    return [dataclasses.replace(row, ratio=row.value / base, ratio_to=BASELINE)
            if row.unit == "passages/s" and row.name != BASELINE else row for row in rows]


def _files(options: Options, count: int) -> Path:
    """`count` passages of the data, seeded, one text file each; passages repeat with a number where there are too few."""
    import numpy as np

    passages = [f"{p.title}\n\n{p.text}" for folder in options.data or (SAMPLE,) for p in load(folder).passages]
    order = np.random.default_rng(options.seed).permutation(len(passages))
    folder = options.scratch / f"files-{count}"
    for number, at in enumerate(islice(cycle(order), count)):
        again = f"\n\nCopy {number // len(passages)}." if number >= len(passages) else ""
        path = folder / f"{number % 100:02}" / f"{number:07}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(passages[at] + again, encoding="utf-8")
    return folder


SAMPLE = Path(__file__).parents[1] / "data" / "sample"


def _weighing(options: Options, folder: Path, cache: ModelCache, *, dense: Measurement) -> list[Measurement]:
    """The first precision again, with term weights; nothing where the embedder has none. `dense`: the same without."""
    if term_weights.of(open_encoder(options.settings.embedder, cache=cache, precision=PRECISIONS[0])) is None:
        return []
    rows, _ = _ours(options, folder, cache, PRECISIONS[0], sparse="auto")
    return [dataclasses.replace(row, name=row.name.replace(f" {PRECISIONS[0]},", f" {PRECISIONS[0]} with term weights,"))
            for row in rows] + [Measurement("time that term weights add", dense.value / rows[0].value - 1, "share", dense.n)]


def _ours(options: Options, folder: Path, cache: ModelCache, precision: str, *, sparse: str
          ) -> tuple[list[Measurement], list[str]]:
    encoder = _Timed(open_encoder(options.settings.embedder, cache=cache, precision=precision))
    warming = ["The first call makes kernels. " * (1 + at % 24) for at in range(96)]
    term_weights.encoded(encoder, warming, wanted=sparse != "off")
    encoder.seconds = 0.0
    settings = dataclasses.replace(options.settings, home=options.scratch / f"home-{precision}-{sparse}", precision=precision,
                                   sparse=sparse)
    with ThriftRAG.open("bench", settings=settings, encoder=encoder) as kb:
        since = time.perf_counter()
        report = kb.ingest(folder)
        seconds = time.perf_counter() - since
        with closing(Snapshot(kb.folder, indexes=False)) as snapshot:
            texts = [embedding_text(chunk) for batch in snapshot.all_chunks() for chunk in batch]
    figures = [("files to snapshot", report.chunks / seconds, "passages/s"),
               ("encoder alone", report.chunks / encoder.seconds, "passages/s"),
               ("outside the encoder", 1 - encoder.seconds / seconds, "share of time"),
               ("tokens a passage", report.tokens / report.chunks, "tokens"),
               ("padding", report.padding, "share of work"),
               ("padding unsorted", report.padding_unsorted, "share of work")]
    return [Measurement(f"thriftrag {precision}, {what}", value, unit, report.chunks) for what, value, unit in figures], texts


def _long(options: Options, count: int, cache: ModelCache, on_progress: OnProgress) -> list[Measurement]:
    """One long run with the fastest arithmetic: its pace, and how far memory moves once it is warm."""
    folder = _files(options, count)
    settings = dataclasses.replace(options.settings, home=options.scratch / "home-long")
    with ThriftRAG.open("bench", settings=settings) as kb, Sampler() as sampler:
        since = time.perf_counter()
        report = kb.ingest(folder, on_progress=on_progress)
        seconds = time.perf_counter() - since
    warm = sampler.after(_WARM)
    if options.plots is not None:
        sampler.plot(options.plots / "ingest-memory.png", title=f"Resident memory while {report.chunks:,} passages are ingested")
    return [Measurement(f"long run of {count}, files to snapshot", report.chunks / seconds, "passages/s", report.chunks),
            Measurement("long run, memory after a tenth", warm[0] / 1e6, "MB", 1),
            Measurement("long run, most memory", max(warm) / 1e6, "MB", len(warm)),
            Measurement("long run, growth of memory", max(warm) / warm[0] - 1, "share", len(warm))]


def _sentence_transformers(texts: Sequence[str], model: Path, scratch: Path) -> float:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(model), device="cpu")
    encoder.encode(list(texts[:32]), show_progress_bar=False)
    since = time.perf_counter()
    encoder.encode(list(texts), show_progress_bar=False)
    return time.perf_counter() - since


def _txtai(texts: Sequence[str], model: Path, scratch: Path) -> float:
    from txtai import Embeddings

    embeddings = Embeddings(path=str(model), content=True, gpu=False)
    since = time.perf_counter()
    embeddings.index((number, text, None) for number, text in enumerate(texts))
    embeddings.save(str(scratch / "txtai"))
    return time.perf_counter() - since


def _llama_index(texts: Sequence[str], model: Path, scratch: Path) -> float:
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    encoder = HuggingFaceEmbedding(model_name=str(model), device="cpu")
    since = time.perf_counter()
    index = VectorStoreIndex([TextNode(text=text) for text in texts], embed_model=encoder)
    index.storage_context.persist(str(scratch / "llama-index"))
    return time.perf_counter() - since
