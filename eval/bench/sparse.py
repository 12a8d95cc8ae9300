"""Sparse search at scale: building, merging, opening, searching with and without pruning, re-ranking, eight bits against floats.

Term weights are made up, with the document frequencies of the data (default: the shipped sample). Words stand for tokens: the most
frequent 150 are left out as stop words, the others numbered by frequency; those beyond the vocabulary of 30,522 share numbers, as
rare words share pieces. A passage takes the words of one of the data's, a random share of them (none to all) exchanged for words
drawn from all passages, and is filled up with such words, and one in twenty from a Zipf distribution over the vocabulary, to
about 120, as expansion does. A weight is the token's own strength, larger for rare ones, times a Gamma variate; those of filled-up
words are smaller. Questions are those of the data, as 6 to 12 of their words, weighted by idf.

Each question goes to every way of searching before the next does. Times are wall times in one thread. TILDE keeps a number in half
precision for each token of the vocabulary and passage; its size is computed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.bench import Measurement, Options
from eval.datasets import load
from indexers import lexical, sparse
from indexers.impacts import Impacts, Query
from indexers.sparse import SparseIndex
from rag.durable import tree_bytes
from rag.types import OnProgress, Progress
from retrievers.sparse import exhaustive, rerank, search, search_batch, search_segments

SIZES = (10_000, 100_000, 1_000_000)
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
VOCABULARY = 30_522
_HALF_BYTES = 2
_STOP_WORDS = 150
_TERMS, _SPREAD = 120, 25
_OWN_MOST = 128                 # words of a passage's own, as encoders cut them
_ZIPF = 1.1
_ZIPF_SHARE = 0.05
_SCALE = 6.0
_BLOCK = 8192
_SEGMENTS = 4
_QUESTIONS = 100
_WARMING = 5
_TIMES = 9
_CANDIDATES = 1000
_FILTERED = 0.1
_FLOAT_UP_TO = 100_000          # all weights as floats are in memory for that
_FLOAT_QUESTIONS = 40
_THREADS = 2

Ask = Callable[[Query], object]


class Passages:
    """Made-up term weights: passage i is the same in every collection of the same seed, however large."""

    def __init__(self, texts: Sequence[str], *, seed: int) -> None:
        bags = [lexical.words(text)[:_OWN_MOST] for text in texts]
        holding = Counter(word for bag in bags for word in set(bag))
        kept = sorted(holding, key=lambda word: (-holding[word], word))[min(_STOP_WORDS, len(holding) // 4):]
        self._number = {word: rank if rank < VOCABULARY else zlib.crc32(word.encode()) % VOCABULARY
                        for rank, word in enumerate(kept)}
        self._bags = [self.tokens(bag) for bag in bags]
        self._all = np.concatenate(self._bags)
        frequency = np.bincount(self._all, minlength=VOCABULARY)
        self.idf = np.log1p(len(bags) / (frequency + 0.5)).astype(np.float32)
        self._seed = seed

    def tokens(self, words: Iterable[str]) -> NDArray[np.int64]:
        """Distinct numbers of the words that have one."""
        return np.unique(np.asarray([self._number[word] for word in words if word in self._number], np.int64))

    def query(self, words: Sequence[str], rng: np.random.Generator) -> Query:
        """6 to 12 tokens: those of the words, filled up with tokens of some passage."""
        own = rng.permutation(self.tokens(words))[:12]
        other = rng.permutation(self._bags[rng.integers(len(self._bags))])
        ids = np.concatenate([own, np.setdiff1d(other, own, assume_unique=True)[:max(0, 6 - len(own))]])
        return ids.astype(np.int32), self.idf[ids]

    def between(self, first: int, last: int) -> Iterator[Impacts]:
        for block in range(first // _BLOCK, -(-last // _BLOCK)):
            counts, tokens, weights = self._made(block)
            ends = np.concatenate([[0], np.cumsum(counts)]).tolist()
            for at in range(max(first - block * _BLOCK, 0), min(last - block * _BLOCK, _BLOCK)):
                yield tokens[ends[at]:ends[at + 1]], weights[ends[at]:ends[at + 1]]

    def _made(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """Tokens of each passage of a block, and all tokens and weights end to end."""
        rng = np.random.default_rng([self._seed, block])
        bags = [self._bags[which] for which in rng.integers(len(self._bags), size=_BLOCK)]
        sizes = np.asarray([len(each) for each in bags])
        own = np.concatenate(bags)
        exchanged = rng.random(len(own)) < np.repeat(rng.random(_BLOCK), sizes)
        own = np.where(exchanged, self._drawn(rng, len(own)), own)
        filled = np.maximum(rng.normal(_TERMS, _SPREAD, _BLOCK) - sizes, 0).astype(np.int64)
        more = self._drawn(rng, int(filled.sum()))
        rare = rng.random(len(more)) < _ZIPF_SHARE
        more[rare] = rng.zipf(_ZIPF, int(rare.sum())) % VOCABULARY
        passage = np.concatenate([np.repeat(np.arange(_BLOCK), sizes), np.repeat(np.arange(_BLOCK), filled)])
        pairs, at = np.unique(passage * VOCABULARY + np.concatenate([own, more]), return_index=True)
        passage, tokens = np.divmod(pairs, VOCABULARY)
        weights = rng.gamma(3.0, 0.1, len(pairs)) * (1 + 0.3 * self.idf[tokens]) * np.where(at < len(own), 1.0, 0.5)
        return np.bincount(passage, minlength=_BLOCK), tokens.astype(np.int32), (weights + 0.01).astype(np.float32)

    def _drawn(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        return self._all[rng.integers(len(self._all), size=count)]


@dataclass(frozen=True, slots=True)
class _Segment:
    rows: NDArray[np.int64]
    live: None
    sparse: SparseIndex


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    data = [load(folder) for folder in options.data or (SAMPLE,)]
    passages = Passages([f"{passage.title}\n{passage.text}" for each in data for passage in each.passages], seed=options.seed)
    rng = np.random.default_rng(options.seed)
    asked = [question.text for each in data for question in each.questions]
    queries = [passages.query(lexical.words(asked[at]), rng) for at in np.resize(rng.permutation(len(asked)), _QUESTIONS)]
    rows = _started(options.scratch)    # this process compiles, too, or builds would be charged for it
    sparse.merge(_folder(options.scratch / "sparse-warm"), [(SparseIndex(options.scratch / "sparse-first"), np.arange(1))])
    for size in options.sizes or SIZES:
        at_size = _At(size, queries, options, on_progress)
        at_size.all(passages)
        rows += at_size.rows
    if options.plots is not None:
        _plot(rows, options.plots / "sparse-search.png")
    return [_against(row, rows) for row in rows]


class _At:
    """All figures of one size."""

    def __init__(self, size: int, queries: Sequence[Query], options: Options, on_progress: OnProgress) -> None:
        self._size = size
        self._queries = queries
        self._folder = options.scratch / f"sparse-{size}"
        self._rng = np.random.default_rng(options.seed)
        self._on_progress = on_progress
        self.rows: list[Measurement] = []

    def all(self, passages: Passages) -> None:
        parts = self._built(passages)
        whole = self._merged(parts)
        self._add("full-vocabulary TILDE", "on disk", VOCABULARY * _HALF_BYTES, "bytes/passage", self._size)
        times = [_seconds(lambda: SparseIndex(whole.path.parent)) for _ in range(_TIMES)]
        self._add("index", "open", _p50(times), "ms", len(times))
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

    def _built(self, passages: Passages) -> list[_Segment]:
        parts: list[_Segment] = []
        seconds, clipped, step = 0.0, 0, -(-self._size // _SEGMENTS)
        for number, first in enumerate(range(0, self._size, step)):
            self._on_progress(Progress(f"build {self._size:,}", first, self._size))
            folder, last = _folder(self._folder / f"part{number}"), min(first + step, self._size)
            made = _Timed(passages.between(first, last))
            since = time.perf_counter()
            facts = sparse.write(folder, made, vocabulary=VOCABULARY, scale=_SCALE)
            seconds += time.perf_counter() - since - made.seconds
            clipped += facts.clipped
            parts.append(_Segment(np.arange(first, last), None, SparseIndex(folder)))
        self._add("index", "build", self._size / seconds, "passages/s", self._size)
        postings = sum(part.sparse.facts.postings for part in parts)
        self._add("index", "terms", postings / self._size, "terms/passage", self._size)
        self._add("index", "weights above the scale", clipped / postings, "share", postings)
        return parts

    def _merged(self, parts: Sequence[_Segment]) -> SparseIndex:
        folder = _folder(self._folder / "merged")
        seconds = _seconds(lambda: sparse.merge(folder, [(part.sparse, np.arange(part.sparse.size)) for part in parts]))
        self._add("index", f"merge of {_SEGMENTS} segments", seconds, "s", self._size)
        self._add("index", "on disk", tree_bytes(folder) / self._size, "bytes/passage", self._size)
        return SparseIndex(folder)

    def _asked(self, ways: Mapping[str, Ask], name: str) -> None:
        """Every question to each way in turn, so that whatever else the machine does meets all of them."""
        self._on_progress(Progress(f"{name}, {self._size:,}", 0, None, "questions"))
        times: dict[str, list[float]] = {way: [] for way in ways}
        for warm in (True, False):
            for query in self._queries[:_WARMING] if warm else self._queries:
                for way, ask in ways.items():
                    seconds = _seconds(partial(ask, query))
                    if not warm:
                        times[way].append(seconds)
        for way, found in times.items():
            self._add(way, f"{name}, p50", _p50(found), "ms", len(found))
            self._add(way, f"{name}, p95", 1e3 * float(np.quantile(found, 0.95)), "ms", len(found))

    def _batches(self, whole: SparseIndex) -> None:
        for threads in (1, _THREADS):
            seconds = _seconds(partial(search_batch, whole, self._queries, k=100, threads=threads))
            self._add("pruned", f"batch for 100, {threads} {'thread' if threads == 1 else 'threads'}", len(self._queries) / seconds,
                      "queries/s", len(self._queries))

    def _overlap(self, passages: Passages, whole: SparseIndex) -> None:
        """How much of the best ten by the weights as they were is among the best ten by their impacts."""
        made = list(passages.between(0, self._size))
        tokens = np.concatenate([ids for ids, _ in made])
        weights = np.concatenate([some for _, some in made])
        counts = np.asarray([len(ids) for ids, _ in made])
        held = np.flatnonzero(counts)
        begins = (np.cumsum(counts) - counts)[held]
        shares = []
        for query in self._queries[:_FLOAT_QUESTIONS]:
            table = np.zeros(VOCABULARY)
            table[query[0]] = query[1]
            scores = np.add.reduceat(table[tokens] * weights, begins)
            best = held[np.argsort(-scores, kind="stable")[:10]]
            shares.append(len(set(best.tolist()) & {position for position, _ in search(whole, query, k=10)}) / len(best))
        self._add("pruned", "overlap@10 of eight bits with floats", float(np.mean(shares)), "share", len(shares))

    def _add(self, way: str, name: str, value: float, unit: str, n: int) -> None:
        self.rows.append(Measurement(f"{way}, {self._size:,} passages: {name}", value, unit, n))


class _Timed:
    """Passes items on and adds up how long they took to come."""

    def __init__(self, items: Iterator[Impacts]) -> None:
        self._items = items
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Impacts]:
        return self

    def __next__(self) -> Impacts:
        since = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - since


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


def _started(scratch: Path) -> list[Measurement]:
    """The first search of a new process, when its loops are still to be compiled and when they are."""
    folder = _folder(scratch / "sparse-first")
    sparse.write(folder, [(np.asarray([7], np.int32), np.ones(1, np.float32))], vocabulary=VOCABULARY, scale=_SCALE)
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


def _seconds(work: Callable[[], object]) -> float:
    since = time.perf_counter()
    work()
    return time.perf_counter() - since


def _p50(seconds: Sequence[float]) -> float:
    return 1e3 * float(np.median(seconds))


def _against(row: Measurement, rows: Sequence[Measurement]) -> Measurement:
    """Set against the row of pruned search, or of our index, of the same size and name."""
    way, _, rest = row.name.partition(", ")
    base = next((other for other in rows if other.name in (f"pruned, {rest}", f"index, {rest}")), None)
    return row if base is None or way in ("pruned", "index") else replace(row, ratio=row.value / base.value, ratio_to=base.name)


def _plot(rows: Sequence[Measurement], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        what, _, name = row.name.partition(" passages: ")
        way, _, size = what.partition(", ")
        if name in ("search for 100, p50", "search for 100, p95"):
            points.setdefault(f"{way}{name[-5:]}", []).append((int(size.replace(",", "")), row.value))
    for label, found in points.items():
        axes.plot(*zip(*found, strict=True), marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel="passages", ylabel="ms", title="Sparse search for 100, one thread")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
