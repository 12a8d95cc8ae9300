"""Dense indexes of one segment: build time, disk, memory, opening, search time and recall of each kind, with and without masks.

The vectors are made up, because few have a million passages at hand, but made to behave like 384-dimensional MiniLM vectors of
real ones: each is the sum of a topic, a subject within it, a theme within that, a source within that, a form shared across
topics, and something of its own, all drawn from one Gaussian whose spectrum decays as that of the real ones does; popularity
is log-normal. The population of parts is fixed, so that a larger sample is a denser one. On 10,000 and 40,000 vectors the
similarity of the 1st, 10th, 100th and 1,000th neighbour, the local intrinsic dimension and the recall of HNSW and IVF at equal
settings are near those of as many real passages, questions included. With dataset folders the real vectors of their passages
are measured too.

One query runs in one thread, as it does in the product; a batch is split over the cores.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.bench import Measurement, Options
from eval.datasets import load
from indexers import dense, vectors
from indexers.dense import DenseIndex
from indexers.encoders import Vectors, open_encoder
from rag.models import ModelCache
from rag.types import OnProgress, Progress

SIZES = (10_000, 100_000)
DIMENSION = 384
QUESTIONS = 200
# Parts at each level, and the share of a vector's variance that they account for; the rest is its own.
_LEVELS = ((100, 0.08), (1000, 0.12), (5000, 0.15), (15_000, 0.2))
_FORMS, _FORM_SHARE = 100, 0.1
_SPREAD = 1.5                   # standard deviation of the logarithm of popularity
_BLOCK = 16_384
_TIMES, _WARM_UP, _BATCH = 100, 10, 64
_REAL = 20_000                  # passages encoded at most
_SHARES = (0.5, 0.01)           # of the positions that a mask leaves
# Flat builds nothing and holds nothing: a ratio to it says nothing.
_WITHOUT_RATIO = ("build", "memory of its own, for a million")


@dataclass(frozen=True, slots=True)
class Set:
    """Vectors in a segment's folder, unit questions of shape (n, dimension), and masks by the share they leave."""

    name: str
    folder: Path
    stored: vectors.Stored
    questions: Vectors
    masks: dict[float, NDArray[np.bool_]]


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    rows: list[Measurement] = []
    for make in _sets(options, on_progress):
        given = make()
        truth: dict[str, NDArray[np.int64]] = {}
        for kind in dense.KINDS:
            on_progress(Progress(f"{given.name} {kind}", 0, len(given.stored), "vectors"))
            rows += _measured(kind, given, truth, options.seed)
        shutil.rmtree(given.folder)
    rows = [_against_flat(row, rows) for row in rows]
    if options.plots is not None:
        _plot(rows, options.plots / "dense-search.png")
    return rows


def clustered(folder: Path, size: int, *, questions: int, seed: int) -> tuple[vectors.Stored, Vectors]:
    """`size` vectors written below `folder` and further ones to ask with, of the population described above."""
    rng = np.random.default_rng(seed)
    place = np.arange(1, DIMENSION + 1)
    scale = np.sqrt((1 + 8 / place) * np.exp(-place / 125))
    mixing = (scale / np.linalg.norm(scale))[:, None] * np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0]
    mixing = mixing.astype(np.float32)

    def drawn(count: int, share: float) -> Vectors:
        found: Vectors = rng.standard_normal((count, DIMENSION), np.float32) @ mixing * np.float32(share**0.5)
        return found

    def popular(parts: int, count: int) -> NDArray[np.int64]:
        weights = rng.lognormal(0, _SPREAD, parts)
        return rng.choice(parts, count, p=weights / weights.sum())

    parts = np.zeros((1, DIMENSION), np.float32)
    for count, share in _LEVELS:
        parts = parts[popular(len(parts), count)] + drawn(count, share)
    forms = drawn(_FORMS, _FORM_SHARE)
    own = 1 - _FORM_SHARE - sum(share for _, share in _LEVELS)
    of_part, of_form = popular(len(parts), size + questions), popular(_FORMS, size + questions)

    def made(start: int, end: int) -> Vectors:
        block = parts[of_part[start:end]] + forms[of_form[start:end]] + drawn(end - start, own)
        unit: Vectors = block / np.linalg.norm(block, axis=1, keepdims=True)
        return unit

    pieces = (made(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK))
    folder.mkdir()
    return vectors.write(folder, pieces, size=size, dimension=DIMENSION), made(size, size + questions)


def _sets(options: Options, on_progress: OnProgress) -> Iterator[Callable[[], Set]]:
    """Made one at a time: each fills the disk until it is measured."""
    if options.data:
        yield lambda: _encoded(options, on_progress)
    for size in options.sizes or SIZES:
        def make(size: int = size) -> Set:
            folder = options.scratch / f"clustered-{size}"
            return _set(f"{size:,}", folder, *clustered(folder, size, questions=QUESTIONS, seed=options.seed), options.seed)
        yield make


def _encoded(options: Options, on_progress: OnProgress) -> Set:
    """Real passages and questions of the data sets, shuffled."""
    datasets = [load(folder) for folder in options.data]
    rng = np.random.default_rng(options.seed)
    passages = sorted({f"{passage.title}\n{passage.text}" for dataset in datasets for passage in dataset.passages})
    questions = sorted({question.text for dataset in datasets for question in dataset.questions})
    passages = [passages[i] for i in rng.permutation(len(passages))[:_REAL]]
    questions = [questions[i] for i in rng.permutation(len(questions))[:QUESTIONS]]
    encoder = open_encoder(options.settings.embedder, cache=ModelCache(options.settings.models), threads=options.settings.threads)
    folder = options.scratch / "encoded"
    folder.mkdir()
    encoded = encoder.encode(passages, on_batch=lambda done: on_progress(Progress("encode", done, len(passages), "passages")))
    stored = vectors.write(folder, [encoded], size=len(passages), dimension=encoder.dimension)
    return _set(f"{len(passages):,} real", folder, stored, encoder.encode(questions), options.seed)


