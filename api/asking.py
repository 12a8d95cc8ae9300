"""One question on a worker thread: its deadline counts from its arrival, its client can call it off, and what it took is billed
in any case, also when nobody is left to hear the answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from api.keys import Key
from api.metrics import Metrics
from api.tracing import Tracing
from api.usage import Entry, Ledger, Lost
from rag import ledger
from rag.conversation import Turn
from rag.errors import BudgetExceeded, DeadlineExceeded, InputError, RagError, UpstreamError
from rag.filters import Filter, as_filter
from rag.thriftrag import ThriftRAG
from rag.types import Answer, Receipt, SearchResult, Step, Usage

T = TypeVar("T")
# What a stream is told: the name of the event and its data.
Tell = Callable[[str, dict[str, object]], None]
# From here on the reader has been paid, so the answer is finished and billed even when nobody waits.
_PAID = ("generate", "check")
_FRESH: Mapping[str, object] = {"memory": "off", "answer_cache": "off"}


class Abandoned(Exception):
    """The client left before anything was paid."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request, checked. `deadline_s` counts from `arrived`, a `time.monotonic()` instant; None sets none."""

    text: str
    collection: str
    model: str
    budget_tokens: int
    max_cost_usd: float | None
    deadline_s: float | None
    selector: str | None = None
    where: Filter | None = None
    answer_tokens: int | None = None    # the longest answer, where it is not the setting's
    rewriter: str | None = None
    history: tuple[Turn, ...] = ()
    memory: bool = True
    fallback: str | None = None
    arrived: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Books:
    """Where what was spent is written down, and for whom."""

    ledger: Ledger
    metrics: Metrics
    key: Key
    request_id: str
    endpoint: str
    tracing: Tracing = field(default_factory=Tracing)


def answer(kb: ThriftRAG, question: Question, *, books: Books, cancelled: threading.Event, tell: Tell | None) -> Answer:
    """The answer, recorded in the ledger. `tell` hears each finished stage and each piece of text, in this thread.

    Raises:
        Abandoned: `cancelled` was set before the reader was asked. What `ThriftRAG.ask` raises.
    """
    waited = time.monotonic() - question.arrived
    books.metrics.queue_seconds.labels("ask").observe(waited)

    paid = False

    def on_step(step: Step) -> None:
        nonlocal paid
        books.metrics.stage(step)
        books.tracing.stage(step)
        # Also by the reader's own queries: what they took is in the receipt of an answer alone.
        paid = paid or step.stage in _PAID or "completion_tokens" in step.facts
        if cancelled.is_set() and not paid:
            raise Abandoned
        if tell is not None:
            tell("status", {"stage": step.stage, "seconds": round(step.seconds, 6)})

    def on_token(text: str) -> None:
        if tell is not None:
            tell("token", {"text": text})

    def work() -> Answer:
        if cancelled.is_set():
            raise Abandoned
        left = _left(question, waited)
        asked = (("reader_max_tokens", question.answer_tokens), ("rewriter", question.rewriter), ("fallback", question.fallback))
        changes = {**({} if question.memory else _FRESH), **{name: value for name, value in asked if value is not None}}
        return kb.ask(question.text, budget=question.budget_tokens, max_cost=question.max_cost_usd, deadline=left,
                      selector=question.selector, where=question.where, history=question.history, changes=changes or None,
                      on_token=on_token if tell is not None else None, on_step=on_step, cancelled=cancelled.is_set)

    found = _recorded(work, question, books, ended=lambda answer: _ended(answer, cancelled),
                      price=lambda spent: ledger.cost_usd(spent, settings=kb.settings, local_wh=0.0))
    books.metrics.answered(found)
    return found


def search(find: Callable[[], SearchResult], question: Question, *, books: Books) -> SearchResult:
    """What `find` finds, recorded in the ledger.

    Raises:
        DeadlineExceeded: the question waited in line until its deadline. What `find` raises.
    """
    waited = time.monotonic() - question.arrived
    books.metrics.queue_seconds.labels("search").observe(waited)

    def work() -> SearchResult:
        _left(question, waited)
        return find()

    return _recorded(work, question, books, ended=lambda _: ("found", "", None))


def _left(question: Question, waited: float) -> float | None:
    """Seconds until the deadline; None where there is none. Raises DeadlineExceeded: it passed in line."""
    left = None if question.deadline_s is None else question.deadline_s - waited
    if left is not None and left <= 0:
        raise DeadlineExceeded(f"The deadline of {question.deadline_s:g} s passed while the question waited in line.",
                               hint="Allow more time with deadline_s, or try again when the server is less busy.")
    return left


def filter_of(given: Mapping[str, object] | None) -> Filter | None:
    """The filter of a request. Raises InputError: it is none."""
    try:
        return as_filter(given)
    except InputError as error:
        error.field = "filters"     # here it goes by this name
        raise


def _ended(answer: Answer, cancelled: threading.Event) -> tuple[str, str, Receipt]:
    stopped = cancelled.is_set() and answer.verdict == "degraded"
    return "cancelled" if stopped else answer.verdict, answer.id, answer.receipt


def _recorded(work: Callable[[], T], question: Question, books: Books, *,
                 ended: Callable[[T], tuple[str, str, Receipt | None]], price: Callable[[Usage], float] = lambda _: 0.0) -> T:
    """The result of `work`, with one row in the ledger however it ends: also what a reader was paid that then failed."""
    def record(outcome: str, answer_id: str = "", receipt: Receipt | None = None, spent: Usage | None = None) -> None:
        books.metrics.answers.labels(outcome).inc()
        model = question.model if receipt is None else receipt.model
        lost = None if spent is None else Lost(spent.prompt_tokens, spent.completion_tokens, price(spent))
        if lost is not None:
            books.metrics.lost(prompt=lost.prompt_tokens, completion=lost.completion_tokens, usd=lost.cost_usd)
        books.ledger.record(Entry(books.key, question.collection, model, books.endpoint, books.request_id, outcome, answer_id,
                                  round(time.monotonic() - question.arrived, 6)), receipt, lost=lost)

    try:
        result = work()
    except Abandoned:
        record("cancelled")
        raise
    except BudgetExceeded as error:
        books.metrics.violations.inc()
        record(error.code)
        raise
    except UpstreamError as error:
        record(error.code, spent=error.spent)
        raise
    except RagError as error:
        record(error.code)
        raise
    except Exception:
        record("internal_error")
        raise
    record(*ended(result))
    return result
