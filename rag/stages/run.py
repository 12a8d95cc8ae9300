"""One question on its way: its clock, its trace, what it has spent, and what the stages hand to one another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from optimizers.pool import Pool, Unit, Watch
from optimizers.router import Size
from rag import clustered_route, rewriting
from rag.errors import DeadlineExceeded
from rag.filters import Filter
from rag.memory import Recalled
from rag.types import Budget, Extract, ScoredChunk, Step, Usage
from retrievers.hybrid import Found
from retrievers.second_look import SecondLook


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a caller may watch or stop."""

    on_token: Callable[[str], None] | None = None
    on_step: Callable[[Step], None] | None = None
    cancelled: Callable[[], bool] | None = None
    on_search: Watch | None = None      # the way to the choice, once it is made


UNWATCHED = Hooks()


@dataclass(frozen=True, slots=True)
class Candidates:
    """What was found, the pool made of it, what the naive prompt would have cost, and the searches behind them."""

    hits: Sequence[ScoredChunk]
    pool: Pool
    naive_tokens: int
    search: Found
    second: SecondLook
    rewrite: Mapping[str, object] | None = None     # facts of that stage, None where it was not taken
    clustered: clustered_route.Routed = clustered_route.ORDINARY


@dataclass(frozen=True, slots=True)
class Choice:
    """The ordered choice, what the naive prompt would have cost, and why the choice is not to be read, or None."""

    extracts: tuple[Extract, ...]
    naive_tokens: int
    reason: str | None = None


@dataclass(slots=True)
class Run:
    """The state of one question. `question`: as it was asked."""

    question: str
    budget: Budget
    hooks: Hooks
    started: float
    where: Filter | None = None
    steps: list[Step] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    small_usage: Usage = field(default_factory=Usage)       # of the router's small reader
    answered_by: Size = "large"
    seen: tuple[Pool, Mapping[Unit, float]] | None = None   # what the choice was made from, for the router
    encoder_s: float = 0.0
    counted: bool = True
    degraded: str | None = None     # why the context is not what it would have been
    overall: bool = False           # the question is about all texts together, and answered from summaries
    asked: rewriting.Asked = field(init=False)
    silent: bool = False            # the reader is not to be asked
    rewrite_s: float = 0.0
    recalled: Recalled | None = None
    pool: Pool | None = None        # what was chosen from, less what the knowledge filter dropped
    read: Pool | None = None        # the same where the index gave it
    guessed: tuple[str, ...] = ()   # fields of the receipt that are no measurements here

    def __post_init__(self) -> None:
        self.asked = rewriting.Asked(self.question, self.question)

    @property
    def deadline(self) -> float | None:
        return None if self.budget.seconds is None else self.started + self.budget.seconds

    def take(self, asked: rewriting.Asked) -> None:
        """The question as it goes on, and what that cost, which is spent but once."""
        self.asked = replace(asked, usage=Usage())
        self.usage += asked.usage
        self.counted = self.counted and asked.counted

    def spend(self, *, encoder_passes: int, since: float) -> None:
        """Adds work of the encoder that ends now."""
        self.usage += Usage(encoder_passes=encoder_passes)
        self.encoder_s += time.monotonic() - since

    def bill(self, usage: Usage, *, counted: bool, small: bool) -> None:
        """Adds a reader's call, the router's small reader's apart. `counted`: by the reader itself."""
        if small:
            self.small_usage += usage
        else:
            self.usage += usage
        self.counted = self.counted and counted

    def record(self, stage: str, since: float, **facts: object) -> None:
        """Adds a finished stage to the trace."""
        step = Step(stage, time.monotonic() - since, facts)
        self.steps.append(step)
        if self.hooks.on_step:
            self.hooks.on_step(step)

    def step(self, stage: str, since: float, **facts: object) -> None:
        """Records a stage that comes before there is an answer: past the deadline there will be none."""
        self.record(stage, since, **facts)
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise DeadlineExceeded(f"The deadline of {self.budget.seconds:g} s passed in stage {stage!r}.",
                                   hint="Raise --deadline, or lower `candidates`.")

    def halfway(self) -> Callable[[], bool]:
        """A stop for a stage that others follow: it says so when half of the time that is left is gone."""
        now = time.monotonic()
        until = None if self.deadline is None else now + (self.deadline - now) / 2
        return lambda: self.stopped() or (until is not None and time.monotonic() > until)

    def stopped(self) -> bool:
        if self.hooks.cancelled is not None and self.hooks.cancelled():
            return True
        return self.deadline is not None and time.monotonic() > self.deadline

    def seconds(self) -> dict[str, float]:
        """By stage; one that ran twice counts twice. `total`: since the question was asked."""
        spent: dict[str, float] = {}
        for step in self.steps:
            spent[step.stage] = spent.get(step.stage, 0.0) + step.seconds
        return {**{stage: round(seconds, 6) for stage, seconds in spent.items()},
                "total": round(time.monotonic() - self.started, 6)}
