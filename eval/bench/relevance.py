"""The cross-encoder: pairs a second, what a question waits for it, and what each number of pairs brings.

Every data set is ingested, its questions are retrieved as `ask` would, and the best N candidates by what retrieval knows are read,
for each N of --sizes (default 6, 12 and 24) and for none. Per set and N: how often a sentence that holds the answer and stands
in a gold passage is the likeliest of the pool, and among the three likeliest, of the questions whose pool holds one. Times: `cold`,
when no passage was read before, and `warm`, when all were for another question; the pace over 160 tokens a pair.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.bench import Measurement, Options
from eval.corpus import opened
from eval.datasets import Question, load
from eval.statistics import bootstrap_interval
from optimizers import relevance
from optimizers.crossencoder import reading
from optimizers.crossencoder.encoder import CrossEncoder, open_cross_encoder
from optimizers.pool import Pool, Unit
from optimizers.training.relevance import answerable, open_alone, positive
from rag.errors import ConfigError
from rag.models import ModelCache
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import OnProgress, Progress

TAKES = frozenset({"weights", "limit"})
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
PAIRS = (0, 6, 12, 24)
_QUESTIONS = 120
_TOKENS = 160


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    settings = dataclasses.replace(options.settings, cross_encoder="off", selector="greedy", home=options.home or options.scratch)
    encoder = open_cross_encoder(str(options.weights or "auto"), embedder=settings.embedder, cache=ModelCache(settings.models),
                                 precision=settings.precision, threads=settings.threads)
    if encoder is None:
        raise ConfigError(f"There is no cross-encoder for {settings.embedder}.", hint="Name a file of weights with --weights.")
    sizes = (0, *options.sizes) if options.sizes else PAIRS
    rows: list[Measurement] = []
    by_set: dict[int, list[float]] = {size: [] for size in sizes}
    every: list[tuple[Question, Pool]] = []
    for folder in options.data or (SAMPLE,):
        pools = asked(folder, settings=settings, limit=options.limit or _QUESTIONS, seed=options.seed, on_progress=on_progress)
        every += pools
        for size in sizes:
            on_progress(Progress("read", sizes.index(size), len(sizes), "numbers of pairs", folder.name))
            firsts = [hits for question, pool in pools for hits in found(question, pool, encoder=encoder, pairs=size)]
            for what, depth in (("first", 1), ("among three", 3)):
                values = [float(rank < depth) for rank in firsts]
                if values:
                    mean = float(np.mean(values))
                    rows.append(Measurement(f"{folder.name}, {size} pairs: {what}", mean, "share", len(values),
                                            interval=bootstrap_interval(values, seed=options.seed)))
                    if depth == 1:
                        by_set[size].append(mean)
    rows += [Measurement(f"mean of sets, {size} pairs: first", float(np.mean(shares)), "share", len(shares))
             for size, shares in by_set.items() if shares]
    return rows + timed(encoder, every, sizes=[size for size in sizes if size])


def asked(folder: Path, *, settings: Settings, limit: int, seed: int, on_progress: OnProgress) -> list[tuple[Question, Pool]]:
    dataset = load(folder)
    questions = answerable(dataset, seed=seed)
    kb = opened(dataset, settings=settings, open_collection=open_alone, reader=None, on_progress=on_progress)
    assert isinstance(kb, ThriftRAG)  # what open_alone gave: None comes only of cancelling
    with kb:
        return [(question, kb.pool(question.text)) for question in questions[:limit]]


def found(question: Question, pool: Pool, *, encoder: CrossEncoder, pairs: int) -> list[int]:
    """The place of the first right sentence by its chance, counted from 0; nothing where the pool holds none."""
    read = reading.read(pool, question.text, encoder=encoder, pairs=pairs) if pairs else pool
    chances = relevance.chances(read)
    ranked: Sequence[Unit] = sorted(chances, key=lambda unit: (-chances[unit], unit))
    return [place for place, unit in enumerate(ranked) if positive(pool, question, unit)][:1]


def timed(encoder: CrossEncoder, every: Sequence[tuple[Question, Pool]], *, sizes: Sequence[int]) -> list[Measurement]:
    rows: list[Measurement] = []
    for size in sizes:
        cold, warm, tokens = [], [], 0
        for question, pool in every[:60]:
            passages = [reading.as_read(pool.candidates[i]) for i in reading.first_cut(pool, pairs=size)]
            encoder.forget()
            since = time.perf_counter()
            encoder.score(f"{question.text} really", passages)
            cold.append(time.perf_counter() - since)
            since = time.perf_counter()
            encoder.score(question.text, passages)
            warm.append(time.perf_counter() - since)
            tokens += encoder.tokens([each.text for each in passages])
        for name, spent in (("cold", cold), ("warm", warm)):
            rows += [Measurement(f"{size} pairs, {name}: p{percent}", float(np.percentile(spent, percent)) * 1e3, "ms", len(spent))
                     for percent in (50, 95)]
            rows.append(Measurement(f"{size} pairs, {name}: pace", tokens / _TOKENS / sum(spent), f"pairs/s of {_TOKENS} tokens",
                                    len(spent)))
    return rows
