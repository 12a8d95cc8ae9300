"""The configuration agent of CORAG (arXiv 2411.00744), as an experiment: a network that picks selector and settings per question.

    python -m optimizers.training.agent --train runs.jsonl --test other.jsonl

The logs are those of `python -m optimizers.training.runs` with one reader under several configurations. A question's input is its
vector and what was seen of it under `default` (`optimizers.routing.SEEN`); its label the configuration of the largest
F1 - price * prompt tokens / 1000, and that one's settings. As published, a network embeds the input and two heads give the
class and the settings; it is trained on pairs with

    L = L_con + L_cls + L_reg        L_con = mean of (1 - y) d^2 + y max(0, 1 - d)^2,  y = 0 for the same class, d the distance

Done differently, because it was wrong or weak there: settings are standardised, so that no one of them outweighs the others, and
inputs too; questions on which all configurations are worth the same teach nothing and are left out; the rival is the best single
configuration on the training questions, not an average one. Beside it, `scores`: a ridge regression of each configuration's worth,
from which the best is taken, and `neighbours`: the mean worth over the 15 nearest training questions. Each is tried on datasets
that were left out, and on the test log. Prints F1, tokens and worth, and the paired difference in worth to the best single one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.statistics import macro_mean
from optimizers.routing import SEEN
from optimizers.training.runs import CONFIGURATIONS, Line, read

Floats = NDArray[np.float64]
Whole = NDArray[np.intp]
PRICE = 0.02                # F1 per 1,000 prompt tokens
HIDDEN, EMBEDDED = 64, 32
EPOCHS, PAIRS, RATE = 60, 256, 1e-3
NEIGHBOURS = 15
RIDGE = 30.0
_SELECTORS = ("greedy", "lazy", "mcts", "sentences", "topk")


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions (rows) under configurations (columns): inputs (Q, D), F1 and prompt tokens (Q, K), and the dataset of each."""

    names: tuple[str, ...]
    inputs: Floats
    f1: Floats
    tokens: Floats
    datasets: tuple[str, ...]

    @property
    def worth(self) -> Floats:
        found: Floats = self.f1 - PRICE * self.tokens / 1000
        return found

    def among(self, rows: Sequence[int]) -> Asked:
        some = list(rows)
        return Asked(self.names, self.inputs[some], self.f1[some], self.tokens[some], tuple(self.datasets[row] for row in some))


@dataclass(frozen=True, slots=True)
class Objective:
    """Which parts of the published loss are taken, and whether settings are brought to one scale."""

    contrastive: float = 1.0
    settings: float = 1.0
    standardised: bool = True


def table(lines: Sequence[Line], *, reader: str, names: Sequence[str]) -> Asked:
    """The questions that were logged under all of `names`.

    Raises:
        ValueError: there are none.
    """
    by_question: dict[tuple[str, str], dict[str, Line]] = {}
    for line in lines:
        if line.reader == reader and line.configuration in names:
            by_question.setdefault((line.dataset, line.question), {})[line.configuration] = line
    whole = [found for found in by_question.values() if len(found) == len(names) and found["default"].seen]
    if not whole:
        raise ValueError(f"No question was logged under all of {', '.join(names)} with {reader}.")
    inputs = [[*found["default"].vector, *(found["default"].seen[name] for name in SEEN)] for found in whole]
    return Asked(tuple(names), np.asarray(inputs, np.float64),
                 np.asarray([[found[name].f1 for name in names] for found in whole], np.float64),
                 np.asarray([[found[name].prompt_tokens for name in names] for found in whole], np.float64),
                 tuple(found["default"].dataset for found in whole))


def settings_of(name: str) -> list[float]:
    """What can be regressed: share of 256 tokens, second look, cross-encoder, and the selector's place in a row of kin."""
    how = CONFIGURATIONS[name]
    selector = str(how.changes.get("selector", "greedy"))
    return [how.budget / 256, float(how.changes.get("second_look", "auto") == "auto"),
            float(how.changes.get("cross_encoder", "auto") == "auto" and selector not in ("sentences", "topk")),
            float(_SELECTORS.index(selector))]


def best_single(train: Asked) -> int:
    """The configuration of the largest worth, each dataset counting the same; the first of equals."""
    return int(np.argmax(_by_dataset(train, train.worth).mean(0)))


def labels(train: Asked) -> tuple[Whole, NDArray[np.bool_]]:
    """Each question's best configuration, the best single one of equals, and whether it is better than any other."""
    worth, fixed = train.worth, best_single(train)
    best = worth.argmax(1)
    best[worth[np.arange(len(best)), fixed] >= worth.max(1) - 1e-9] = fixed
    return best, worth.max(1) - worth.min(1) > 1e-9


