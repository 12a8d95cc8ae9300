"""One configuration on one question, through the public pipeline: its context alone, or with the reader's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

from eval import metrics
from eval.tune.generation import quality
from eval.tune.pairs import Pair
from rag import settings as configuration
from rag.errors import BudgetError, InputError
from rag.settings import Settings
from rag.types import Answer, Prepared


@dataclass(frozen=True, slots=True, order=True)
class Configuration:
    """Query-side settings that are tried together. Ordered, so that ties fall the same way every time."""

    budget: int
    selector: str
    candidates: int
    mode: str
    abstain_below: float

    @property
    def changes(self) -> dict[str, str | int | float]:
        """By setting, without the budget, which a call takes by itself."""
        return {"selector": self.selector, "candidates": self.candidates, "mode": self.mode, "abstain_below": self.abstain_below}

    @property
    def settings(self) -> dict[str, str | int | float]:
        return {"budget_tokens": self.budget, **self.changes}

    def __str__(self) -> str:
        mode = "" if self.mode == "hybrid" else f", {self.mode}"
        return f"budget {self.budget} ({self.selector}, {self.candidates} candidates{mode})"


@dataclass(frozen=True, slots=True)
class Glance:
    """What can be said without the reader. `answer_in_context` is None where no text can hold the answer."""

    answer_in_context: float | None
    context_tokens: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Trial:
    """What the reader made of it; `f1` from 0 to 1."""

    f1: float
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float


class Pipeline(Protocol):
    """What trials ask of the pipeline's front (`rag.ThriftRAG`)."""

    def context(self, question: str, *, budget: int, changes: Mapping[str, object]) -> Prepared: ...

    def ask(self, question: str, *, budget: int, changes: Mapping[str, object]) -> Answer: ...


def glance(pipeline: Pipeline, tried: Configuration, pair: Pair) -> Glance:
    made = pipeline.context(pair.question, budget=tried.budget, changes=tried.changes)
    held = metrics.answer_in_context(made.context.text, pair.answers, language=pair.language)
    return Glance(held, made.context.tokens, made.prompt_tokens)


def trial(pipeline: Pipeline, tried: Configuration, pair: Pair) -> Trial:
    answer = pipeline.ask(pair.question, budget=tried.budget, changes=tried.changes)
    bill = answer.receipt
    return Trial(quality(answer, pair), bill.prompt_tokens, bill.completion_tokens, bill.cost_usd)


def current(settings: Settings) -> Configuration:
    """What the settings ask for now."""
    return Configuration(settings.budget_tokens, settings.selector, settings.candidates, settings.mode, settings.abstain_below)


def naive(settings: Settings, *, window: int) -> Configuration:
    """What most systems do: the first `naive_k` hybrid chunks in rank order, whole, as far as the reader's window goes."""
    return Configuration(window, "topk", settings.naive_k, "hybrid", 0.0)


def grid(settings: Settings, *, selectors: Sequence[str], budgets: Sequence[int], candidates: Sequence[int],
         modes: Sequence[str]) -> tuple[Configuration, ...]:
    """Every combination once, and the current settings if they are not among them, in order.

    The threshold of abstaining stays as it is: questions that were made from passages are all answerable, and would put it
    to 0 whatever that does to the others.

    Raises:
        InputError, BudgetError, ConfigError: a value that cannot be used.
    """
    for name, values in (("selector", selectors), ("mode", modes)):
        for value in values:
            if value not in configuration.choices(name):
                raise InputError(f"The {name} {value!r} is unknown.", field=f"{name}s",
                                 hint=f"Use one of {', '.join(configuration.choices(name))}.")
    if not all((selectors, budgets, candidates, modes)):
        raise InputError("There is nothing to try: a list of values is empty.", hint="Leave the option out for its default.")
    for budget in budgets:
        if budget < 1:
            raise BudgetError(f"A budget of {budget} tokens is not possible.", hint="Use 1 or more.", field="budgets")
    made = {Configuration(budget, selector, count, mode, settings.abstain_below)
            for budget, selector, count, mode in product(budgets, selectors, candidates, modes)}
    for count in candidates:
        configuration.changed(settings, {"candidates": count})
    return tuple(sorted(made | {current(settings)}))