def _set(name: str, folder: Path, stored: vectors.Stored, questions: Vectors, seed: int) -> Set:
    rng = np.random.default_rng(seed)
    return Set(name, folder, stored, questions, {share: rng.random(len(stored)) < share for share in _SHARES})


def _measured(kind: str, given: Set, truth: dict[str, NDArray[np.int64]], seed: int) -> list[Measurement]:
    """`truth`: the positions that flat found, by what was asked; it is measured first and fills them in."""
    rows: list[Measurement] = []

    def add(what: str, value: float, unit: str, n: int) -> None:
        rows.append(Measurement(f"{given.name} {kind}: {what}", value, unit, n))

    def searched(what: str, k: int, allowed: NDArray[np.bool_] | None = None) -> None:
        _, found = index.search(given.questions, k, allowed=allowed)
        best = truth.setdefault(f"{what} {k}", found)
        held = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), best.tolist(), strict=True))
        add(f"recall@{k}{what}", held / best.size, "", len(best))
        times = _times(lambda i: index.search(given.questions[i:i + 1], k, allowed=allowed), len(given.questions))
        add(f"best {k}{what}, p50", float(np.percentile(times, 50)), "ms", len(times))
        add(f"best {k}{what}, p95", float(np.percentile(times, 95)), "ms", len(times))

    since = time.perf_counter()
    path = dense.write(given.folder, given.stored, kind=kind, seed=seed)
    add("build", time.perf_counter() - since, "s", len(given.stored))
    on_disk = path.stat().st_size + given.stored.nbytes
    add("on disk, vectors included", on_disk / len(given.stored), "bytes/vector", len(given.stored))
    rows += [dataclasses.replace(row, name=f"{given.name} {kind}: {row.name}") for row in _memory(given)]
    index = DenseIndex(given.folder, given.stored)
    opening = _times(lambda _: DenseIndex(given.folder, vectors.read(given.folder)), 1, times=9, warm_up=1)
    add("open", float(np.median(opening)), "ms", 9)
    searched("", 10)
    searched("", 100)
    for share, mask in given.masks.items():
        searched(f" of {share:.0%}", 10, mask)
    batch = given.questions[:_BATCH]
    seconds = np.median(_times(lambda _: index.search(batch, 10), 1, times=5, warm_up=1)) / 1e3
    add(f"batches of {len(batch)}", len(batch) / float(seconds), "queries/s", 5)
    return rows


def _times(work: Callable[[int], object], questions: int, *, times: int = _TIMES, warm_up: int = _WARM_UP) -> list[float]:
    """Milliseconds of each call, after some that do not count."""
    found = []
    for i in range(-warm_up, times):
        since = time.perf_counter()
        work(i % questions)
        if i >= 0:
            found.append((time.perf_counter() - since) * 1e3)
    return found


def _memory(given: Set) -> list[Measurement]:
    """Memory of a fresh process that opened the index and searched it, less that of one that only imported it: what it holds
    of its own, and which pages of mapped files it touched, which the system shares and may take back."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return []
    np.save(given.folder / "questions.npy", given.questions)
    found = subprocess.run([sys.executable, "-c", _CHILD, str(given.folder)], capture_output=True, text=True, check=True).stdout
    own, mapped = (int(value) for value in re.findall(r"-?\d+", found))
    millions = len(given.stored) / 1e6
    return [Measurement(f"memory of its own{what}, for a million", value / 1024 / millions, "MiB", len(given.stored))
            for what, value in (("", own), (" and pages of files touched", own + mapped))]


_CHILD = """
import re, sys
from pathlib import Path
import numpy as np
from indexers import vectors
from indexers.dense import DenseIndex, faiss
folder = Path(sys.argv[1])
questions = np.load(folder / "questions.npy")
faiss()
def held():
    status = Path("/proc/self/status").read_text()
    return [int(re.search(rf"{name}:\\s+(\\d+)", status)[1]) for name in ("RssAnon", "RssFile")]
before = held()
index = DenseIndex(folder, vectors.read(folder))
for i in range(100):
    index.search(questions[i % len(questions)][None, :], 10)
print([after - start for after, start in zip(held(), before)])
"""


def _against_flat(row: Measurement, rows: Sequence[Measurement]) -> Measurement:
    of, _, what = row.name.partition(": ")
    name = f"{of.rpartition(' ')[0]} flat: {what}"
    base = next((other.value for other in rows if other.name == name), 0.0)
    if row.name == name or what in _WITHOUT_RATIO or not base:
        return row
    return dataclasses.replace(row, ratio=row.value / base, ratio_to=name)


def _plot(rows: Sequence[Measurement], path: Path) -> None:
    from matplotlib.figure import Figure

    values = {row.name: row.value for row in rows}
    sizes = sorted({row.n for row in rows if row.name == f"{row.n:,} flat: build"})
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for kind in dense.KINDS:
        times = [values[f"{size:,} {kind}: best 10, p50"] for size in sizes]
        axes.plot(sizes, times, marker="o", label=kind)
        for size, ms in zip(sizes, times, strict=True):
            recall = values[f"{size:,} {kind}: recall@10"]
            axes.annotate(f"{recall:.3f}", (size, ms), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="vectors in the segment", ylabel="ms, median of one query",
             title="Best 10 by kind, with recall@10")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
