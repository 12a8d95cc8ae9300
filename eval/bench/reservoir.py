"""Memory on repeated traffic: what the count rule, the calibrated rule and repeated answers save, and what they cost in right
answers.

For each data set (`--data`), its part of `--limit` questions (100 by default, over all sets) fills a memory; twice as many like
them are then asked (`eval.traffic`: rewordings by rule and by the reader with a check, other questions of the same passages, and
near misses) under each way of `eval.repeated`, in one order, each from the same memory. Rows, by way, over all sets: the share of
questions for which the index was searched, seconds a question and seconds before the reader, reader calls, F1, its paired
difference to memory off in points with a 95 % bootstrap interval, and wrong memory: answers that memory served although the index
would have given a right one (F1 of at least .5) and memory did not, as a share of what memory served and of all questions. Then
the share served by the kind of question.

Latency of the trigger: two searches (passages and questions) over `--sizes` made-up vectors each (`eval.bench.dense`), and the
decision; p50, p95 and agreement of the nearest with comparing every vector.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from eval.bench import Measurement, Options
from eval.bench.dense import clustered
from eval.cache import CachingReader
from eval.corpus import FOLDER, opened
from eval.datasets import load
from eval.repeated import RIGHT, WAYS, Outcome, asked, filled
from eval.statistics import bootstrap_interval, paired_difference
from eval.traffic import KINDS, traffic
from indexers.encoders import Vectors
from optimizers.training.relevance import open_alone
from rag.llm.open import open_reader
from rag.models import ModelCache
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import OnProgress, Progress
from retrievers import trigger
from retrievers.nearest import Nearest
from retrievers.vcache import Sigmoid

TAKES = frozenset({"limit"})
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
SIZES = (10_000, 100_000)
_FILL = 100
_QUERIES = 200
_WARM_UP = 20
# Every so many questions every vector is compared; cosines of halves differ by as much.
_COMPARED, _ROUNDING, _BLOCK = 10, 2e-3, 16_384
OFF = "off"


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    found: dict[str, list[Outcome]] = {way: [] for way in WAYS}
    settings = dataclasses.replace(options.settings, home=options.home or options.scratch)
    (settings.home / FOLDER).mkdir(parents=True, exist_ok=True)
    reader = CachingReader(open_reader(settings, cache=ModelCache(settings.models)), settings.home / FOLDER / "reader-calls.sqlite")
    data = options.data or (SAMPLE,)
    try:
        for place, folder in enumerate(data):
            total = options.limit or _FILL
            share = total // len(data) + (place < total % len(data))
            for way, outcomes in _of_set(folder, fill=share, settings=settings, reader=reader, options=options,
                                         on_progress=on_progress).items():
                found[way] += outcomes
    finally:
        reader.end()
    return [*measured(found, seed=options.seed), *latencies(options, on_progress=on_progress)]


def _of_set(folder: Path, *, fill: int, settings: Settings, reader: CachingReader, options: Options,
            on_progress: OnProgress) -> dict[str, list[Outcome]]:
    dataset = load(folder)

    def open_kb() -> ThriftRAG:
        kb = opened(dataset, settings=settings, open_collection=open_alone, reader=reader, on_progress=on_progress)
        assert isinstance(kb, ThriftRAG)  # what open_alone gave: None comes only of cancelling
        return kb

    with open_kb() as kb:
        made = traffic(dataset, fill=fill, ask=2 * fill, seed=options.seed, encode=kb.encoder.encode, reader=reader)
    kept, done = options.scratch / f"{folder.name}.sqlite", [0]
    total = len(made.fill) + len(WAYS) * len(made.asked)

    def tick() -> None:
        done[0] += 1
        on_progress(Progress("ask", done[0], total, "questions", folder.name))

    filled(open_kb, made, keep=kept, tick=tick)
    return {way: asked(open_kb, made.asked, reader=reader, way=way, kept=kept, tick=tick) for way in WAYS}


def measured(found: Mapping[str, Sequence[Outcome]], *, seed: int) -> list[Measurement]:
    """All ways' outcomes stand in one order of questions."""
    off, rows = found[OFF], []
    n = len(off)
    for way, outcomes in found.items():
        for name, unit, own, base in (
                ("index searched", "share", [float(each.searched) for each in outcomes], [float(each.searched) for each in off]),
                ("seconds a question", "s", [each.seconds for each in outcomes], [each.seconds for each in off]),
                ("seconds before the reader", "s", [each.before_s for each in outcomes], [each.before_s for each in off]),
                ("reader calls", "a question", [float(each.calls) for each in outcomes], [float(each.calls) for each in off]),
                ("F1", "points", [100 * each.f1 for each in outcomes], [100 * each.f1 for each in off])):
            value, reference = float(np.mean(own)), float(np.mean(base))
            compared = way != OFF and reference > 0
            rows.append(Measurement(f"{way}: {name}", value, unit, n, value / reference if compared else None,
                                    f"{OFF}: {name}" if compared else None, bootstrap_interval(own, seed=seed)))
        if way == OFF:
            continue
        gap = paired_difference([100 * each.f1 for each in outcomes], [100 * each.f1 for each in off], seed=seed)
        if gap is not None:
            rows.append(Measurement(f"{way}: F1 less that of {OFF}", gap[0], "points", n, interval=gap[1]))
        served = [(each, base) for each, base in zip(outcomes, off, strict=True) if each.served]
        wrong = [float(base.f1 >= RIGHT > each.f1) for each, base in served]
        rows.append(Measurement(f"{way}: wrong memory, of all", sum(wrong) / n, "share", n))
        if served:
            rows.append(Measurement(f"{way}: wrong memory, of what it served", float(np.mean(wrong)), "share", len(served),
                                    interval=bootstrap_interval(wrong, seed=seed)))
        for kind in KINDS:
            own_kind = [float(bool(each.served)) for each in outcomes if each.kind == kind]
            if own_kind:
                rows.append(Measurement(f"{way}: served, {kind}", float(np.mean(own_kind)), "share", len(own_kind)))
    return rows