def published(train: Asked, test: Asked, *, seed: int, objective: Objective = Objective()) -> Whole:
    """The agent's choice for each question of `test`: the class first, then of its kin the one of the nearest settings."""
    import torch

    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    classes, telling = labels(train)
    rows = np.flatnonzero(telling)
    middle, scale = train.inputs.mean(0), np.maximum(train.inputs.std(0), 1e-6)
    x, unseen = (torch.tensor((each.inputs - middle) / scale, dtype=torch.float32) for each in (train, test))
    options = np.asarray([settings_of(name) for name in train.names])
    targets = (options - options.mean(0)) / np.maximum(options.std(0), 1e-6) if objective.standardised else options
    wanted, kinds = torch.tensor(targets[classes], dtype=torch.float32), torch.tensor(classes)
    body = torch.nn.Sequential(torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.ReLU(), torch.nn.Dropout(0.1),
                               torch.nn.Linear(HIDDEN, EMBEDDED))
    classify, regress = torch.nn.Linear(EMBEDDED, len(train.names)), torch.nn.Linear(EMBEDDED, targets.shape[1])
    learnt = [*body.parameters(), *classify.parameters(), *regress.parameters()]
    optimiser = torch.optim.Adam(learnt, lr=RATE, weight_decay=1e-4)
    for _ in range(EPOCHS if len(rows) else 0):
        one, other = _pairs(rows, classes, random)
        first, second = body(x[one]), body(x[other])
        apart = torch.nn.functional.pairwise_distance(first, second)
        differs = (kinds[one] != kinds[other]).float()
        con = ((1 - differs) * apart ** 2 + differs * torch.clamp(1 - apart, min=0) ** 2).mean()
        both = (first, one), (second, other)
        cls = sum(torch.nn.functional.cross_entropy(classify(each), kinds[which]) for each, which in both)
        reg = sum(torch.nn.functional.mse_loss(regress(each), wanted[which]) for each, which in both)
        loss = objective.contrastive * con + cls / 2 + objective.settings * reg / 2
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    body.eval()
    with torch.no_grad():
        embedded = body(unseen)
        chances = torch.softmax(classify(embedded), 1).numpy()
        away = ((regress(embedded).numpy()[:, None, :] - targets[None, :, :]) ** 2).mean(2)
    found: Whole = np.argmax(np.log(chances + 1e-9) - objective.settings * away, axis=1)
    return found


def _pairs(rows: Whole, classes: Whole, random: np.random.Generator) -> tuple[Whole, Whole]:
    """PAIRS of questions, of the same class and of different ones with equal chances where there are any."""
    one = random.choice(rows, PAIRS)
    other = one.copy()
    for place, row in enumerate(one):
        same = random.random() < 0.5
        among = rows[(classes[rows] == classes[row]) == same]
        other[place] = random.choice(among if len(among) else rows)
    return one, other


def by_scores(train: Asked, test: Asked, *, seed: int) -> Whole:
    """Ridge regressions of what each configuration is worth beyond the mean of all; the best single one where none stands out."""
    middle, scale = train.inputs.mean(0), np.maximum(train.inputs.std(0), 1e-6)
    x, unseen = ((each.inputs - middle) / scale for each in (train, test))
    gains = train.worth - train.worth.mean(1, keepdims=True)
    weights = np.linalg.solve(x.T @ x + RIDGE * len(x) / 10 * np.eye(x.shape[1]), x.T @ (gains - gains.mean(0)))
    found: Whole = np.argmax(unseen @ weights + gains.mean(0), axis=1)
    return found


def by_neighbours(train: Asked, test: Asked, *, seed: int) -> Whole:
    middle, scale = train.inputs.mean(0), np.maximum(train.inputs.std(0), 1e-6)
    x, unseen = ((each.inputs - middle) / scale for each in (train, test))
    x, unseen = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-9) for each in (x, unseen))
    nearest = np.argsort(-(unseen @ x.T), axis=1, kind="stable")[:, :NEIGHBOURS]
    found: Whole = train.worth[nearest].mean(1).argmax(1)
    return found


Agent = Callable[..., Whole]


def agents() -> dict[str, Agent]:
    def with_(objective: Objective) -> Agent:
        return lambda train, test, seed: published(train, test, seed=seed, objective=objective)

    return {"agent": with_(Objective()), "agent, raw settings": with_(Objective(standardised=False)),
            "agent, no pairs": with_(Objective(contrastive=0.0)), "agent, classes alone": with_(Objective(0.0, 0.0)),
            "scores": by_scores, "neighbours": by_neighbours}


