"""How long each selector takes to choose a context, by the size of its pool and the budget, against rank-order fill.

The pools are those that real questions get: the passages of the data are ingested, the candidates come from hybrid search, and
tokens are counted by the reader's own tokenizer, whose weights are not loaded. Retrieving and encoding are not in the figures. On
each question all selectors run one after the other, so that the machine's moods meet all of them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.bench import Measurement, Options
from eval.datasets import Question, load, sampled
from optimizers import SELECTORS
from optimizers.context import render
from optimizers.pool import Pool, Selector
from rag.thriftrag import ThriftRAG
from rag.tokens import TokenCounter
from rag.types import OnProgress, Progress

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
SIZES = (12, 24, 50)
BUDGETS = (256, 1024)
BASELINE = "topk"
_QUESTIONS = 60
# The search of CARROT pays for a model's reading of each of these; the built-in reward costs next to nothing.
_COUNTED = ("carrot",)


@dataclass(frozen=True, slots=True)
class Asked:
    question: Question
    pool: Pool


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    sizes = options.sizes or SIZES
    with opened(options, candidates=sizes[-1]) as kb:
        rows: list[Measurement] = []
        pools = [row.pool for row in asked(kb, options, on_progress)]
        for size in sizes:
            on_progress(Progress("select", sizes.index(size), len(sizes), "sizes", f"{size} candidates"))
            held = [Pool(pool.candidates[:size], pool.term_weights) for pool in pools if len(pool.candidates) >= size]
            for budget in BUDGETS:
                rows += measured(held, counter=kb.reader.tokenizer, budget=budget, name=f"{size} candidates, {budget} tokens")
    return rows


def measured(pools: Sequence[Pool], *, counter: TokenCounter, budget: int, name: str,
             selectors: Mapping[str, Selector] = SELECTORS) -> list[Measurement]:
    """Median and 95th percentile of each selector in milliseconds, over the pools; nothing for no pools."""
    times: dict[str, list[float]] = {selector: [] for selector in selectors}
    counts: dict[str, list[int]] = {selector: [] for selector in _COUNTED}
    for pool in [*pools[:1], *pools]:      # the first one twice: what it takes to warm up is dropped below
        for selector, choose in selectors.items():
            since = time.perf_counter()
            found = choose(pool, budget=budget, stop=lambda: False, render=lambda extracts: render(extracts, counter=counter))
            times[selector].append((time.perf_counter() - since) * 1e3)
            if selector in counts:
                counts[selector].append(found.evaluations)
    rows = [Measurement(f"{selector}, {name}: {what}", float(np.percentile(spent[1:], percent)), "ms", len(pools))
            for selector, spent in times.items() if pools for what, percent in (("p50", 50), ("p95", 95))]
    rows += [Measurement(f"{selector}, {name}: scored", float(np.mean(seen[1:])), "combinations", len(pools))
             for selector, seen in counts.items() if len(seen) > 1]
    return [_against_baseline(row, rows) for row in rows]


def _against_baseline(row: Measurement, rows: Iterable[Measurement]) -> Measurement:
    name = f"{BASELINE},{row.name.partition(',')[2]}"
    base = next((other.value for other in rows if other.name == name), 0.0)
    if row.name == name or not base:
        return row
    return dataclasses.replace(row, ratio=row.value / base, ratio_to=name)


def opened(options: Options, *, candidates: int) -> ThriftRAG:
    return ThriftRAG.open("selectors", settings=dataclasses.replace(options.settings, candidates=candidates, mode="hybrid"))


def asked(kb: ThriftRAG, options: Options, on_progress: OnProgress) -> list[Asked]:
    """Some questions, drawn by the seed from all the data, with the pool of each."""
    data = [load(folder) for folder in options.data or (SAMPLE,)]
    # Data sets may use the same ids.
    lines = (dataclasses.replace(passage, id=f"{number}/{passage.id}").line() for number, dataset in enumerate(data)
             for passage in dataset.passages if passage.text.strip())
    kb.ingest(lines=lines, on_progress=on_progress)
    every = [dataclasses.replace(question, evidence=tuple(f"{number}/{name}" for name in question.evidence))
             for number, dataset in enumerate(data) for question in dataset.questions]
    questions = sampled(every, seed=options.seed)[:_QUESTIONS]
    found = []
    for done, question in enumerate(questions):
        on_progress(Progress("retrieve", done, len(questions), "questions"))
        found.append(Asked(question, kb.pool(question.text)))
    return found
