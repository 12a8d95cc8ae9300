"""Fits `optimizers/utility.json`: the coefficients of the set function, on questions and on pairs of questions asked as one.

    python -m optimizers.training.utility --train DATASET_DIR... --test DATASET_DIR... [--limit 120] [--write]

Each dataset is ingested into a collection of its own under --home and its questions are retrieved as `ask` would. Half as many
pairs are made of two questions each ("... and ..."): their context must serve both, which is what a question of several parts
asks of a choice; data sets with several hops are not needed for it. The quality of a choice is

    share of its questions with an answer in a chosen sentence of a gold passage  -  WASTE * tokens / 100

as a mean over the budgets. WASTE is what 100 tokens cost a small reader that do not help it: its F1 falls by 3 of 53 points from
128 to 256 tokens of such sentences, and by 6 from there to 512. Single questions and pairs count the same. Coordinate ascent over
`GRID`, from the coefficients that `greedy` has; choices are those of greedy completion (`utility_compiled.complete`). The grid of
COVERAGE ends at 1.3: up to 3 the quality on the training sets rises by less than a thousandth.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from eval.corpus import opened
from eval.datasets import Question, load, sampled
from optimizers import relevance
from optimizers.coefficients import WEIGHTS, Coefficients
from optimizers.context import render
from optimizers.packed import Packed, packed
from optimizers.pool import Pool, Unit, units
from optimizers.training.relevance import open_alone, positive
from optimizers.utility import SetUtility
from rag import settings as configuration
from rag.thriftrag import ThriftRAG
from rag.tokens import TokenCounter

BUDGETS = (64, 128, 256)
WASTE = 0.04
START = Coefficients()
GRID: Mapping[str, Sequence[float]] = {
    "trust": (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0), "coverage": (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.3),
    "redundancy": (0.0, 0.05, 0.1, 0.2, 0.4, 0.8), "price": (0.0025, 0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.13),
}
_ROUNDS = 4
# The corner of the grid where most sentences can be worth their tokens: every choice of coefficients sees the same rows.
_GENEROUS = Coefficients(trust=max(GRID["trust"]), coverage=max(GRID["coverage"]), price=min(GRID["price"]))
_POWER = 0.5


@dataclass(frozen=True, slots=True)
class Case:
    """A question, or a pair, under one budget. `needs`: the rows that serve each of its questions, as bits."""

    arrays: Packed
    needs: tuple[int, ...]


def cases(pool: Pool, asked: Sequence[Question], *, counter: TokenCounter, budgets: Sequence[int] = BUDGETS) -> Iterator[Case]:
    """One case for each budget."""
    chances = relevance.chances(pool)
    serving = [{unit for unit in units(pool) if positive(pool, question, unit)} for question in asked]
    for budget in budgets:
        arrays, rows = packed(pool, chances=chances, coefficients=_GENEROUS, budget=budget,
                              render=lambda extracts: render(extracts, counter=counter))
        yield Case(arrays, tuple(_bits(rows.units, wanted) for wanted in serving))


def _bits(rows: Sequence[Unit], wanted: set[Unit]) -> int:
    return sum(1 << row for row, unit in enumerate(rows) if unit in wanted)


def choice(arrays: Packed, coefficients: Coefficients) -> tuple[int, int]:
    """The greedy completion of nothing, or the best single sentence, and its tokens."""
    from optimizers.utility_compiled import complete

    n = len(arrays.tokens)
    if not n:
        return 0, 0
    utility = SetUtility(arrays, coefficients)
    sets = [int(complete(0, _POWER, np.ones(n), 0, utility.prepared))]
    if not sets[0]:
        sets = [1 << row for row in range(n)]
    values, tokens = utility.measured(sets)
    allowed = np.where(tokens <= arrays.budget, values, -np.inf)
    best = int(np.argmax(allowed))
    return (sets[best], int(tokens[best])) if np.isfinite(allowed[best]) else (0, 0)


def quality(data: Sequence[Case], coefficients: Coefficients) -> tuple[float, float, float]:
    """The mean quality, the share of questions served, and the tokens."""
    served, tokens = [], []
    for case in data:
        bits, spent = choice(case.arrays, coefficients)
        served.append(sum(1 for need in case.needs if need & bits) / len(case.needs))
        tokens.append(spent)
    share, mean = float(np.mean(served)), float(np.mean(tokens))
    return share - WASTE * mean / 100, share, mean


def fit(singles: Sequence[Case], pairs: Sequence[Case], *, start: Coefficients = START) -> Coefficients:
    """Coordinate ascent; of equals the earlier in the grid."""
    def score(tried: Coefficients) -> float:
        return quality(singles, tried)[0] + quality(pairs, tried)[0]

    best, reached = start, score(start)
    for _ in range(_ROUNDS):
        before = reached
        for name, values in GRID.items():
            for value in values:
                found = score(replace(best, **{name: value}))
                if found > reached + 1e-9:
                    best, reached = replace(best, **{name: value}), found
        if reached == before:
            break
    return best


def gathered(folder: Path, *, limit: int, seed: int, home: Path) -> tuple[list[Case], list[Case]]:
    """Single questions and pairs of one dataset, a seeded sample of those with answers and evidence."""
    dataset = load(folder)
    questions = [question for question in sampled(dataset.questions, seed=seed) if question.answers and question.evidence][:limit]
    kb = opened(dataset, settings=configuration.load({"home": home}), open_collection=open_alone, reader=None)
    assert isinstance(kb, ThriftRAG)  # what open_alone gave: None comes only of cancelling
    with kb:
        counter = kb.reader.tokenizer
        singles = [case for question in questions for case in cases(kb.pool(question.text), [question], counter=counter)]
        pairs = [case for first, second in zip(questions[::2], questions[1::2], strict=False)
                 for case in cases(kb.pool(joined(first, second)), [first, second], counter=counter)]
    return singles, pairs


def joined(first: Question, second: Question) -> str:
    return f"{first.text.rstrip('?. ')} and {second.text}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m optimizers.training.utility", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", nargs="+", type=Path, required=True, metavar="DIR")
    parser.add_argument("--test", nargs="*", type=Path, default=[], metavar="DIR")
    parser.add_argument("--limit", type=int, default=120, help="questions per dataset (default 120)")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--home", type=Path, default=Path("runs/utility"), help="where the collections go")
    parser.add_argument("--write", action="store_true", help=f"replace {WEIGHTS.name}")
    options = parser.parse_args(arguments)
    found = [gathered(folder, limit=options.limit, seed=options.seed, home=options.home) for folder in options.train]
    singles, pairs = [case for one, _ in found for case in one], [case for _, two in found for case in two]
    fitted = fit(singles, pairs)
    print(json.dumps({"coefficients": asdict(fitted), "train": report(singles, pairs, fitted)}))
    for folder in options.test:
        one, two = gathered(folder, limit=options.limit, seed=options.seed, home=options.home)
        print(json.dumps({"test": folder.name, "fitted": report(one, two, fitted), "start": report(one, two, START)}))
    if options.write:
        stored = {"format": 1, "coefficients": {name: round(value, 6) for name, value in asdict(fitted).items()},
                  "fitted_on": [folder.name for folder in options.train], "questions": options.limit, "seed": options.seed}
        WEIGHTS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return 0


def report(singles: Sequence[Case], pairs: Sequence[Case], coefficients: Coefficients) -> dict[str, list[float]]:
    """Quality, share served and tokens of the single questions and of the pairs."""
    return {name: [round(value, 4) for value in quality(data, coefficients)]
            for name, data in (("singles", singles), ("pairs", pairs)) if data}


if __name__ == "__main__":
    sys.exit(main())
