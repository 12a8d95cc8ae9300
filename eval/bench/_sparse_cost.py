"""Part of the sparse bench: what term weights cost at ingestion."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from eval import timing
from eval.bench import Measurement
from eval.datasets import Passage
from indexers.encoders.openvino import OpenVinoEncoder
from indexers.encoders.term_weights_openvino import OpenVinoTermWeights
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import OnProgress, Progress

ROUNDS = 5


def costs(weighing: OpenVinoTermWeights, plain: OpenVinoEncoder, texts: Sequence[str], passages: Sequence[Passage], *,
          settings: Settings, scratch: Path, on_progress: OnProgress, rounds: int = ROUNDS) -> Iterator[Measurement]:
    """Encoding, and ingestion from lines to a published snapshot, with term weights and without, in turn; `rounds` times after one
    to warm up. Ratios are medians of those of each round."""
    lines = [passage.line() for passage in passages]
    taken: dict[str, list[float]] = {"encode": [], "encode with terms": [], "ingest": [], "ingest with terms": []}
    for number in range(rounds + 1):
        on_progress(Progress("cost", number, rounds + 1, "rounds"))
        some: dict[str, Callable[[], object]] = {
            "encode": partial(plain.encode, texts), "encode with terms": partial(weighing.encode_with_terms, texts),
            "ingest": partial(_ingest, plain, lines, settings, scratch / f"plain-{number}"),
            "ingest with terms": partial(_ingest, weighing, lines, settings, scratch / f"terms-{number}")}
        # Every second round the other way round, so that neither always comes second.
        for name in sorted(some, key=lambda name: (name.startswith("ingest"), name.endswith("terms") != bool(number % 2))):
            spent = timing.seconds(some[name])
            if number:
                taken[name].append(spent)
    for what, count in (("encode", len(texts)), ("ingest", len(passages))):
        alone, both = (np.asarray(taken[name]) for name in (what, f"{what} with terms"))
        yield Measurement(f"{what}, dense alone", count / float(np.median(alone)), "passages/s", rounds)
        yield Measurement(f"{what}, dense and terms", count / float(np.median(both)), "passages/s", rounds)
        yield Measurement(f"{what}, time of dense and terms over dense alone", float(np.median(both / alone)), "ratio", rounds)


def _ingest(encoder: OpenVinoEncoder, lines: Sequence[str], settings: Settings, home: Path) -> None:
    """Into a new collection, below a home of its own, so that nothing is known from before."""
    with ThriftRAG.open("cost", settings=dataclasses.replace(settings, home=home), encoder=encoder) as kb:
        kb.ingest(lines=lines)