def tried(parts: Sequence[tuple[Asked, Asked]], *, seeds: Sequence[int], seed: int) -> list[dict[str, object]]:
    """Each way of choosing on the second of each part, trained on the first. Choices by chance are the mean of `seeds`."""
    tests = [test for _, test in parts]
    fixed = [np.full(len(test.f1), best_single(train)) for train, test in parts]
    told = [_shown("best single", tests, [fixed], fixed, seed=seed),
            _shown("best of each question", tests, [[test.worth.argmax(1) for test in tests]], fixed, seed=seed)]
    for place, name in enumerate(tests[0].names):
        told.append(_shown(f"always {name}", tests, [[np.full(len(test.f1), place) for test in tests]], fixed, seed=seed))
    for name, agent in agents().items():
        choices = [[agent(train, test, seed=each) for train, test in parts] for each in (seeds if "agent" in name else seeds[:1])]
        told.append(_shown(name, tests, choices, fixed, seed=seed))
    return told


def _shown(name: str, tests: Sequence[Asked], choices: Sequence[Sequence[Whole]], fixed: Sequence[Whole], *, seed: int
           ) -> dict[str, object]:
    """F1 in points, prompt tokens and worth, means over datasets; the paired difference in worth to `fixed`."""
    def taken(values: Floats, picked: Whole) -> Floats:
        return values[np.arange(len(picked)), picked]

    f1: dict[str, Floats] = {}
    tokens: dict[str, Floats] = {}
    gain: dict[str, Floats] = {}
    for part, test in enumerate(tests):
        for into, values in ((f1, 100 * test.f1), (tokens, test.tokens)):
            mine = np.mean([taken(values, run[part]) for run in choices], axis=0)
            _split(into, mine, test.datasets)
        better = np.mean([taken(test.worth, run[part]) for run in choices], axis=0) - taken(test.worth, fixed[part])
        _split(gain, 100 * better, test.datasets)
    difference = macro_mean([values.tolist() for values in gain.values()], seed=seed)
    assert difference is not None       # every dataset has a question
    return {"way": name, "n": sum(map(len, f1.values())), "f1": round(float(np.mean([each.mean() for each in f1.values()])), 2),
            "tokens": round(float(np.mean([each.mean() for each in tokens.values()])), 1),
            "worth_less_best_single": round(difference[0], 2), "interval": [round(value, 2) for value in difference[1]]}


def _split(into: dict[str, Floats], values: Floats, datasets: Sequence[str]) -> None:
    for name in dict.fromkeys(datasets):
        mine = values[[each == name for each in datasets]]
        into[name] = np.concatenate([into[name], mine]) if name in into else mine


def _by_dataset(asked: Asked, values: Floats) -> Floats:
    return np.asarray([values[[each == name for each in asked.datasets]].mean(0) for name in dict.fromkeys(asked.datasets)])


def same_contexts(lines: Sequence[Line], *, reader: str, one: str, other: str) -> Mapping[str, object]:
    """How often two configurations sent the very same context."""
    found = {(line.dataset, line.question, line.configuration): line.context for line in lines if line.reader == reader}
    pairs = [(context, found[dataset, question, other]) for (dataset, question, name), context in found.items()
             if name == one and (dataset, question, other) in found]
    return {"same_context": [one, other], "n": len(pairs), "share": round(float(np.mean([a == b for a, b in pairs])), 3) if pairs
            else None}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m optimizers.training.agent", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, metavar="FILE")
    parser.add_argument("--test", type=Path, metavar="FILE")
    parser.add_argument("--reader", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--configurations", default="default,lazy,sentences,topk,greedy-256,one-look")
    parser.add_argument("--seeds", type=int, default=5, help="networks that are trained (default 5)")
    parser.add_argument("--seed", type=int, default=13)
    options = parser.parse_args(arguments)
    names = options.configurations.split(",")
    if "default" not in names or set(names) - set(CONFIGURATIONS):
        parser.error(f"--configurations takes `default` and others of {', '.join(CONFIGURATIONS)}")
    lines = read(options.train)
    train = table(lines, reader=options.reader, names=names)
    print(json.dumps(same_contexts(lines, reader=options.reader, one="lazy", other="mcts")))
    seeds = list(range(options.seeds))
    parts = []
    for name in dict.fromkeys(train.datasets):
        mine = [row for row, each in enumerate(train.datasets) if each == name]
        parts.append((train.among([row for row in range(len(train.datasets)) if row not in set(mine)]), train.among(mine)))
    for line in tried(parts, seeds=seeds, seed=options.seed):
        print(json.dumps({"on": "left out", **line}))
    if options.test:
        test = table(read(options.test), reader=options.reader, names=names)
        for line in tried([(train, test)], seeds=seeds, seed=options.seed):
            print(json.dumps({"on": "test", **line}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