def latencies(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    rows = []
    for size in options.sizes or SIZES:
        on_progress(Progress("index", 0, size, "vectors"))
        folder = options.scratch / f"memory-{size}"
        stored, questions = clustered(folder, size, questions=200 + _WARM_UP, seed=options.seed)
        index = Nearest(stored.shape[1])
        index.add(range(size), stored)
        index.settle()
        rows += _latency(index, stored, questions, f"trigger over {size:,}")
        shutil.rmtree(folder)
    return rows


def _latency(index: Nearest, stored: NDArray[np.float16], questions: Vectors, name: str) -> list[Measurement]:
    model = trigger.Model(trigger.PASSAGES, (1.0,) * len(trigger.PASSAGES), 0.0, Sigmoid(5.0, 2.0, 0.01, 1000, 900), 5.0, 0.02)
    spent: list[float] = []
    agreed: list[float] = []
    for number, question in enumerate(questions):
        since = perf_counter()
        near = index.search(question, 12)
        past = index.search(question, 3)
        best = near[0][1]
        trigger.calibrated(model, (best, past[0][1], *[0.0] * (len(trigger.PASSAGES) - 2)), error=0.02)
        took = 1e3 * (perf_counter() - since)
        if number >= _WARM_UP:
            spent.append(took)
            if number % _COMPARED == 0:
                agreed.append(float(best >= _exact(stored, question) - _ROUNDING))
    return [Measurement(f"{name}: p50", float(np.percentile(spent, 50)), "ms", len(spent)),
            Measurement(f"{name}: p95", float(np.percentile(spent, 95)), "ms", len(spent)),
            Measurement(f"{name}: nearest found", float(np.mean(agreed)), "share", len(agreed))]


def _exact(stored: NDArray[np.float16], question: Vectors) -> float:
    """The greatest cosine of all, by comparing every vector."""
    return max(float((stored[start:start + _BLOCK].astype(np.float32) @ question).max()) for start in range(0, len(stored), _BLOCK))
