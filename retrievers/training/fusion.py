"""Fits the weights of the weighted sum:

    python -m retrievers.training.fusion --data DIR... --weights FILE --out retrievers/fusion.json

For each combination of origins, every division of the weight on a grid is tried, and that with the best macro mean of nDCG@10 over
the data sets is looked for. Divisions within a thousandth of the best differ from it by chance: their mean is taken, which moves
less from data to data than the best one does. Whether weights hold elsewhere is told by leaving out one set at a time: weights
fitted on the others are judged on it, beside reciprocal rank fusion, equal weights, and the best weights for that very set.

Candidates and scores are those of a search: see `eval.origins`. Use data sets on which neither the term weights were trained nor
searches are reported, or the weights flatter the term weights.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from eval.datasets import SEED
from eval.origins.judged import judged
from eval.origins.opened import Opened, loaded, opened
from eval.origins.scored import Scored
from eval.origins.ways import fused
from indexers.training.telling import as_command
from rag import settings as configuration
from rag.errors import ConfigError, RagError
from rag.types import Progress
from retrievers.fusion_scores import NORMALISATION
from retrievers.fusion_weights import COMBINATIONS, FORMAT
from retrievers.training.candidates import Candidates, Floats, candidates, grid, ndcg

STEPS = 50
_NEAR = 0.001
_LIMIT = 300


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """`left_out`: for each set, what weights from the others give on it, and what they are compared with."""

    weights: Mapping[str, float]
    ndcg: float
    left_out: Mapping[str, Mapping[str, float]]

    def mean(self, name: str) -> float:
        return float(np.mean([found[name] for found in self.left_out.values()]))


def fit(origins: Sequence[str], sets: Mapping[str, Scored], *, steps: int = STEPS) -> Fit:
    """Weights for these origins from the sets, of which there are at least two."""
    settings = grid(len(origins), steps=steps)
    table = np.stack([_on_set(scored, origins, settings) for scored in sets.values()])
    left_out = {}
    for at, (name, scored) in enumerate(sets.items()):
        others = _centre(settings, np.delete(table, at, 0).mean(0))
        rrf = judged(scored.chunks, partial(fused, scored, origins=origins, weights=None)).mean("nDCG@10")
        equal = np.full(len(origins), 1 / len(origins))
        left_out[name] = {"fitted on others": _exactly(scored, origins, others), "rrf": rrf,
                          "equal": _exactly(scored, origins, equal), "best for it": float(table[at].max()),
                          **{f"{origin} alone": float(table[at][settings[:, i] == 1][0]) for i, origin in enumerate(origins)}}
    chosen = _centre(settings, table.mean(0))
    reached = float(np.mean([_exactly(scored, origins, chosen) for scored in sets.values()]))
    return Fit(dict(zip(origins, chosen.tolist(), strict=True)), reached, left_out)


def _on_set(scored: Scored, origins: Sequence[str], settings: Floats) -> Floats:
    """Mean nDCG@10 of each setting over the questions of a set."""
    found: list[Candidates] = [one for question in range(len(scored.chunks.questions))
                               if (one := candidates(scored, question, origins=origins)) is not None]
    total: Floats = np.mean([ndcg(one, settings) for one in found], axis=0)
    return total


def _exactly(scored: Scored, origins: Sequence[str], weights: Floats) -> float:
    return float(_on_set(scored, origins, weights[None, :])[0])


def _centre(settings: Floats, quality: Floats) -> Floats:
    """The mean of the settings that are as good as the best."""
    centre: Floats = settings[quality >= quality.max() - _NEAR].mean(0)
    return centre


def table(fits: Mapping[str, Fit], facts: Mapping[str, object]) -> dict[str, object]:
    """What `retrievers.fusion_weights` reads. `facts`: how the weights came about."""
    def entry(found: Fit) -> dict[str, object]:
        names = list(next(iter(found.left_out.values())))
        return {"weights": {origin: round(weight, 4) for origin, weight in found.weights.items()},
                "fitted": {**facts, "ndcg@10": round(found.ndcg, 4),
                           "mean over sets left out": {name: round(found.mean(name), 4) for name in names},
                           "sets left out": {name: {what: round(value, 4) for what, value in values.items()}
                                             for name, values in found.left_out.items()}}}

    return {"format": FORMAT, "normalisation": NORMALISATION, "combinations": {name: entry(found) for name, found in fits.items()}}


def run(folders: Sequence[Path], origins: Opened, *, limit: int, seed: int, command: str) -> dict[str, object]:
    """
    Raises:
        ConfigError: no term weights, or fewer than two data sets.
    """
    if origins.weighing is None:
        raise ConfigError("There are no term weights to be fused.", field="weights", code="no_term_weights",
                          hint="Name a file with --weights, or ship one.")
    if len(folders) < 2:
        raise ConfigError("Weights that hold on other data need at least two data sets.", field="data",
                          hint="Name more with --data.")
    sets = {}
    for dataset in loaded(folders):
        sets[dataset.name] = origins.scored(dataset, limit=limit, seed=seed)
    facts = {"command": command, "data": {name: len(scored.chunks.questions) for name, scored in sets.items()}, "seed": seed,
             "encoder": origins.encoder.name, "term_weights": origins.weighing.terms.name}
    fits = {}
    for number, name in enumerate(COMBINATIONS, start=1):
        fits[name] = fit(name.split("+"), sets)
        origins.on_progress(Progress("fit", number, len(COMBINATIONS), "combinations", _line(fits[name])))
    return table(fits, facts)


def _line(found: Fit) -> str:
    weights = " ".join(f"{origin} {weight:.3f}" for origin, weight in found.weights.items())
    means = ", ".join(f"{what} {found.mean(what):.4f}" for what in next(iter(found.left_out.values())))
    return f"{weights}: nDCG@10 {found.ndcg:.4f}; on sets left out: {means}"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    command = as_command("retrievers.training.fusion", given)
    try:
        settings = configuration.load({} if options.home is None else {"home": options.home})
        with tempfile.TemporaryDirectory(prefix="thriftrag-fusion-") as scratch:
            origins = opened(settings, scratch=Path(scratch), weights=options.weights, home=settings.home, on_progress=_tell)
            found = run(options.data, origins, limit=options.limit, seed=options.seed, command=command)
    except RagError as error:
        print(error, file=sys.stderr)
        return 1
    options.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m retrievers.training.fusion", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", nargs="+", type=Path, required=True, metavar="DIR", help="data sets to fit on")
    add("--weights", type=Path, help="file of term weights (default: those shipped)")
    add("--out", type=Path, required=True, help="the table that searches read")
    add("--limit", type=int, default=_LIMIT, help=f"questions of each data set at most (default {_LIMIT})")
    add("--seed", type=int, default=SEED)
    add("--home", type=Path, help="where encodings are remembered (default: the home of the settings)")
    return parser


def _tell(progress: Progress) -> None:
    if progress.done == progress.total or progress.stage == "fit":
        print(f"{progress.stage} {progress.done}/{progress.total} {progress.unit} {progress.note}".rstrip(), file=sys.stderr,
              flush=True)


if __name__ == "__main__":
    sys.exit(main())
