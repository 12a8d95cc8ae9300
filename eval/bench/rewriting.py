"""What rewriting a question adds to retrieval, and what it costs: the question alone, a second look, feedback, bridges, the gate,
and a reader that writes queries.

For the questions of each set whose gold documents are known, at most 200, drawn with the seed (`--limit`): recall and sufficiency
(how often all evidence is there) at 20 documents, and recall at 10, of pools of 20 candidates (`--sizes`, the first of them).
Differences to the question alone are paired by question, with 95 % bootstrap intervals; macro means are over sets. `auto` is
`bridge` where the gate opens, else the question alone. Times are of what follows a first look, in a warm process.

`--reader NAME` adds the way `llm`: the reader of that name is asked for queries about each question whose gate opens. It is slow;
its replies are remembered below the evaluation home. Collections are kept there too, so that another run ingests only what is new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from time import perf_counter

import numpy as np

from eval.bench import Measurement, Options
from eval.bench.second_look import SAMPLE
from eval.cache import CachingReader
from eval.corpus import FOLDER
from eval.looks import Looked, Searched, searched
from eval.metrics import ranked_documents, recall_at, sufficiency_at
from eval.origins.opened import loaded
from eval.statistics import macro_mean, mean, paired_difference
from indexers.encoders import open_encoder
from rag import rewriting
from rag.llm import Reader
from rag.llm.open import open_reader
from rag.models import ModelCache
from rag.settings import Settings
from rag.types import OnProgress, Progress, ScoredChunk, Usage
from retrievers.rewriting.search import DEPTH, rewritten
from retrievers.second_look import second_look

TAKES = frozenset({"limit", "reader"})
_LIMIT = 200
_SIZE = 20
WAYS = ("question alone", "second look", "feedback", "bridge", "auto")
LLM = "llm"
# Of each way, for each measure, a value a question.
Values = Mapping[str, Mapping[str, Sequence[float]]]
Pooled = Callable[[Looked], Sequence[ScoredChunk]]


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    settings = options.settings if options.home is None else dataclasses.replace(options.settings, home=options.home)
    size = options.sizes[0] if options.sizes else _SIZE
    encoder = open_encoder(settings.embedder, cache=ModelCache(settings.models), precision=settings.precision,
                           threads=settings.threads)
    data = loaded(options.data or (SAMPLE,))
    rows: list[Measurement] = []
    found: list[Values] = []
    with ExitStack() as stack:
        reader = _reader(options, settings, stack)
        for number, dataset in enumerate(data):
            on_progress(Progress("rewrite", number, len(data), "sets", dataset.name))
            with searched(dataset, settings=settings, encoder=encoder, k=DEPTH, limit=options.limit or _LIMIT, seed=options.seed,
                          on_progress=on_progress) as one:
                values, costs = measured(one, k=size, reader=reader, on_progress=on_progress)
            found.append(values)
            rows += [*compared(values, one.name, seed=options.seed, size=size), *_costs(costs, one.name)]
    if len(data) > 1:
        rows += macro(found, size, seed=options.seed)
    return rows


def _reader(options: Options, settings: Settings, stack: ExitStack) -> Reader | None:
    if options.reader is None:
        return None
    named = dataclasses.replace(settings, reader=options.reader)
    reader = CachingReader(open_reader(named, cache=ModelCache(settings.models)), settings.home / FOLDER / "reader-calls.sqlite",
                           identity=f"rewriting {options.reader}")
    stack.callback(reader.end)
    return reader


def measures(size: int) -> tuple[str, ...]:
    return (f"recall@{size}", f"sufficiency@{size}", f"recall@{size // 2}")


def measured(data: Searched, *, k: int, reader: Reader | None, on_progress: OnProgress) -> tuple[Values, dict[str, list[float]]]:
    """Values of all ways, and what they took by question."""
    costs: dict[str, list[float]] = {}
    ways = _ways(data, k, reader, costs)
    values: dict[str, dict[str, list[float]]] = {way: {name: [] for name in measures(k)} for way in ways}
    for pooled in ways.values():                # once beforehand: what it takes to warm up is dropped
        pooled(data.questions[0])
    costs.clear()
    for number, each in enumerate(data.questions):
        on_progress(Progress("rewrite", number, len(data.questions), "questions", data.name))
        gold = each.question.evidence
        for way, pooled in ways.items():
            since = perf_counter()
            hits = pooled(each)
            costs.setdefault(f"{way}, ms", []).append(1e3 * (perf_counter() - since))
            ranking = ranked_documents([hit.chunk.doc_id for hit in hits])
            for name, value in zip(measures(k), (recall_at(ranking, gold, k=k), sufficiency_at(ranking, gold, k=k),
                                                 recall_at(ranking, gold, k=k // 2)), strict=True):
                values[way][name].append(value)
    return values, costs


def _ways(data: Searched, k: int, reader: Reader | None, costs: dict[str, list[float]]) -> dict[str, Pooled]:
    searcher = data.searcher

    def alone(each: Looked) -> Sequence[ScoredChunk]:
        return each.first.hits[:k]

    def looked(each: Looked) -> Sequence[ScoredChunk]:
        return second_look(each.question.text, each.first, searcher=searcher, k=k, vector=each.vector).found.hits

    def widened(each: Looked, *, bridges: bool) -> Sequence[ScoredChunk]:
        return rewritten(each.question.text, each.first, searcher=searcher, vector=each.vector, k=k, bridges=bridges).found.hits

    def opens(each: Looked) -> bool:
        settings = dataclasses.replace(Settings(), rewriter="auto")
        asked = rewriting.Asked(each.question.text, each.question.text)
        return rewriting.opened(asked, each.first, searcher=searcher, settings=settings)[0]

    def gated(each: Looked) -> Sequence[ScoredChunk]:
        is_open = opens(each)
        costs.setdefault("auto, share opened", []).append(float(is_open))
        return widened(each, bridges=True) if is_open else alone(each)

    def told(each: Looked) -> Sequence[ScoredChunk]:
        if reader is None or not opens(each):
            return alone(each)
        limits = rewriting.Limits(None, None, None, 0)
        asked = rewriting.proposed(each.question.text, (), reader=reader, settings=Settings(), limits=limits)
        _count(costs, asked)
        return rewritten(each.question.text, each.first, searcher=searcher, vector=each.vector, k=k, bridges=True,
                         queries=asked.queries).found.hits

    found: dict[str, Pooled] = dict(zip(WAYS, (alone, looked, lambda each: widened(each, bridges=False),
                                               lambda each: widened(each, bridges=True), gated), strict=True))
    return found if reader is None else {**found, LLM: told}


def _count(costs: dict[str, list[float]], asked: rewriting.Asked) -> None:
    usage: Usage = asked.usage
    for what, value in (("prompt tokens", usage.prompt_tokens), ("completion tokens", usage.completion_tokens),
                        ("seconds of the reader", usage.llm_seconds), ("queries", len(asked.queries)),
                        ("replies with problems", float("problems" in asked.facts))):
        costs.setdefault(f"{LLM}, {what}", []).append(float(value))


def compared(values: Values, name: str, *, seed: int, size: int) -> Iterator[Measurement]:
    """Each way's mean, and its paired difference to the question alone with the interval."""
    for measure in measures(size):
        base = values[WAYS[0]][measure]
        for way, columns in values.items():
            yield Measurement(f"{name}: {way}", mean(columns[measure]) or 0.0, measure, len(base))
            gap = paired_difference(columns[measure], base, seed=seed)
            if way != WAYS[0] and gap is not None:
                yield Measurement(f"{name}: {way} - {WAYS[0]}", gap[0], measure, len(base), interval=gap[1])


def macro(sets: Sequence[Values], size: int, *, seed: int) -> Iterator[Measurement]:
    """Macro means over the sets, and those of the paired differences to the question alone."""
    for measure in measures(size):
        columns: dict[str, list[Sequence[float]]] = {way: [values[way][measure] for values in sets] for way in sets[0]}
        gaps: dict[str, list[Sequence[float]]] = {
            f"{way} - {WAYS[0]}": [[one - other for one, other in zip(first, second, strict=True)]
                                   for first, second in zip(columns[way], columns[WAYS[0]], strict=True)]
            for way in columns if way != WAYS[0]}
        for what, strata in {**columns, **gaps}.items():
            at = macro_mean(strata, seed=seed)
            if at is not None:
                yield Measurement(f"macro mean of {len(sets)} sets: {what}", at[0], measure, sum(map(len, strata)), interval=at[1])


def _costs(costs: Mapping[str, Sequence[float]], name: str) -> Iterator[Measurement]:
    for what, column in costs.items():
        if what.endswith(", ms"):
            yield Measurement(f"{name}: {what.removesuffix(', ms')} p50", float(np.percentile(column, 50)), "ms", len(column))
        else:
            yield Measurement(f"{name}: {what}", mean(column) or 0.0, "mean", len(column))
