"""What a second look of retrieval adds to the pool of candidates, and what it costs: one look against two, by question.

For the questions of each set whose gold documents are known, at most 200, drawn with the seed (`--limit`): how often the pool holds
all evidence, the share of the evidence that it holds, and how often it holds the answer (of questions that have one which a passage
could hold). Pools of both ways have the same size (`--sizes`, candidates). Differences are paired by question, with 95 % bootstrap
intervals; macro means are over sets. The time is that of the second look alone, in the process of the first, with its indexes warm.

Collections are kept below the evaluation home, so that another run ingests only what is new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from eval.bench import Measurement, Options
from eval.looks import MEASURES, Searched, judged, searched
from eval.origins.opened import loaded
from eval.statistics import macro_mean, mean, paired_difference
from indexers.encoders import open_encoder
from rag.models import ModelCache
from rag.types import OnProgress, Progress
from retrievers.second_look import second_look

TAKES = frozenset({"limit"})
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
SIZES = (12, 24)
_LIMIT = 200
WAYS = ("one look", "two looks")
# Of each way, for each measure, a value a question, None where the measure has none.
Values = Mapping[str, Mapping[str, Sequence[float | None]]]


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    settings = options.settings if options.home is None else dataclasses.replace(options.settings, home=options.home)
    sizes = options.sizes or SIZES
    encoder = open_encoder(settings.embedder, cache=ModelCache(settings.models), precision=settings.precision,
                           threads=settings.threads)
    data = loaded(options.data or (SAMPLE,))
    rows: list[Measurement] = []
    found: dict[int, list[Values]] = {size: [] for size in sizes}
    for number, dataset in enumerate(data):
        on_progress(Progress("look", number, len(data), "sets", dataset.name))
        with searched(dataset, settings=settings, encoder=encoder, k=max(sizes), limit=options.limit or _LIMIT, seed=options.seed,
                      on_progress=on_progress) as one:
            for size in sizes:
                values, cost = measured(one, k=size)
                found[size].append(values)
                rows += [*compared(values, f"{one.name}, {size} candidates", seed=options.seed),
                         *_costs(cost, f"{one.name}, {size} candidates", one.searcher.snapshot.size)]
    if len(data) > 1:
        rows += [row for size in sizes for row in macro(found[size], size, seed=options.seed)]
    return rows


def measured(data: Searched, *, k: int) -> tuple[Values, dict[str, list[float]]]:
    """Values of both ways, and what each second look took: milliseconds, searches, and candidates that it brought."""
    values: dict[str, dict[str, list[float | None]]] = {way: {name: [] for name in MEASURES} for way in WAYS}
    cost: dict[str, list[float]] = {"ms": [], "searches": [], "candidates brought": []}
    for each in [*data.questions[:1], *data.questions]:     # the first one twice: what it takes to warm up is dropped below
        since = perf_counter()
        second = second_look(each.question.text, each.first, searcher=data.searcher, k=k, vector=each.vector)
        spent = (1e3 * (perf_counter() - since), len(second.asked), len(second.brought))
        for name, some in zip(cost, spent, strict=True):
            cost[name].append(some)
        for way, pool in zip(WAYS, (each.first.hits[:k], second.found.hits), strict=True):
            for name, value in judged(each.question, pool).items():
                values[way][name].append(value)
    return ({way: {name: column[1:] for name, column in columns.items()} for way, columns in values.items()},
            {name: column[1:] for name, column in cost.items()})


def compared(values: Values, name: str, *, seed: int) -> Iterator[Measurement]:
    """Each way's mean, and the paired difference with its interval."""
    for measure in MEASURES:
        one, two = (_known(values[way][measure]) for way in WAYS)
        gap = paired_difference(two, one, seed=seed)
        if gap is not None:
            for way, column in zip(WAYS, (one, two), strict=True):
                yield Measurement(f"{name}: {way}", mean(column) or 0.0, measure, len(column))
            yield Measurement(f"{name}: two - one", gap[0], measure, len(one), interval=gap[1])


def macro(sets: Sequence[Values], size: int, *, seed: int) -> Iterator[Measurement]:
    """Macro means over the sets, and that of the paired differences."""
    for measure in MEASURES:
        columns = {way: [_known(values[way][measure]) for values in sets] for way in WAYS}
        gaps = [[two - one for one, two in zip(first, second, strict=True)]
                for first, second in zip(columns[WAYS[0]], columns[WAYS[1]], strict=True)]
        for what, strata in (*columns.items(), ("two - one", gaps)):
            at = macro_mean(strata, seed=seed)
            if at is not None:
                yield Measurement(f"macro mean of {len(sets)} sets, {size} candidates: {what}", at[0], measure,
                                  sum(map(len, strata)), interval=at[1])


def _costs(cost: Mapping[str, Sequence[float]], name: str, chunks: int) -> Iterator[Measurement]:
    for percent in (50, 95):
        yield Measurement(f"{name}, {chunks} chunks: second look p{percent}", float(np.percentile(cost["ms"], percent)), "ms",
                          len(cost["ms"]))
    for what in ("searches", "candidates brought"):
        yield Measurement(f"{name}: {what}", mean(cost[what]) or 0.0, "mean", len(cost[what]))


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]
