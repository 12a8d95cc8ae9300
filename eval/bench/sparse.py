"""Sparse search: what an index keeps of the term weights, what they cost, and searching at scale, with and without pruning.

The term weights are those of the model (`--weights`, or as shipped) for the passages of the data (default: the shipped sample), the
questions those of the data. Larger collections have made-up passages after the real ones: see `eval.origins.grown`.

- What is kept: bytes and postings of all real passages in one index, against TILDE, which keeps a number in half precision for
  each token of the vocabulary and passage (computed); and the overlap of the best ten by eight bits with those by floats.
- At scale: building, merging, opening, searching and re-ranking. Each question goes to every way of searching before the next
  does. Times are wall times in one thread.
- Cost: encoding and ingestion with term weights and without, in turn.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval import timing
from eval.bench import Measurement, Options
from eval.bench._sparse_cost import costs
from eval.bench._sparse_kept import HALF_BYTES, joined, kept
from eval.origins.chunked import chunked
from eval.origins.encoded import Terms, terms
from eval.origins.grown import Grown
from eval.origins.opened import loaded, opened
from indexers import sparse
from indexers.impacts import Query
from indexers.sparse import SparseIndex
from rag.durable import tree_bytes
from rag.errors import ConfigError
from rag.types import OnProgress, Progress
from retrievers.sparse import exhaustive, rerank, search, search_batch, search_segments

TAKES = frozenset({"weights", "limit"})
SIZES = (10_000, 100_000, 1_000_000)
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
_LIMIT = 300                    # questions of each set, for the overlap
_SEGMENTS = 4
_QUESTIONS = 200
_WARMING = 5
_TIMES = 9
_CANDIDATES = 1000
_FILTERED = 0.1
_FLOAT_UP_TO = 100_000          # all weights as floats are in memory for that
_FLOAT_QUESTIONS = 40
_THREADS = 2
_COST_TEXTS = 512

Ask = Callable[[Query], object]


@dataclass(frozen=True, slots=True)
class Model:
    """What an index must know of its term weights."""

    vocabulary: int
    scale: float


@dataclass(frozen=True, slots=True)
class _Segment:
    rows: NDArray[np.int64]
    live: None
    sparse: SparseIndex


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    origins = opened(options.settings, scratch=options.scratch, weights=options.weights, home=options.home, on_progress=on_progress)
    weighing = origins.weighing
    if weighing is None:
        raise ConfigError(f"There are no term weights for {origins.encoder.name}.", field="weights", code="no_term_weights",
                          hint="Name a file with --weights: `python -m indexers.training.tilde` makes one.")
    data = loaded(options.data or (SAMPLE,))
    sets = [chunked(dataset, encoder=weighing, chunk_tokens=options.settings.chunk_tokens, limit=options.limit or _LIMIT,
                    seed=options.seed) for dataset in data]
    weighted = [terms(weighing, origins.folder, each, kept=origins.kept, on_progress=on_progress) for each in sets]
    rows = list(kept(weighted, weighing.terms, scratch=options.scratch))
    rng = np.random.default_rng(options.seed)
    every = joined([each.passages for each in weighted])
    passages = Grown(every, vocabulary=weighing.terms.size, seed=options.seed)
    rows += at_sizes(passages, Model(weighing.terms.size, weighing.terms.facts.scale), _queries(weighted, rng), options,
                     on_progress=on_progress)
    texts = [text for each in sets for text in each.texts]
    documents = [passage for dataset in data for passage in dataset.passages if passage.text.strip()]
    rows += costs(weighing, origins.plain(), [texts[at] for at in rng.permutation(len(texts))[:_COST_TEXTS]],
                  [documents[at] for at in rng.permutation(len(documents))[:_COST_TEXTS]], settings=options.settings,
                  scratch=options.scratch, on_progress=on_progress)
    return rows


def _queries(sets: Sequence[Terms], rng: np.random.Generator) -> list[Query]:
    """Some questions of the data that have terms."""
    found = [query for each in sets for number in range(each.queries.size) if len((query := each.queries.of(number))[0])]
    return [found[at] for at in np.resize(rng.permutation(len(found)), _QUESTIONS)]


def at_sizes(passages: Grown, model: Model, queries: Sequence[Query], options: Options, *, on_progress: OnProgress
             ) -> list[Measurement]:
    """Building and searching collections of the sizes of `options`; empty data has no passages and gives none."""
    rows = _started(options.scratch, model)     # this process compiles, too, or builds would be charged for it
    sparse.merge(_folder(options.scratch / "sparse-warm"), [(SparseIndex(options.scratch / "sparse-first"), np.arange(1))])
    for size in options.sizes or SIZES:
        at_size = _At(size, model, queries, options, on_progress)
        at_size.all(passages)
        rows += at_size.rows
    if options.plots is not None:
        timing.plot_by_size(rows, options.plots / "sparse-search.png", what="passages",
                            lines={"search for 100, p50": ", p50", "search for 100, p95": ", p95"},
                            title="Sparse search for 100, one thread")
    return timing.against(rows, ("pruned", "index"))


class _At:
    """All figures of one size."""

    def __init__(self, size: int, model: Model, queries: Sequence[Query], options: Options, on_progress: OnProgress) -> None:
        self._size = size
        self._model = model
        self._queries = queries
        self._folder = options.scratch / f"sparse-{size}"
        self._rng = np.random.default_rng(options.seed)
        self._on_progress = on_progress
        self.rows: list[Measurement] = []

    def all(self, passages: Grown) -> None:
        parts = self._built(passages)
        whole = self._merged(parts)
        self._add("full-vocabulary TILDE", "on disk", self._model.vocabulary * HALF_BYTES, "bytes/passage", self._size)
        times = [timing.seconds(lambda: SparseIndex(whole.path.parent)) for _ in range(_TIMES)]
        self._add("index", "open", timing.p50(times), "ms", len(times))
        some = self._rng.random(self._size) < _FILTERED
        for k, mask, name in ((10, None, "search for 10"), (100, None, "search for 100"),
                              (10, some, f"search for 10 in {_FILTERED:.0%} of the passages")):
            self._asked({"pruned": partial(search, whole, k=k, allowed=mask),
                         "exhaustive": partial(exhaustive, whole, k=k, allowed=mask)}, name)
        self._asked({"pruned": partial(search_segments, parts, k=100)}, f"search for 100 in {_SEGMENTS} segments")
        candidates = self._rng.choice(self._size, min(_CANDIDATES, self._size), replace=False)
        self._asked({"pruned": lambda query: rerank(whole, query, candidates)}, f"re-rank {len(candidates):,}")
        self._batches(whole)
        if self._size <= _FLOAT_UP_TO:
            self._overlap(passages, whole)

    def _built(self, passages: Grown) -> list[_Segment]:
        parts: list[_Segment] = []
        seconds, step = 0.0, -(-self._size // _SEGMENTS)
        for number, first in enumerate(range(0, self._size, step)):
            self._on_progress(Progress(f"build {self._size:,}", first, self._size))
            folder, last = _folder(self._folder / f"part{number}"), min(first + step, self._size)
            made = timing.Timed(passages.between(first, last))
            spent = timing.seconds(partial(sparse.write, folder, made, vocabulary=self._model.vocabulary, scale=self._model.scale))
            seconds += spent - made.seconds
            parts.append(_Segment(np.arange(first, last), None, SparseIndex(folder)))
        self._add("index", "build", self._size / seconds, "passages/s", self._size)
        postings = sum(part.sparse.facts.postings for part in parts)
        self._add("index", "terms", postings / self._size, "terms/passage", self._size)
        self._add("index", "weights above the scale", sum(part.sparse.clipped for part in parts) / postings, "share", postings)
        return parts

    def _merged(self, parts: Sequence[_Segment]) -> SparseIndex:
        folder = _folder(self._folder / "merged")
        seconds = timing.seconds(lambda: sparse.merge(folder, [(part.sparse, np.arange(part.sparse.size)) for part in parts]))
        self._add("index", f"merge of {_SEGMENTS} segments", seconds, "s", self._size)
        self._add("index", "on disk", tree_bytes(folder) / self._size, "bytes/passage", self._size)
        return SparseIndex(folder)

    def _asked(self, ways: Mapping[str, Ask], name: str) -> None:
        self._on_progress(Progress(f"{name}, {self._size:,}", 0, None, "questions"))
        for way, found in timing.interleaved(ways, self._queries, warming=_WARMING).items():
            self._add(way, f"{name}, p50", timing.p50(found), "ms", len(found))
            self._add(way, f"{name}, p95", timing.p95(found), "ms", len(found))

    def _batches(self, whole: SparseIndex) -> None:
        for threads in (1, _THREADS):
            seconds = timing.seconds(partial(search_batch, whole, self._queries, k=100, threads=threads))
            self._add("pruned", f"batch for 100, {threads} {'thread' if threads == 1 else 'threads'}", len(self._queries) / seconds,
                      "queries/s", len(self._queries))

    def _overlap(self, passages: Grown, whole: SparseIndex) -> None:
        """How much of the best ten by the weights as they were is among the best ten by their impacts."""
        made = list(passages.between(0, self._size))
        tokens = np.concatenate([ids for ids, _ in made])
        weights = np.concatenate([some for _, some in made])
        counts = np.asarray([len(ids) for ids, _ in made])
        held = np.flatnonzero(counts)
        begins = (np.cumsum(counts) - counts)[held]
        shares = []
        for query in self._queries[:_FLOAT_QUESTIONS]:
            table = np.zeros(self._model.vocabulary)
            table[query[0]] = query[1]
            scores = np.add.reduceat(table[tokens] * weights, begins)
            best = held[np.argsort(-scores, kind="stable")[:10]]
            shares.append(len(set(best.tolist()) & {position for position, _ in search(whole, query, k=10)}) / len(best))
        self._add("pruned", "overlap@10 of eight bits with floats", float(np.mean(shares)), "share", len(shares))

    def _add(self, way: str, name: str, value: float, unit: str, n: int) -> None:
        self.rows.append(Measurement(f"{way}, {self._size:,} passages: {name}", value, unit, n))


_FIRST_SEARCH = """
import sys, time, numpy as np
from pathlib import Path
from indexers.sparse import SparseIndex
from retrievers.sparse import search
index = SparseIndex(Path(sys.argv[1]))
since = time.perf_counter()
search(index, (np.asarray([7], np.int32), np.ones(1, np.float32)), k=1)
print(time.perf_counter() - since)
"""


def _started(scratch: Path, model: Model) -> list[Measurement]:
    """The first search of a new process, when its loops are still to be compiled and when they are."""
    folder = _folder(scratch / "sparse-first")
    sparse.write(folder, [(np.asarray([7], np.int32), np.ones(1, np.float32))], vocabulary=model.vocabulary, scale=model.scale)
    cache = {"NUMBA_CACHE_DIR": str(folder / "cache")}
    rows = []
    for name in ("compiling", "compiled before"):
        done = subprocess.run([sys.executable, "-c", _FIRST_SEARCH, str(folder)], env={**os.environ, **cache}, check=True,
                              capture_output=True, text=True)
        rows.append(Measurement(f"first search of a process, {name}", float(done.stdout), "s", 1))
    return rows


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
