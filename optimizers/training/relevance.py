"""Fits `optimizers/relevance.json`: the chance that a sentence holds the answer, from retrieval and from the cross-encoder.

    python -m optimizers.training.relevance --train DATASET_DIR... [--several DATASET_DIR...] --test DATASET_DIR... [--limit 250]
        [--write plain read led]

Each dataset is ingested into a collection of its own under --home, its questions are retrieved as `ask` would, and every
sentence of the pool is a row: positive if it stands in a gold passage and contains an answer. Logistic regression by
Newton's method with a small ridge, once over what retrieval knows (`plain`) and once with the cross-encoder's scores (`read`),
each set counting the same. The cross-encoder believes too much on sets that it was trained on: fit `read` on others. Then a third
model (`led`) over both with what leads to each passage, on the same sets and those of --several, whose questions take two steps;
they are asked as they stand before a last step that computes. Prints, per test set, how often a positive is among the best k
sentences, and the expected calibration error over ten bins. --plot draws the reliability of the last model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.corpus import opened
from eval.datasets import Dataset, Question, load, sampled
from eval.metrics import contains
from optimizers.knowledge_filter import threshold
from optimizers.logistic import fitted
from optimizers.pool import Pool, Unit, units
from optimizers.relevance import LED, PLAIN, READ, WEIGHTS, Matrix, features, led_features, places, read_features
from optimizers.training.steps import before_the_last
from rag import settings as configuration
from rag.llm import Reader
from rag.settings import Settings
from rag.thriftrag import ThriftRAG

Rows = list[tuple[Matrix, Matrix]]      # per question: features (sentences, F) and labels (sentences,)
DEPTHS = (1, 2, 3, 5, 8)
NAMES = {"plain": PLAIN, "read": READ, "led": LED}
Model = tuple[Matrix, float]            # weights and bias


@dataclass(frozen=True, slots=True)
class Data:
    """The rows of one dataset's questions; `read` is empty without a cross-encoder. `led`: for each question of `plain` the rows
    of what leads to each sentence, and where those of `read` stand among its sentences."""

    name: str
    plain: Rows
    read: Rows
    led: list[tuple[Matrix, list[int]]]
    candidates: list[list[int]]         # of each sentence, per question of `plain`

    def of(self, name: str, models: Mapping[str, Model]) -> Rows:
        """The rows that the model of that name takes: `led` takes what the two others, which must be there, say."""
        if name != "led":
            return self.plain if name == "plain" else self.read
        found, read = [], iter(self.read)
        for (rows, labels), (leads, at) in zip(self.plain, self.led, strict=True):
            odds = rows @ models["plain"][0] + models["plain"][1]
            if at:
                odds[at] = (odds[at] + next(read)[0] @ models["read"][0] + models["read"][1]) / 2
            found.append((np.column_stack([odds, leads]), labels))
        return found


def gathered(folder: Path, *, limit: int, seed: int, home: Path, cross: str) -> Data:
    """A seeded sample of the answerable English questions of one dataset whose evidence is known."""
    dataset = load(folder)
    questions = before_the_last(folder, answerable(dataset, seed=seed))
    settings = configuration.load({"home": home, "cross_encoder": cross})
    kb = opened(dataset, settings=settings, open_collection=open_alone, reader=None)
    assert isinstance(kb, ThriftRAG)  # what open_alone gave: None comes only of cancelling
    with kb:
        return labelled(folder.name, [(kb.pool(question.text), question) for question in questions[:limit]])


def answerable(dataset: Dataset, *, seed: int) -> list[Question]:
    """The English questions with answers whose evidence is known, in a seeded order."""
    return [each for each in sampled(dataset.questions, seed=seed) if each.answers and each.evidence and each.language == "en"]


def open_alone(name: str, *, settings: Settings, reader: Reader | None, cold: bool) -> ThriftRAG:
    return ThriftRAG.open(name, settings=settings, reader=reader)


def labelled(name: str, asked: Sequence[tuple[Pool, Question]]) -> Data:
    plain, read, led, candidates = [], [], [], []
    for pool, question in asked:
        rows = units(pool)
        if not rows:
            continue
        right = {unit: float(positive(pool, question, unit)) for unit in rows}
        every = features(pool)
        plain.append((every, np.asarray([right[unit] for unit in rows], np.float64)))
        own: list[Unit] = []
        if any(candidate.sentence_answers for candidate in pool.candidates):
            own, matrix = read_features(pool, every)
            read.append((matrix, np.asarray([right[unit] for unit in own], np.float64)))
        led.append((led_features(pool), places(rows, own)))
        candidates.append([unit.candidate for unit in rows])
    return Data(name, plain, read, led, candidates)


def positive(pool: Pool, question: Question, unit: Unit) -> bool:
    chunk = pool.candidates[unit.candidate].chunk
    return chunk.doc_id in question.evidence and contains(chunk.sentence(unit.sentence), question.answers)


def fit(sets: Sequence[Rows]) -> tuple[Matrix, float]:
    """Weights and bias of the logistic regression; see `logistic.fitted`."""
    return fitted([(np.concatenate([matrix for matrix, _ in data]), np.concatenate([labels for _, labels in data]))
                   for data in sets])


def hit_rates(data: Rows, weights: Matrix, bias: float) -> list[float]:
    """Share of questions with a positive among the best k sentences, for k in DEPTHS."""
    found = []
    for x, y in data:
        ranked = y[np.argsort(-(x @ weights + bias), kind="stable")]
        found.append([bool(ranked[:k].any()) for k in DEPTHS])
    return [float(share) for share in np.mean(found, axis=0)]


def reliability(data: Rows, weights: Matrix, bias: float) -> list[tuple[int, float, float]]:
    """For each of ten equal bins of the chance that is not empty: rows, mean chance, share of positives."""
    p = np.concatenate([1 / (1 + np.exp(-(x @ weights + bias))) for x, _ in data])
    y = np.concatenate([labels for _, labels in data])
    bins = np.minimum((p * 10).astype(int), 9)
    kept = [bins == b for b in range(10) if (bins == b).any()]
    return [(int(here.sum()), float(p[here].mean()), float(y[here].mean())) for here in kept]


def calibration_error(data: Rows, weights: Matrix, bias: float) -> float:
    """Expected calibration error over ten equal bins of the chance."""
    bins = reliability(data, weights, bias)
    return sum(count * abs(said - true) for count, said, true in bins) / sum(count for count, _, _ in bins)


def best_of(data: Rows, candidates: Sequence[Sequence[int]], weights: Matrix, bias: float) -> tuple[list[float], list[float]]:
    """Of all candidates the chance of the likeliest sentence: of those that hold a right one, and of the others. `candidates`: that
    of each row, per question."""
    right: list[float] = []
    wrong: list[float] = []
    for (x, y), of in zip(data, candidates, strict=True):
        p = 1 / (1 + np.exp(-(x @ weights + bias)))
        chunk = np.asarray(of)
        for each in np.unique(chunk):
            (right if y[chunk == each].any() else wrong).append(float(p[chunk == each].max()))
    return right, wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m optimizers.training.relevance", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--several", nargs="*", type=Path, default=[], metavar="DIR", help="sets whose questions take two steps")
    parser.add_argument("--test", nargs="*", type=Path, default=[], metavar="DIR")
    parser.add_argument("--limit", type=int, default=250, help="questions per dataset (default 250)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--home", type=Path, default=Path("runs/relevance"), help="where the collections go")
    parser.add_argument("--cross", default="auto", help="the cross-encoder: auto (default), off, or a file of weights")
    parser.add_argument("--keep", type=float, default=0.98, help="share of right candidates to keep by the filter (default .98)")
    parser.add_argument("--plot", type=Path, help="a PNG of the reliability on the test sets")
    parser.add_argument("--write", nargs="+", choices=tuple(NAMES), default=[], help=f"models to replace in {WEIGHTS.name}")
    options = parser.parse_args(arguments)
    wanted = [name for name in NAMES if name != "read" or options.cross != "off"]

    def all_of(folders: Sequence[Path]) -> list[Data]:
        return [gathered(each, limit=options.limit, seed=options.seed, home=options.home, cross=options.cross) for each in folders]

    train, several, test = all_of(options.train), all_of(options.several), all_of(options.test)
    models: dict[str, Model] = {}
    for name in wanted:
        taught = [each.of(name, models) for each in (*train, *(several if name == "led" else ()))]
        weights, bias = models[name] = fit([rows for rows in taught if rows])
        print(json.dumps({"model": name, "weights": dict(zip(NAMES[name], weights.round(4).tolist(), strict=True)),
                          "bias": round(bias, 4)}))
    for group, sets in (("train", train), ("several", several), ("test", test)):
        for data in sets:
            rows = {name: data.of(name, models) for name in wanted}
            print(json.dumps({group: data.name, "n": len(data.plain), "k": DEPTHS, **{
                name: {"hits": [round(v, 3) for v in hit_rates(rows[name], *models[name])],
                       "ece": round(calibration_error(rows[name], *models[name]), 4)} for name in wanted if rows[name]}}))
    both = [best_of(each.of("led", models), each.candidates, *models["led"]) for each in (*train, *several)]
    right, wrong = ([value for part in parts for value in part] for parts in zip(*both, strict=True))
    below = threshold(right, keep=options.keep)
    print(json.dumps({"filter": "led", "keeps": options.keep, "below": round(below, 5), "right": len(right),
                      "drops_of_others": round(float(np.mean(np.asarray(wrong) < below)), 3)}))
    for data in test:
        yes, no = best_of(data.of("led", models), data.candidates, *models["led"])
        print(json.dumps({"filter_test": data.name, "keeps": round(float(np.mean(np.asarray(yes) >= below)), 3),
                          "drops_of_others": round(float(np.mean(np.asarray(no) < below)), 3)}))
    if options.plot:
        plot(options.plot, [each.of("led", models) for each in test], [each.name for each in test], models["led"])
    stored = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    for name in options.write:
        weights, bias = models[name]
        folders = [*options.train, *(options.several if name == "led" else ())]
        made = {"features": NAMES[name], "weights": [round(w, 6) for w in weights.tolist()], "bias": round(bias, 6),
                "fitted_on": [each.name for each in folders], "questions": options.limit, "seed": options.seed}
        stored["models"] = [*(each for each in stored["models"] if tuple(each["features"]) != NAMES[name]), made]
    if options.write:
        WEIGHTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return 0


def plot(path: Path, sets: Sequence[Rows], names: Sequence[str], fitted: tuple[Matrix, float]) -> None:
    """The share of positives against the chance that was said, by set; dots as large as the square root of their rows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 5.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    for at, (name, rows) in enumerate(zip(names, sets, strict=True)):
        bins = reliability(rows, *fitted)
        said, true = [each[1] for each in bins], [each[2] for each in bins]
        axes.plot(said, true, color=f"C{at}", label=f"{name} (ECE {calibration_error(rows, *fitted):.3f})")
        axes.scatter(said, true, s=[3 * count ** 0.5 for count, _, _ in bins], color=f"C{at}", alpha=0.5)
    axes.set(xlabel="chance that was said", ylabel="share of sentences that hold the answer",
             title="Reliability, sets not fitted on")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(path, format="png", metadata={"Software": None})


if __name__ == "__main__":
    sys.exit(main())
