"""Fits the chances of the stage `rewrite`: that a candidate is evidence, and that a question is worth rewriting.

    python -m retrievers.training.rewriting --data DIR... --out retrievers/rewriting/rewriting.json

Logistic regressions on the features of `retrievers.rewriting.model`, every data set counting the same. The gate learns from
whether the pool after bridges holds more of the evidence than the first look's, with weights for candidates that were fitted on the
other sets. It opens from the chance on at which the gates fitted on the other sets gain most recall, losses included, macro mean;
of equal ones the highest. Whether all of it holds elsewhere is told by leaving out one set at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eval.datasets import SEED, Question
from eval.looks import Searched, searched
from eval.metrics import ranked_documents, recall_at, sufficiency_at
from eval.origins.opened import loaded
from eval.statistics import mean
from indexers.encoders import open_encoder
from indexers.training.telling import as_command
from optimizers.logistic import fitted
from rag import settings as configuration
from rag.errors import ConfigError, RagError
from rag.models import ModelCache
from rag.settings import Settings
from rag.types import Progress
from retrievers.hybrid import Found
from retrievers.rewriting import gate
from retrievers.rewriting.model import BRIDGE, FEEDBACK, FORMAT, GATE, Chances, Floats
from retrievers.rewriting.search import DEPTH, Met, met, pool

POOL = 20
_LIMIT = 200
_COLUMNS = {"bridge": list(range(len(BRIDGE))), "feedback": [BRIDGE.index(name) for name in FEEDBACK]}


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One question with all that feedback and bridges met. `gold`: which of the candidates are evidence."""

    question: Question
    first: Found
    seen: Met
    features: Floats
    gold: Floats
    shape: tuple[float, ...]

    def chances(self, way: str, weights: Chances) -> Floats:
        return weights.of(self.features[:, _COLUMNS[way]])

    def reached(self, chance: Floats | None) -> tuple[float, float, float]:
        """Recall and sufficiency at `POOL` and recall at half of it; of the first look without chances."""
        hits = self.first.hits if chance is None else pool(self.first, self.seen, chance.tolist(), k=POOL).found.hits
        ranking, gold = ranked_documents([hit.chunk.doc_id for hit in hits]), self.question.evidence
        return (recall_at(ranking, gold, k=POOL), sufficiency_at(ranking, gold, k=POOL), recall_at(ranking, gold, k=POOL // 2))


def examples(data: Searched) -> list[Example]:
    found = []
    for each in data.questions:
        seen = met(each.question.text, each.first, searcher=data.searcher, vector=each.vector, k=POOL, bridges=True)
        gold = np.asarray([chunk.doc_id in each.question.evidence for chunk in seen.chunks], np.float64)
        found.append(Example(each.question, each.first, seen, np.asarray(seen.features, np.float64), gold,
                             gate.shape(each.question.text, each.first, searcher=data.searcher)))
    return found


def fit(sets: Sequence[Sequence[Example]], way: str) -> Chances:
    weights, bias = fitted([(np.concatenate([each.features[:, _COLUMNS[way]] for each in some]),
                             np.concatenate([each.gold for each in some])) for some in sets])
    return Chances(tuple(weights.tolist()), bias)


def gains(some: Sequence[Example], weights: Chances) -> Floats:
    """By question: how much more recall at `POOL` the pool after bridges has."""
    return np.asarray([each.reached(each.chances("bridge", weights))[0] - each.reached(None)[0] for each in some])


def fit_gate(sets: Sequence[Sequence[Example]], gained: Sequence[Floats]) -> Chances:
    weights, bias = fitted([(np.asarray([each.shape for each in some]), (gain > 0).astype(np.float64))
                            for some, gain in zip(sets, gained, strict=True)])
    return Chances(tuple(weights.tolist()), bias)


def threshold(told: Sequence[Floats], gained: Sequence[Floats]) -> float:
    """The chance from which on opening gains most, macro mean over sets, losses included; of equal ones the highest, to three
    digits."""
    levels = [round(float(level), 3) for level in np.arange(0.5, -0.001, -0.005)]
    return max(levels, key=lambda level: (round(sum(float((gain * (chance >= level)).mean())
                                                    for chance, gain in zip(told, gained, strict=True)), 9), level))


def table(sets: Mapping[str, Sequence[Example]], facts: Mapping[str, object]) -> dict[str, object]:
    """What `retrievers.rewriting.model` reads. `facts`: how the weights came about."""
    others = {name: [some for named, some in sets.items() if named != name] for name in sets}
    ways = {way: {name: fit(rest, way) for name, rest in others.items()} for way in _COLUMNS}
    gained = {name: gains(some, ways["bridge"][name]) for name, some in sets.items()}
    told = {name: fit_gate(others[name], [gained[named] for named in sets if named != name]).of([each.shape for each in some])
            for name, some in sets.items()}
    open_from = threshold(list(told.values()), list(gained.values()))
    left_out = {name: {"first look": _means(some, None, ""), **{way: _means(some, ways[way][name], way) for way in _COLUMNS},
                       "opened": round(float((told[name] >= open_from).mean()), 3),
                       "gain kept": [round(float(value), 4) for value in
                                     ((gained[name] * (told[name] >= open_from)).mean(), gained[name].mean())]}
                for name, some in sets.items()}
    every = list(sets.values())
    final = {**{way: fit(every, way) for way in _COLUMNS}, "gate": fit_gate(every, list(gained.values()))}
    names = {"bridge": BRIDGE, "feedback": FEEDBACK, "gate": GATE}
    return {"format": FORMAT, "open_from": open_from,
            **{way: {"weights": dict(zip(names[way], (round(value, 4) for value in final[way].weights), strict=True)),
                     "bias": round(final[way].bias, 4)} for way in names},
            "fitted": {**facts, "pool": POOL, "sets left out": left_out}}


def _means(some: Sequence[Example], weights: Chances | None, way: str) -> dict[str, float]:
    values = [each.reached(None if weights is None else each.chances(way, weights)) for each in some]
    return {name: round(mean(column) or 0.0, 4) for name, column in
            zip((f"recall@{POOL}", f"sufficiency@{POOL}", f"recall@{POOL // 2}"), zip(*values, strict=True), strict=True)}


def run(folders: Sequence[Path], *, settings: Settings, limit: int, seed: int, command: str) -> dict[str, object]:
    """
    Raises:
        ConfigError: fewer than three data sets: to leave one out of two leaves no others.
    """
    if len(folders) < 3:
        raise ConfigError("Weights that hold on other data need at least three data sets.", field="data",
                          hint="Name more with --data.")
    encoder = open_encoder(settings.embedder, cache=ModelCache(settings.models), precision=settings.precision,
                           threads=settings.threads)
    sets = {}
    for dataset in loaded(folders):
        with searched(dataset, settings=settings, encoder=encoder, k=DEPTH, limit=limit, seed=seed, on_progress=_tell) as data:
            sets[dataset.name] = examples(data)
    facts = {"command": command, "data": {name: len(some) for name, some in sets.items()}, "seed": seed, "encoder": encoder.name}
    return table(sets, facts)


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    try:
        settings = configuration.load({} if options.home is None else {"home": options.home})
        with ExitStack() as stack:
            if options.home is None:
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="thriftrag-rewriting-"))
                settings = replace(settings, home=Path(scratch))
            found = run(options.data, settings=settings, limit=options.limit, seed=options.seed,
                        command=as_command("retrievers.training.rewriting", given))
    except RagError as error:
        print(error, file=sys.stderr)
        return 1
    options.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m retrievers.training.rewriting", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", nargs="+", type=Path, required=True, metavar="DIR", help="data sets to fit on")
    add("--out", type=Path, required=True, help="the table that searches read")
    add("--limit", type=int, default=_LIMIT, help=f"questions of each data set at most (default {_LIMIT})")
    add("--seed", type=int, default=SEED)
    add("--home", type=Path, help="where collections are remembered (default: nowhere)")
    return parser


def _tell(progress: Progress) -> None:
    if progress.done in (0, progress.total):
        print(f"{progress.stage} {progress.done}/{progress.total} {progress.unit} {progress.note}".rstrip(), file=sys.stderr,
              flush=True)


if __name__ == "__main__":
    sys.exit(main())
