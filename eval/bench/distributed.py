"""What a Ray cluster costs where it cannot gain: one node with this machine's processors, against ingestion without Ray.

Both run from files to a published snapshot, in turns and warm, with the same passages, a text file each; the cluster's
start-up is told by itself. More nodes than machines would share the same processors and say nothing, so there is one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from eval.bench import Measurement, Options
from eval.datasets import load
from indexers import store
from indexers.distributed import cluster
from indexers.encoders import Encoder, open_encoder
from indexers.ingest import ingest
from indexers.parsing import Parsing, Workers
from indexers.snapshot import Snapshot
from rag.models import ModelCache
from rag.settings import Settings
from rag.types import OnProgress, Progress

SIZES = (512,)
ROUNDS = 3
BASELINE = "one machine, files to snapshot"
_SAMPLE = Path(__file__).parents[1] / "data" / "sample"


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    settings = replace(options.settings, ray_address="local", embedding_cache_mb=0)
    count = (options.sizes or SIZES)[-1]
    docs = _files(options, count)
    warm = ["The first call makes kernels. " * (1 + at % 24) for at in range(96)]
    here = open_encoder(settings.embedder, cache=ModelCache(settings.models), precision=settings.precision,
                        threads=settings.threads)
    here.encode(warm)
    seconds: dict[str, list[float]] = {"here": [], "ray": []}
    since = time.perf_counter()
    with cluster(settings) as joined, Workers(settings) as workers:
        connected = time.perf_counter() - since
        since = time.perf_counter()
        joined.encoder.encode(warm[:1])
        ready = time.perf_counter() - since
        joined.encoder.encode(warm)
        for turn in range(ROUNDS):
            on_progress(Progress("rounds", turn, ROUNDS, "rounds"))
            one, other = options.scratch / f"here-{turn}", options.scratch / f"ray-{turn}"
            seconds["here"].append(_seconds(one, docs, here, workers, settings))
            seconds["ray"].append(_seconds(other, docs, joined.encoder, joined.parsing, settings))
            chunks = _require_same(one, other)
    rates = {name: chunks / statistics.median(each) for name, each in seconds.items()}
    return [Measurement(BASELINE, rates["here"], "passages/s", ROUNDS),
            Measurement("Ray, once it runs, files to snapshot", rates["ray"], "passages/s", ROUNDS, rates["ray"] / rates["here"],
                        BASELINE),
            Measurement("Ray, start and connection", connected, "s", 1),
            Measurement("Ray, first actor until it has encoded", ready, "s", 1)]


def _files(options: Options, count: int) -> Path:
    """`count` passages of the data, seeded, one text file each; they repeat with a number where there are too few."""
    passages = [f"{p.title}\n\n{p.text}" for folder in options.data or (_SAMPLE,) for p in load(folder).passages]
    order = np.random.default_rng(options.seed).permutation(len(passages))
    folder = options.scratch / "files"
    folder.mkdir()
    for number, at in enumerate(islice(cycle(order), count)):
        again = f"\n\nCopy {number // len(passages)}." if number >= len(passages) else ""
        (folder / f"{number:07}.txt").write_text(passages[at] + again, encoding="utf-8")
    return folder


def _seconds(folder: Path, docs: Path, encoder: Encoder, parsing: Parsing, settings: Settings) -> float:
    store.create(folder, encoder=encoder.name, dimension=encoder.dimension, chunk_tokens=settings.chunk_tokens)
    since = time.perf_counter()
    ingest(folder, [docs], encoder=encoder, parsing=parsing, settings=settings)
    return time.perf_counter() - since


def _require_same(one: Path, other: Path) -> int:
    """How many chunks there are, once both are known to hold the same with the same vectors."""
    with closing(Snapshot(one)) as first, closing(Snapshot(other)) as second:
        rows: Sequence[int] = first.rows().tolist()
        if first.chunks(rows) != second.chunks(rows) or not np.array_equal(first.vectors(rows), second.vectors(rows)):
            raise AssertionError("the cluster made another collection than this machine")
        return len(rows)
