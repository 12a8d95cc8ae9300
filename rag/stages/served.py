"""What serves a collection's questions, how a question begins there, and the ceilings that its stages keep to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from optimizers.crossencoder.encoder import CrossEncoder
from rag import clustered_route, ledger, prompts, rewriting, routing
from rag.checks import clean_question
from rag.conversation import Turn
from rag.errors import QuestionTooLong
from rag.filters import Filter
from rag.llm import Reader
from rag.memory import Memory
from rag.pooling import Recent, SentenceVectors
from rag.settings import Settings
from rag.stages.run import UNWATCHED, Candidates, Hooks, Run
from rag.types import Budget
from retrievers.clustered import Clustered
from retrievers.hybrid import Searcher

# A context of known cost: what a prompt costs around any context is the prompt with this one, less this one.
_PROBE = "[1]\n"


@dataclass(frozen=True)
class Served:
    """One collection's snapshot with the models that serve it. `recent`: candidates of questions asked a moment ago."""

    searcher: Searcher
    reader: Reader
    vectors: SentenceVectors
    settings: Settings
    recent: Recent[Candidates] = field(default_factory=lambda: Recent(0))
    cross: CrossEncoder | None = None
    clusters: Clustered | None = None
    memory: Memory | None = None

    @property
    def pair(self) -> routing.Pair | None:
        """The two readers to choose from, where the router is on."""
        return self.reader if isinstance(self.reader, routing.Pair) else None

    @property
    def large(self) -> Reader:
        """The reader for everything but answers."""
        return self.pair.large if self.pair else self.reader


def begun(question: str, served: Served, *, budget: Budget, hooks: Hooks = UNWATCHED, where: Filter | None = None,
          history: Sequence[Turn] = (), silent: bool = False) -> Run:
    """A question at its start, with what it needs of the conversation. Raises QuestionEmpty, QuestionTooLong."""
    run = Run(clean_question(question, limit=served.settings.max_question_chars), budget, hooks, time.monotonic(), where,
              silent=silent)
    if history:
        since = time.monotonic()
        run.take(rewriting.contextual(run.question, history, reader=served.large, settings=quiet(run, served),
                                      limits=limits(run, served)))
        run.rewrite_s += time.monotonic() - since
    return run


def quiet(run: Run, served: Served) -> Settings:
    """The settings, in which a reader that is not to be asked writes no queries."""
    asks = served.settings.rewriter == "llm"
    return replace(served.settings, rewriter="auto") if asks and run.silent else served.settings


def limits(run: Run, served: Served) -> rewriting.Limits:
    """What a call for queries must keep to."""
    fixed = 0 if run.budget.cost_usd is None else served.reader.prompt_tokens(prompts.build(run.asked.told, ""))
    return rewriting.Limits(run.deadline, run.hooks.cancelled, run.budget.cost_usd, fixed)


def context_limit(run: Run, served: Served) -> int:
    """The context budget after the reader's window and the caller's money are taken into account. Raises QuestionTooLong,
    CostExceeded."""
    settings, reader = served.settings, served.reader
    # Which of the two prompts it will be is not known yet.
    fixed = max(reader.prompt_tokens(prompts.build(run.asked.told, _PROBE, overall=overall))
                for overall in (False, True)[:1 + clustered_route.possible(served.clusters, settings)])
    fixed -= reader.tokenizer.count(_PROBE)
    room = reader.context_window - fixed - settings.reader_max_tokens
    if room < 1:
        raise QuestionTooLong(f"The question leaves no room in the reader's window of {reader.context_window} tokens.",
                              hint="Shorten it.", field="question")
    limit = min(run.budget.context_tokens, room)
    if run.budget.cost_usd:
        spent = ledger.cost_usd(run.usage, settings=settings, local_wh=0)
        for table in (ledger.prices(settings), *((ledger.small_prices(settings),) if served.pair else ())):
            affordable = ledger.affordable_context(max_cost=run.budget.cost_usd - spent, fixed_tokens=fixed, settings=settings,
                                                   prices=table)
            limit = limit if affordable is None else min(limit, affordable)
    return limit
