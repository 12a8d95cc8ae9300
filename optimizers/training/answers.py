"""Fits `optimizers/learned.json`: how likely a reader answers right from a set of sentences, from what readers answered.

    python -m optimizers.training.answers --train DATASET_DIR... --test DATASET_DIR... [--reader NAME] [--limit 80] [--write]

For a seeded sample of each dataset's questions, sets of sentences of the pool are drawn (`drawn`), rendered, and read by the
reader; token F1 is the label. Calls are remembered by content: a second run costs nothing. Logistic regression with F1 as the
share of right answers. Prints, per dataset, how well the learnt chance and the set function tell right sets from wrong ones (area
under the ROC curve over sets, and over pairs of sets of the same question), and how often more text made an answer worse.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from eval.cache import CachingReader
from eval.corpus import FOLDER, opened
from eval.datasets import Question, load
from eval.metrics import f1
from optimizers import relevance
from optimizers.coefficients import shipped as coefficients
from optimizers.context import render
from optimizers.learned import NAMES, WEIGHTS, LearnedWorth
from optimizers.logistic import fitted
from optimizers.packed import Floats, Packed, packed
from optimizers.searching import ordered
from optimizers.training.relevance import answerable, open_alone
from optimizers.utility import SetUtility
from optimizers.utility_compiled import complete
from rag import settings as configuration
from rag.llm.open import open_reader
from rag.models import ModelCache
from rag.settings import Settings
from rag.thriftrag import ThriftRAG

BUDGETS = (64, 128, 256)
RANDOM_SETS = 4
RIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """One set that was read: what it looks like, what the set function says, its tokens, bits, and F1 of the answer."""

    question: int
    features: Floats
    utility: float
    tokens: int
    bits: int
    f1: float


def drawn(arrays: Packed, utility: SetUtility, rng: random.Random) -> list[int]:
    """Sets that are worth telling apart: the likeliest sentence, greedy sets of three budgets, and random ones of one to eight of
    the twenty likeliest sentences, likelier ones more often."""
    n = len(arrays.tokens)
    if not n:
        return []
    order = np.argsort(-arrays.chance, kind="stable")[:20].tolist()
    found = [1 << order[0]]
    for budget in BUDGETS:
        found.append(int(complete(0, 0.5, np.ones(n), 0, utility.prepared._replace(budget=budget))))
    for _ in range(RANDOM_SETS):
        some = [row for at, row in enumerate(order) if rng.random() < 2.5 / (at + 3)] or [rng.choice(order)]
        found.append(sum(1 << row for row in some[:8]))
    values, tokens = utility.measured(found)
    allowed = (values > -1e8) & (tokens <= max(BUDGETS))
    return list(dict.fromkeys(bits for bits, good in zip(found, allowed.tolist(), strict=True) if bits and good))


def gathered(folder: Path, *, limit: int, seed: int, settings: Settings, reader: CachingReader, tell: Callable[[str], None]
             ) -> list[Row]:
    dataset = load(folder)
    questions = answerable(dataset, seed=seed)
    kb = opened(dataset, settings=settings, open_collection=open_alone, reader=reader)
    assert isinstance(kb, ThriftRAG)  # what open_alone gave: None comes only of cancelling
    found: list[Row] = []
    with kb:
        for at, question in enumerate(questions[:limit]):
            found += asked(kb, question, number=at, seed=seed)
            if (at + 1) % 20 == 0:
                tell(f"{folder.name} {at + 1}/{min(limit, len(questions))} questions, {len(found)} sets, "
                     f"{reader.misses} calls, {reader.hits} remembered")
    return found


def asked(kb: ThriftRAG, question: Question, *, number: int, seed: int) -> list[Row]:
    """The sets of one question, each read by the reader."""
    pool, given = kb.pool(question.text), coefficients()
    drawing = partial(render, counter=kb.reader.tokenizer)
    arrays, rows = packed(pool, chances=relevance.chances(pool), coefficients=given, budget=max(BUDGETS), render=drawing)
    utility = SetUtility(arrays, given)
    sets = drawn(arrays, utility, random.Random(f"{seed}:{question.id}"))
    looks = LearnedWorth(arrays, utility, weights=(np.zeros(len(NAMES)), 0.0)).features(sets)
    values, tokens = utility.measured(sets)
    found = []
    for at, bits in enumerate(sets):
        answer = kb.answer_from(question.text, ordered(pool, rows, bits, arrays.chance.tolist()), budget=2 * max(BUDGETS))
        found.append(Row(number, looks[at], float(values[at]), int(tokens[at]), bits, f1(answer.text, question.answers)))
    return found


def fit(sets: Sequence[Sequence[Row]]) -> tuple[Floats, float]:
    """Weights and bias of the logistic regression; see `logistic.fitted`."""
    return fitted([(np.asarray([row.features for row in rows]), np.asarray([row.f1 for row in rows])) for rows in sets])


def area(scores: Floats, right: Floats) -> float:
    """Chance that a right one has the higher score of a right and a wrong one, ties half; NaN without either."""
    yes, no = scores[right > 0], scores[right <= 0]
    if not len(yes) or not len(no):
        return float("nan")
    return float(((yes[:, None] > no[None, :]) + 0.5 * (yes[:, None] == no[None, :])).mean())


def within(rows: Sequence[Row], scores: Floats) -> float:
    """The same over pairs of sets of one question: what a search decides by."""
    wins, pairs = 0.0, 0
    questions = np.asarray([row.question for row in rows])
    right = np.asarray([row.f1 >= RIGHT for row in rows])
    for question in np.unique(questions):
        here = questions == question
        yes, no = scores[here & right], scores[here & ~right]
        wins += float(((yes[:, None] > no[None, :]) + 0.5 * (yes[:, None] == no[None, :])).sum())
        pairs += len(yes) * len(no)
    return wins / pairs if pairs else float("nan")


def worsened(rows: Sequence[Row]) -> tuple[int, int, int]:
    """Pairs of sets of one question of which one holds the other: how many, and in how many the larger one's answer is right
    and the smaller one's wrong, and the other way round."""
    pairs = better = worse = 0
    for one in rows:
        for other in rows:
            if one.question == other.question and one.bits != other.bits and one.bits & other.bits == one.bits:
                pairs += 1
                better += other.f1 >= RIGHT > one.f1
                worse += one.f1 >= RIGHT > other.f1
    return pairs, better, worse


