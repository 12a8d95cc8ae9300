"""Fits `optimizers/router.json`: what to expect of a small and a large reader, from what both answered.

    python -m optimizers.training.router --runs runs.jsonl --small NAME --large NAME [--share 0.4] [--write]

`--runs` is a log of `python -m optimizers.training.runs` with both readers under `default`. Six logistic regressions with F1 as
the share of right answers (`optimizers.router.NAMES`); each set counts the same. Prints, by leaving out one dataset at a time, the
calibration error and the area under the ROC curve of each expectation, and what the cascade and the router would have scored and
cost over lambda. `--share`: seconds of a call of the small reader over those of the large one, as `thriftrag bench router` prints.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optimizers.logistic import Matrix, fitted
from optimizers.router import NAMES, WEIGHTS, Decision, Expectation, Model, first, onward
from optimizers.routing import SURE
from optimizers.training.answers import RIGHT, area
from optimizers.training.runs import Line, read

LAMBDAS = (-1.0, 0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 2.0)


@dataclass(frozen=True, slots=True)
class Both:
    """One question as both readers answered it."""

    small: Line
    large: Line

    @property
    def dataset(self) -> str:
        return self.small.dataset

    @property
    def after_small(self) -> dict[str, float]:
        return {**self.small.seen, **self.small.said}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy made of one question: its score, its cost in calls of the large reader, and the calls."""

    f1: float
    cost: float
    small_calls: int
    large_calls: int


def paired(lines: Sequence[Line], *, small: str, large: str) -> list[Both]:
    """The questions that both readers were asked about under `default`; those that none was given to read are left out, and those
    of which the small reader's log does not say how sure it was."""
    found = {(line.dataset, line.question, line.reader): line for line in lines if line.configuration == "default" and line.said}
    return [Both(line, found[dataset, question, large]) for (dataset, question, reader), line in found.items()
            if reader == small and (dataset, question, large) in found and all(name in line.said for name in SURE)]


def fit(rows: Sequence[Both], *, share: float) -> Model:
    """The regressions on these rows, each dataset counting the same."""
    sets = [[row for row in rows if row.dataset == name] for name in dict.fromkeys(row.dataset for row in rows)]
    expectations = {}
    for name, features in NAMES.items():
        parts = [(np.asarray([[row.after_small[feature] for feature in features] for row in some]),
                  np.asarray([_label(row, name) for row in some])) for some in sets]
        weights, bias = fitted(parts)
        expectations[name] = Expectation(dict(zip(features, weights.round(6).tolist(), strict=True)), round(bias, 6))
    model = Model(expectations, 0.0, share)
    gaps = [_gain(onward(model, row.after_small, cost=0.0))
            - _gain(first(model, row.small.seen, cost=0.0, share=share, cascade=True)) for row in rows]
    return Model(expectations, round(float(np.std(gaps)), 6), share)


def _gain(decision: Decision) -> float:
    return decision.expected["large"] - decision.expected["small"]


def _label(row: Both, name: str) -> float:
    return row.small.f1 if name.startswith("small") else row.large.f1


def played(row: Both, model: Model, *, cost: float, cascade: bool, share: float | None = None) -> Outcome:
    """What the router makes of a question whose answers are known."""
    part = model.share if share is None else share
    begun = first(model, row.small.seen, cost=cost, share=part, cascade=cascade)
    if begun.reader == "large":
        return Outcome(row.large.f1, 1.0, 0, 1)
    if onward(model, row.after_small, cost=cost).reader == "small":
        return Outcome(row.small.f1, part, 1, 0)
    return Outcome(row.large.f1, part + 1.0, 1, 1)


def macro(rows: Sequence[Both], values: Sequence[float]) -> float:
    """The mean over datasets of the mean over their questions."""
    names = [row.dataset for row in rows]
    return float(np.mean([np.mean([value for value, name in zip(values, names, strict=True) if name == one])
                          for one in dict.fromkeys(names)]))


def calibration(said: Matrix, true: Matrix) -> float:
    """Expected calibration error over ten equal bins."""
    bins = np.minimum((said * 10).astype(int), 9)
    gaps = [(bins == b).sum() * abs(said[bins == b].mean() - true[bins == b].mean()) for b in set(bins.tolist())]
    return float(sum(gaps) / len(said))


def report(rows: Sequence[Both], models: Mapping[str, Model]) -> list[dict[str, object]]:
    """Of each dataset by the model of its name."""
    told: list[dict[str, object]] = []
    for name in NAMES:
        says = np.asarray([models[row.dataset].expectations[name](row.after_small) for row in rows])
        true = np.asarray([_label(row, name) for row in rows])
        told.append({"expectation": name, "n": len(rows), "auc": round(area(says, (true >= RIGHT).astype(np.float64)), 3),
                     "ece": round(calibration(says, true), 3)})
    for which, f1s in (("small", [row.small.f1 for row in rows]), ("large", [row.large.f1 for row in rows]),
                       ("better of both", [max(row.small.f1, row.large.f1) for row in rows])):
        told.append({"policy": which, "f1": round(100 * macro(rows, f1s), 2)})
    for cascade in (True, False):
        for cost in LAMBDAS:
            outcomes = [played(row, models[row.dataset], cost=cost, cascade=cascade) for row in rows]
            told.append({"policy": "cascade" if cascade else "auto", "lambda": cost,
                         "f1": round(100 * macro(rows, [each.f1 for each in outcomes]), 2),
                         "cost": round(macro(rows, [each.cost for each in outcomes]), 3),
                         "large": round(float(np.mean([each.large_calls for each in outcomes])), 3)})
    return told


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m optimizers.training.router", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--small", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--large", default="qwen2.5-coder-1.5b-instruct")
    parser.add_argument("--share", type=float, default=0.4, help="cost of a small call over a large one (default 0.4)")
    parser.add_argument("--write", action="store_true", help=f"replace {WEIGHTS.name}")
    options = parser.parse_args(arguments)
    rows = paired([line for path in options.runs for line in read(path)], small=options.small, large=options.large)
    names = list(dict.fromkeys(row.dataset for row in rows))
    if len(names) < 2:
        parser.error("the log needs answers of both readers under `default` on at least two datasets")
    models = {name: fit([row for row in rows if row.dataset != name], share=options.share) for name in names}
    for line in report(rows, models):
        print(json.dumps(line))
    if options.write:
        model = fit(rows, share=options.share)
        stored = {"format": 1, "small": options.small, "large": options.large, "fitted_on": names, "questions": len(rows),
                  "share": model.share, "spread": model.spread,
                  "models": {name: {"weights": dict(each.weights), "bias": each.bias} for name, each in model.expectations.items()}}
        WEIGHTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
