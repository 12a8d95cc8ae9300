"""Routing between two readers: answers, seconds and priced tokens of the small one, the large one, and the router between them.

Each question of the data sets is answered by both readers from the same context (128 tokens), and what the router would have done
is told from these answers, for each gain that a call of the large reader must bring (lambda). Rows, the mean over data sets:

- F1 of the small reader, the large reader, and of a guesser that always knows which of both is better
- for `cascade` and `auto` and each lambda: F1; F1 less that of always-large, with the paired interval; F1 less that of sending a
  random share of the questions to the large reader at the same priced tokens; seconds and priced tokens, as ratios to
  always-large
- of each data set the same at the default lambda

Seconds are idealised, as in HELM's efficiency metrics: T = F * prompt tokens + g * answer tokens, F and g of each reader from calls
that are made alone, turn by turn, without a prefix cache, the fastest of three each. A priced token is one of the large reader; one
of the small reader counts a third, as its parameters do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.bench import Measurement, Options
from eval.cache import CachingReader
from eval.corpus import FOLDER, opened
from eval.datasets import Question, chosen, load
from eval.statistics import Interval, macro_mean
from indexers.encoders import open_encoder
from optimizers import router
from optimizers.router import Model
from optimizers.training.relevance import open_alone
from optimizers.training.router import Both, Outcome, paired, played
from optimizers.training.runs import Line, gathered
from rag import prompts, routing
from rag.llm import Message, Reader
from rag.llm.open import open_reader
from rag.models import ModelCache
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import OnProgress, Progress

TAKES = frozenset({"limit"})
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
LAMBDAS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
_QUESTIONS = 60
_TIMED = 4                  # questions of each data set that are timed alone
_ROUNDS = 3                 # the fastest call of each question counts: whatever else the machine does only slows one down
_SMALL_PRICE = 1 / 3


@dataclass(frozen=True, slots=True)
class Rate:
    """Seconds per prompt token and per token of the answer."""

    prompt: float
    answer: float

    def of(self, line: Line) -> float:
        return self.prompt * line.prompt_tokens + self.answer * line.completion_tokens


@dataclass(frozen=True, slots=True)
class Spent:
    """What one question got and took: F1 in points, seconds, priced tokens."""

    f1: float
    seconds: float
    tokens: float


Policy = Callable[[Both], Outcome]


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    settings = dataclasses.replace(options.settings, home=options.home or options.scratch, deadline_s=0.0)
    (settings.home / FOLDER).mkdir(parents=True, exist_ok=True)
    limit = options.limit or _QUESTIONS
    folders = options.data or (SAMPLE,)
    small, large = routing.small_settings(settings), settings
    lines: list[Line] = []
    with ExitStack() as stack:
        calls = settings.home / FOLDER / "reader-calls.sqlite"
        readers = [CachingReader(open_reader(each, cache=ModelCache(settings.models)), calls, identity=each.reader)
                   for each in (small, large)]
        for reader in readers:
            stack.callback(reader.end)
        encoder = open_encoder(settings.embedder, cache=ModelCache(settings.models), precision=settings.precision,
                               threads=settings.threads)
        for place, folder in enumerate(folders):
            on_progress(Progress("ask", place, len(folders), "data sets", folder.name))
            gathered(folder, ["default"], limit=limit, seed=options.seed, settings=settings, readers=readers, parallel=8,
                     known=set(), keep=lines.append, answerable=False, encoder=encoder)
    rates = timed(folders, settings=settings, small=small, seed=options.seed, on_progress=on_progress)
    rows = paired(lines, small=readers[0].name, large=readers[1].name)
    unread = len({(line.dataset, line.question) for line in lines}) - len(rows)
    return [*speeds(rates), Measurement("questions that neither read", float(unread), "questions", len(rows) + unread),
            *compared(rows, rates, model=router.shipped(), default=settings.router_lambda, seed=options.seed)]


def timed(folders: Sequence[Path], *, settings: Settings, small: Settings, seed: int, on_progress: OnProgress) -> dict[str, Rate]:
    """The rates of both readers, from prompts of all data sets asked in turn."""
    asked: list[list[Message]] = []
    for folder in folders:
        dataset = load(folder)
        some: Sequence[Question] = chosen(dataset, limit=_TIMED, seed=seed)
        with ExitStack() as stack:
            reader = open_reader(settings, cache=ModelCache(settings.models))
            kb = opened(dataset, settings=settings, open_collection=open_alone, reader=reader)
            assert isinstance(kb, ThriftRAG)  # what open_alone gave: None comes only of cancelling
            stack.callback(kb.close)
            # Under several budgets, so that the price of a prompt token and that of a call can be told apart.
            asked += [prompts.build(question.text, kb.context(question.text, budget=64 << place % 3).context.text)
                      for place, question in enumerate(some)]
    taken: dict[str, dict[int, tuple[int, int, float]]] = {"small": {}, "large": {}}
    with ExitStack() as stack:
        both: dict[str, Reader] = {}
        for name, each in (("small", small), ("large", settings)):
            both[name] = open_reader(each, cache=ModelCache(settings.models), prefix_cache=False)
            stack.callback(both[name].close)
            both[name].generate(asked[0], max_tokens=settings.reader_max_tokens)       # loads and warms up
        for turn in range(_ROUNDS * len(asked)):
            on_progress(Progress("time", turn, _ROUNDS * len(asked), "questions"))
            place = turn % len(asked)
            for name, reader in both.items():
                got = reader.generate(asked[place], max_tokens=settings.reader_max_tokens)
                before = taken[name].get(place, (0, 0, float("inf")))[2]
                taken[name][place] = got.prompt_tokens, got.completion_tokens, min(before, got.seconds)
    return {name: rate(list(calls.values())) for name, calls in taken.items()}


def rate(calls: Sequence[tuple[int, int, float]]) -> Rate:
    """Least squares of seconds over prompt and answer tokens; where one rate came out below 0 the other bears all."""
    table = np.asarray(calls, np.float64)
    x, y = table[:, :2], table[:, 2]
    prompt, answer = np.linalg.lstsq(x, y, rcond=None)[0].tolist()
    alone = [float(x[:, at] @ y / (x[:, at] @ x[:, at])) for at in (0, 1)]
    return Rate(prompt, answer) if min(prompt, answer) >= 0 else Rate(0.0, alone[1]) if prompt < 0 else Rate(alone[0], 0.0)


def speeds(rates: Mapping[str, Rate]) -> list[Measurement]:
    rows = []
    for what, unit in (("prompt", "s/1000 tokens"), ("answer", "s/1000 tokens")):
        values = {name: 1000 * getattr(each, what) for name, each in rates.items()}
        base = f"large reader: {what}"
        rows.append(Measurement(base, values["large"], unit, 1))
        ratio = values["small"] / values["large"] if values["large"] else None
        rows.append(Measurement(f"small reader: {what}", values["small"], unit, 1, ratio, base if ratio is not None else None))
    return rows


def spent(row: Both, outcome: Outcome, rates: Mapping[str, Rate]) -> Spent:
    small, large = outcome.small_calls, outcome.large_calls
    seconds = small * rates["small"].of(row.small) + large * rates["large"].of(row.large)
    tokens = (small * _SMALL_PRICE * (row.small.prompt_tokens + row.small.completion_tokens)
              + large * (row.large.prompt_tokens + row.large.completion_tokens))
    return Spent(100 * outcome.f1, seconds, tokens)


def compared(rows: Sequence[Both], rates: Mapping[str, Rate], *, model: Model, default: float, seed: int) -> list[Measurement]:
    def always(small: bool) -> Policy:
        return lambda row: Outcome(row.small.f1, 0.0, 1, 0) if small else Outcome(row.large.f1, 0.0, 0, 1)

    def routed(cost: float, *, cascade: bool) -> Policy:
        return lambda row: played(row, model, cost=cost, cascade=cascade)

    table = {"always small": always(True), "always large": always(False)}
    modes = {"cascade": True, "auto": False}
    for name, cascade in modes.items():
        table |= {f"{name}, lambda {cost:g}": routed(cost, cascade=cascade) for cost in LAMBDAS}
    results = {name: [spent(row, policy(row), rates) for row in rows] for name, policy in table.items()}
    found = [_macro("better of both: F1", rows, [100 * max(row.small.f1, row.large.f1) for row in rows], "points", seed=seed)]
    for name in table:
        found += _told(name, rows, results[name], results["always large"], results["always small"], seed=seed)
    for one in dict.fromkeys(row.dataset for row in rows):
        mine = [row for row in rows if row.dataset == one]
        base = [spent(row, always(False)(row), rates) for row in mine]
        low = [spent(row, always(True)(row), rates) for row in mine]
        found.append(_macro(f"{one}: always small: F1", mine, [each.f1 for each in low], "points", seed=seed))
        found.append(_macro(f"{one}: always large: F1", mine, [each.f1 for each in base], "points", seed=seed))
        for name, cascade in modes.items():
            made = [spent(row, routed(default, cascade=cascade)(row), rates) for row in mine]
            found += _told(f"{one}: {name}, lambda {default:g}", mine, made, base, low, seed=seed)
    return found


def _told(name: str, rows: Sequence[Both], made: Sequence[Spent], large: Sequence[Spent], small: Sequence[Spent], *,
          seed: int) -> list[Measurement]:
    """One policy's rows, beside always-large and random mixing."""
    found = [_macro(f"{name}: F1", rows, [each.f1 for each in made], "points", seed=seed)]
    for what, unit in (("seconds", "s"), ("tokens", "priced tokens")):
        value, base = (_macro("", rows, [getattr(each, what) for each in some], unit, seed=seed).value for some in (made, large))
        found.append(Measurement(f"{name}: {what}", value, unit, len(rows), value / base if base else None,
                                 f"always large: {what}" if base else None))
    if made is large:
        return found
    found.append(_macro(f"{name}: F1 less always large", rows, [a.f1 - b.f1 for a, b in zip(made, large, strict=True)], "points",
                        seed=seed))
    # Random mixing at equal priced tokens: the share p of questions that the large reader gets. Beyond always-large it is that.
    low, mine, high = (_macro("", rows, [each.tokens for each in some], "tokens", seed=seed).value for some in (small, made, large))
    p = min(max((mine - low) / (high - low), 0.0), 1.0) if high > low else 1.0
    beyond = [a.f1 - p * b.f1 - (1 - p) * c.f1 for a, b, c in zip(made, large, small, strict=True)]
    return [*found, _macro(f"{name}: F1 less random mixing", rows, beyond, "points", seed=seed)]


def _macro(name: str, rows: Sequence[Both], values: Sequence[float], unit: str, *, seed: int) -> Measurement:
    strata = [[value for row, value in zip(rows, values, strict=True) if row.dataset == one]
              for one in dict.fromkeys(row.dataset for row in rows)]
    found: tuple[float, Interval] | None = macro_mean(strata, seed=seed)
    assert found is not None    # there is a row in each stratum
    return Measurement(name, found[0], unit, len(values), interval=found[1])
