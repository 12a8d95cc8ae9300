"""Fits the chance that a candidate of two looks is evidence:

    python -m retrievers.training.second_look --data DIR... --out retrievers/second_look.json

Logistic regression on the features of `retrievers.second_look_model`, every data set counting the same, with a ridge of weight 1.
It is fitted on the candidates that compete for the last quarter of the pool; those that the first look keeps in any case teach
nothing. Whether it holds elsewhere is told by leaving out one set at a time: weights fitted on the others fill the pools for it,
beside the pools of one look.
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
from eval.looks import MEASURES, Searched, judged, searched
from eval.origins.opened import loaded
from eval.statistics import mean
from indexers.encoders import open_encoder
from indexers.training.telling import as_command
from optimizers.logistic import newton
from rag import settings as configuration
from rag.errors import ConfigError, RagError
from rag.models import ModelCache
from rag.settings import Settings
from rag.types import Progress
from retrievers.hybrid import Found
from retrievers.second_look import Leads, chosen, kept_of, leads
from retrievers.second_look_model import FEATURES, FORMAT, Chances, Floats

POOL = 24
_LIMIT = 200
_RIDGE = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One question with all that two looks met. `features`: (candidates, features), of those that compete; `gold`: which of these
    are evidence."""

    question: Question
    first: Found
    met: Leads
    features: Floats
    gold: Floats


def examples(data: Searched, *, k: int = POOL) -> list[Example]:
    found = []
    for each in data.questions:
        first = Found(each.first.hits[:k], each.first.rows[:k], each.first.plan)
        met = leads(each.question.text, first, searcher=data.searcher, vector=each.vector)
        kept = set(first.rows[:kept_of(k)])
        at = [place for place, row in enumerate(met.rows) if row not in kept]
        features = np.asarray(met.features, np.float64).reshape(-1, len(FEATURES))[at]
        gold = np.asarray([met.chunks[place].doc_id in each.question.evidence for place in at], np.float64)
        found.append(Example(each.question, first, met, features, gold))
    return found


def fit(sets: Sequence[Sequence[Example]]) -> Chances:
    """A set's weight is the same whatever the number of its questions."""
    rows = np.concatenate([example.features for some in sets for example in some])
    gold = np.concatenate([example.gold for some in sets for example in some])
    share = np.concatenate([np.full(len(example.gold), 100 / len(some)) for some in sets for example in some])
    rows = np.concatenate([rows, np.ones((len(rows), 1))], 1)
    ridge = np.diag([*[_RIDGE] * len(FEATURES), 0.0])
    weights = newton(rows, gold, share=share, penalty=ridge).weights
    return Chances(tuple(weights[:-1].tolist()), float(weights[-1]))


def reached(some: Sequence[Example], chances: Chances | None, *, k: int = POOL) -> dict[str, float]:
    """Means over pools of `k`: of two looks, or of one without `chances`."""
    pools = [example.first.hits[:k] if chances is None else chosen(example.first, example.met, k=k, chances=chances).found.hits
             for example in some]
    values = [judged(example.question, pool) for example, pool in zip(some, pools, strict=True)]
    return {name: round(mean([value for each in values if (value := each[name]) is not None]) or 0.0, 4) for name in MEASURES}


def table(sets: Mapping[str, Sequence[Example]], facts: Mapping[str, object]) -> dict[str, object]:
    """What `retrievers.second_look_model` reads. `facts`: how the weights came about."""
    left_out = {}
    for name, some in sets.items():
        others = fit([other for named, other in sets.items() if named != name])
        left_out[name] = {"one look": reached(some, None), "two looks": reached(some, others)}
    final = fit(list(sets.values()))
    return {"format": FORMAT, "weights": dict(zip(FEATURES, (round(value, 4) for value in final.weights), strict=True)),
            "bias": round(final.bias, 4), "fitted": {**facts, "pool": POOL, "sets left out": left_out}}


def run(folders: Sequence[Path], *, settings: Settings, limit: int, seed: int, command: str) -> dict[str, object]:
    """
    Raises:
        ConfigError: fewer than two data sets.
    """
    if len(folders) < 2:
        raise ConfigError("Weights that hold on other data need at least two data sets.", field="data",
                          hint="Name more with --data.")
    encoder = open_encoder(settings.embedder, cache=ModelCache(settings.models), precision=settings.precision,
                           threads=settings.threads)
    sets = {}
    for dataset in loaded(folders):
        with searched(dataset, settings=settings, encoder=encoder, k=POOL, limit=limit, seed=seed, on_progress=_tell) as data:
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
                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="thriftrag-second-look-"))
                settings = replace(settings, home=Path(scratch))
            found = run(options.data, settings=settings, limit=options.limit, seed=options.seed,
                        command=as_command("retrievers.training.second_look", given))
    except RagError as error:
        print(error, file=sys.stderr)
        return 1
    options.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m retrievers.training.second_look", description=__doc__,
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
