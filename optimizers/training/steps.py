"""Fits `optimizers/steps.json`, the chance that a question takes two steps, and gives questions of several steps an earlier form.

    python -m optimizers.training.steps --several DIR... --one DIR... [--test DIR...] [--limit 400] [--write]

Every question of --several counts as one of two steps, every one of --one as simple. Logistic regression by Newton's method with
a small ridge. Prints the mean chance and its quartiles for each set; --test adds sets that nothing is fitted on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eval.datasets import Question, load, sampled
from eval.layouts.files import lines
from eval.layouts.folder import SHAPES, there
from optimizers.logistic import fitted
from optimizers.relevance import Matrix
from optimizers.steps import FEATURES, WEIGHTS, features


def before_the_last(folder: Path, questions: Sequence[Question]) -> list[Question]:
    """`questions`, each as it was before its last step where the set tells that, as MoreHopQA does: there the last step is a
    computation, and the answer before it stands in a passage, to which another leads."""
    path = there(folder, "queries") if folder.is_dir() else None
    if path is None:
        return list(questions)
    earlier: dict[str, tuple[str, str]] = {}
    for row in lines(path, shape=SHAPES["queries"]):
        text, answer = row.string("previous_question", default=""), row.string("previous_answer", default="")
        if text and answer:
            earlier[row.string("id")] = text, answer
    return [replace(each, text=earlier[each.id][0], answers=(earlier[each.id][1],)) if each.id in earlier else each
            for each in questions]


def asked(folder: Path, *, limit: int, seed: int) -> list[str]:
    """A seeded sample of the English questions of one set."""
    questions = [each for each in sampled(load(folder).questions, seed=seed) if each.language == "en"]
    return [each.text for each in before_the_last(folder, questions)[:limit]]


def fit(several: Sequence[str], one: Sequence[str]) -> tuple[Matrix, float]:
    """Weights and bias."""
    rows = np.asarray([features(text) for text in (*several, *one)], np.float64)
    return fitted([(rows, np.asarray([1.0] * len(several) + [0.0] * len(one)))])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m optimizers.training.steps", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--several", nargs="+", type=Path, required=True, metavar="DIR", help="sets of questions of two steps")
    parser.add_argument("--one", nargs="+", type=Path, required=True, metavar="DIR", help="sets of simple questions")
    parser.add_argument("--test", nargs="*", type=Path, default=[], metavar="DIR")
    parser.add_argument("--limit", type=int, default=400, help="questions per dataset (default 400)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--write", action="store_true", help=f"replace {WEIGHTS.name}")
    options = parser.parse_args(arguments)
    sets = {folder: asked(folder, limit=options.limit, seed=options.seed)
            for folder in (*options.several, *options.one, *options.test)}
    weights, bias = fit([text for folder in options.several for text in sets[folder]],
                        [text for folder in options.one for text in sets[folder]])
    print(json.dumps({"weights": dict(zip(FEATURES, weights.round(3).tolist(), strict=True)), "bias": round(bias, 3)}))
    for folder, texts in sets.items():
        chances = [1 / (1 + float(np.exp(-(np.asarray(features(text)) @ weights + bias)))) for text in texts]
        print(json.dumps({"set": folder.name, "n": len(texts), "mean": round(float(np.mean(chances)), 3),
                          "quartiles": [round(float(value), 3) for value in np.quantile(chances, (0.25, 0.5, 0.75))]}))
    if options.write:
        stored = {"features": FEATURES, "weights": [round(value, 4) for value in weights.tolist()], "bias": round(bias, 4),
                  "several": [each.name for each in options.several], "one": [each.name for each in options.one],
                  "questions": options.limit, "seed": options.seed}
        WEIGHTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