def report(rows: Sequence[Row], fitted: tuple[Floats, float]) -> dict[str, object]:
    scores = np.asarray([row.features for row in rows]) @ fitted[0] + fitted[1]
    plain, right = np.asarray([row.utility for row in rows]), np.asarray([float(row.f1 >= RIGHT) for row in rows])
    fewer = -np.asarray([float(row.tokens) for row in rows])
    said = 1 / (1 + np.exp(-scores))
    bins = np.minimum((said * 10).astype(int), 9)
    f1s = np.asarray([row.f1 for row in rows])
    gap = sum((bins == b).sum() * abs(said[bins == b].mean() - f1s[bins == b].mean()) for b in range(10) if (bins == b).any())
    return {"questions": len({row.question for row in rows}), "sets": len(rows), "right": round(float(right.mean()), 3),
            "auc": {"learnt": round(area(scores, right), 3), "set_function": round(area(plain, right), 3)},
            "auc_within": {"learnt": round(within(rows, scores), 3), "set_function": round(within(rows, plain), 3),
                           "fewer_tokens": round(within(rows, fewer), 3)},
            "ece": round(float(gap) / len(rows), 3),
            "larger": dict(zip(("pairs", "better", "worse"), worsened(rows), strict=True))}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m optimizers.training.answers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--test", nargs="*", type=Path, default=[], metavar="DIR")
    parser.add_argument("--reader", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--limit", type=int, default=80, help="questions per dataset (default 80)")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--home", type=Path, default=Path("runs/answers"), help="where collections and reader calls go")
    parser.add_argument("--cross", default="auto", help="the cross-encoder: auto (default), off, or a file of weights")
    parser.add_argument("--write", action="store_true", help=f"replace {WEIGHTS.name}")
    options = parser.parse_args(arguments)
    settings = configuration.load({"home": options.home, "cross_encoder": options.cross, "reader": options.reader})
    reader = CachingReader(open_reader(settings, cache=ModelCache(settings.models)), options.home / FOLDER / "reader-calls.sqlite")
    try:
        def all_of(folders: Sequence[Path]) -> dict[str, list[Row]]:
            return {folder.name: gathered(folder, limit=options.limit, seed=options.seed, settings=settings, reader=reader,
                                          tell=lambda line: print(line, file=sys.stderr, flush=True)) for folder in folders}

        train, test = all_of(options.train), all_of(options.test)
    finally:
        reader.end()
    model = fit([rows for rows in train.values() if rows])
    print(json.dumps({"weights": dict(zip(NAMES, model[0].round(4).tolist(), strict=True)), "bias": round(model[1], 4)}))
    for name in train:      # of a model that has not seen the set
        others = [rows for other, rows in train.items() if other != name and rows]
        if others:
            print(json.dumps({"left_out": name, **report(train[name], fit(others))}))
    for name, rows in test.items():
        print(json.dumps({"test": name, **report(rows, model)}))
    if options.write:
        stored = {"format": 1, "features": NAMES, "weights": [round(w, 6) for w in model[0].tolist()], "bias": round(model[1], 6),
                  "reader": options.reader, "fitted_on": list(train), "questions": options.limit, "seed": options.seed}
        WEIGHTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
