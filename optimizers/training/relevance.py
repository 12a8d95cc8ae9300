"""Fits `optimizers/relevance.json`: the chance that a sentence holds the answer, from six features of retrieval.

    python -m optimizers.training.relevance --train DATASET_DIR... --test DATASET_DIR... [--limit 250] [--write]

Each dataset is ingested into a collection of its own under --home, its questions are retrieved as `ask` would, and every
sentence of the pool is a row: positive if it stands in a gold passage and contains an answer. Logistic regression by
Newton's method with a small ridge. Prints, per test set, how often a positive is among the best k sentences, against the
sum of cosines, and the expected calibration error over ten bins.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.corpus import opened
from eval.datasets import Question, load
from eval.metrics import contains
from optimizers.pool import Pool, Unit, units
from optimizers.relevance import FEATURES, WEIGHTS, features
from rag import settings as configuration
from rag.llm import Reader
from rag.settings import Settings
from rag.thriftrag import ThriftRAG

Matrix = NDArray[np.float64]
Rows = list[tuple[Matrix, Matrix]]      # per question: features (sentences, 6) and labels (sentences,)
RIDGE = 1.0
DEPTHS = (1, 2, 3, 5, 8)


def rows(folder: Path, *, limit: int, seed: int, home: Path) -> Rows:
    """Features and labels for a seeded sample of the answerable questions of one dataset."""
    dataset = load(folder)
    questions = [question for question in dataset.questions if question.answers]
    random.Random(seed).shuffle(questions)
    kb = opened(dataset, settings=configuration.load({"home": home}), open_collection=open_alone, reader=None)
    assert isinstance(kb, ThriftRAG)  # what open_alone gave: None comes only of cancelling
    with kb:
        return [labelled(kb, question) for question in questions[:limit]]


def open_alone(name: str, *, settings: Settings, reader: Reader | None, cold: bool) -> ThriftRAG:
    return ThriftRAG.open(name, settings=settings, reader=reader)


def labelled(kb: ThriftRAG, question: Question) -> tuple[Matrix, Matrix]:
    pool = kb.pool(question.text)
    return features(pool), np.asarray([positive(pool, question, unit) for unit in units(pool)], np.float64)


def positive(pool: Pool, question: Question, unit: Unit) -> bool:
    chunk = pool.candidates[unit.candidate].chunk
    return chunk.doc_id in question.evidence and contains(chunk.sentence(unit.sentence), question.answers)


def fit(data: Rows, *, steps: int = 30) -> tuple[Matrix, float]:
    """Weights and bias of the logistic regression with ridge RIDGE on standardised features, in the features' own units."""
    x = np.concatenate([matrix for matrix, _ in data])
    y = np.concatenate([labels for _, labels in data])
    scale = x.std(axis=0)
    design = np.column_stack([x / scale, np.ones(len(x))])
    penalty = RIDGE * np.diag([1.0] * x.shape[1] + [0.0])
    solution = np.zeros(design.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-design @ solution))
        gradient = design.T @ (y - p) - penalty @ solution
        curvature = (design * (p * (1 - p))[:, None]).T @ design + penalty
        solution = solution + np.linalg.solve(curvature, gradient)
    return solution[:-1] / scale, float(solution[-1])


def hit_rates(data: Rows, weights: Matrix, bias: float) -> list[float]:
    """Share of questions with a positive among the best k sentences, for k in DEPTHS."""
    found = []
    for x, y in data:
        ranked = y[np.argsort(-(x @ weights + bias), kind="stable")]
        found.append([bool(ranked[:k].any()) for k in DEPTHS])
    return [float(share) for share in np.mean(found, axis=0)]


def calibration_error(data: Rows, weights: Matrix, bias: float) -> float:
    """Expected calibration error over ten equal bins of the chance."""
    p = np.concatenate([1 / (1 + np.exp(-(x @ weights + bias))) for x, _ in data])
    y = np.concatenate([labels for _, labels in data])
    bins = np.minimum((p * 10).astype(int), 9)
    gaps = [(bins == b).sum() * abs(p[bins == b].mean() - y[bins == b].mean()) for b in range(10) if (bins == b).any()]
    return float(sum(gaps) / len(p))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m optimizers.training.relevance", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--test", nargs="*", type=Path, default=[], metavar="DIR")
    parser.add_argument("--limit", type=int, default=250, help="questions per dataset (default 250)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--home", type=Path, default=Path("runs/relevance"), help="where the collections go")
    parser.add_argument("--write", action="store_true", help=f"replace {WEIGHTS.name}")
    options = parser.parse_args(arguments)
    train = [row for folder in options.train for row in rows(folder, limit=options.limit, seed=options.seed, home=options.home)]
    weights, bias = fit(train)
    print(json.dumps({"weights": dict(zip(FEATURES, weights.round(4).tolist(), strict=True)), "bias": round(bias, 4)}))
    similarity = np.asarray([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    for folder in options.test:
        data = rows(folder, limit=options.limit, seed=options.seed, home=options.home)
        print(json.dumps({"test": folder.name, "n": len(data), "k": DEPTHS,
                          "fitted": [round(v, 3) for v in hit_rates(data, weights, bias)],
                          "cosines": [round(v, 3) for v in hit_rates(data, similarity, 0.0)],
                          "ece": round(calibration_error(data, weights, bias), 4)}))
    if options.write:
        stored = {"format": 1, "features": FEATURES, "weights": [round(w, 6) for w in weights.tolist()], "bias": round(bias, 6),
                  "fitted_on": [folder.name for folder in options.train], "questions": options.limit, "seed": options.seed}
        WEIGHTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
