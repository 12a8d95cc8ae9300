"""Question to answer: the only place where stages meet. `rag.stages` has them.

    trigger -> rewrite -> retrieve -> read -> filter -> select -> render -> generate -> check -> receipt
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from optimizers.context import render
from optimizers.pool import Pool
from rag import prompts
from rag.conversation import Turn
from rag.errors import UpstreamError
from rag.filters import Filter
from rag.llm import Message
from rag.llm.absent import AbsentReader
from rag.recall import Asking
from rag.stages import remembered
from rag.stages.choosing import chosen
from rag.stages.ending import EMPTY, checked, extracted, finished, repeated
from rag.stages.generating import generated
from rag.stages.run import UNWATCHED, Choice, Hooks, Run
from rag.stages.searching import searched
from rag.stages.served import Served, begun, context_limit
from rag.types import Answer, Budget, Context, Extract, Prepared
from retrievers.clustered import is_summary


def ask(question: str, served: Served, *, budget: Budget, hooks: Hooks = UNWATCHED, where: Filter | None = None,
        history: Sequence[Turn] = ()) -> Answer:
    """The answer within `budget` from the documents that `where` allows, its citations and its receipt. `history`: what was
    said before, the newest last.

    Raises:
        QuestionEmpty, QuestionTooLong, BudgetError, CostExceeded, DeadlineExceeded, UpstreamError.
    """
    since = time.monotonic()
    try:
        return _asked(begun(question, served, budget=budget, hooks=hooks, where=where, history=history), served)
    except UpstreamError as error:
        left = None if budget.seconds is None else budget.seconds - (time.monotonic() - since)
        # It could not even count: without it then. What fails in the call itself is met where the context is at hand.
        if served.settings.fallback == "none" or (left is not None and left <= 0):
            raise
        absent = replace(served, reader=AbsentReader(served.large, error))
        return _asked(begun(question, absent, budget=replace(budget, seconds=left), hooks=hooks, where=where, history=history),
                      absent)


def context(question: str, served: Served, *, budget: Budget, extracts: Sequence[Extract] | None = None,
            where: Filter | None = None, history: Sequence[Turn] = ()) -> Prepared:
    """What `ask`, or `answer_from` where `extracts` are given, would send to the reader, which is not asked, not for queries
    either. Raises as they do, but for UpstreamError."""
    run = begun(question, served, budget=budget, where=where, history=history, silent=True)
    limit = context_limit(run, served)
    if extracts is None:
        remembered.recall(run, served, limit=limit)
        choice = _chosen(run, served, limit=limit)
    else:
        choice = Choice(tuple(extracts), 0)
    since = time.monotonic()
    rendered = render(choice.extracts, counter=served.reader.tokenizer, budget=limit) if choice.extracts else EMPTY
    tokens = 0 if choice.reason else served.reader.prompt_tokens(_messages(run, rendered))
    run.step("render", since, tokens=rendered.tokens, passages=len(rendered.passages))
    return Prepared(question=run.question, context=rendered, reason=choice.reason, prompt_tokens=tokens,
                    naive_tokens=choice.naive_tokens or tokens, encoder_passes=run.usage.encoder_passes, seconds=run.seconds(),
                    trace=tuple(run.steps))


def answer_from(question: str, served: Served, *, extracts: Sequence[Extract], budget: Budget, overall: bool | None = None
                ) -> Answer:
    """The answer from a given ordered choice, which must fit the budget; empty asks the reader alone. `overall`: whether it is
    asked for what all texts say together; None: where summaries are among them."""
    run = begun(question, served, budget=budget)
    run.overall = any(is_summary(extract.chunk) for extract in extracts) if overall is None else overall
    return _answered(run, served, extracts, limit=context_limit(run, served), naive=None)


def pool(question: str, served: Served, *, where: Filter | None = None) -> Pool:
    """What a selector would see for this question: for fitting and inspecting selectors without asking the reader."""
    return searched(begun(question, served, budget=Budget(1), where=where, silent=True), served).pool


def asking(question: str, served: Served, *, where: Filter | None = None) -> Asking:
    """A question as memory takes it, for fitting and inspecting: under no budget."""
    return remembered.asking(begun(question, served, budget=Budget(1), where=where, silent=True), served, limit=1)


def _asked(run: Run, served: Served) -> Answer:
    limit = context_limit(run, served)
    remembered.recall(run, served, limit=limit)
    if run.recalled is not None and run.recalled.answer is not None:
        return repeated(run, served, run.recalled.answer)
    choice = _chosen(run, served, limit=limit)
    if choice.reason:
        shown = render(choice.extracts, counter=served.reader.tokenizer, budget=limit) if choice.extracts else EMPTY
        return finished(run, served, EMPTY, naive=choice.naive_tokens, verdict="abstained", reason=choice.reason, shown=shown)
    answer = _answered(run, served, choice.extracts, limit=limit, naive=choice.naive_tokens)
    remembered.remember(run, served, limit=limit, answer=answer)
    return answer


def _chosen(run: Run, served: Served, *, limit: int) -> Choice:
    """From what memory offers; where that has nothing to read after all, from what a search finds."""
    offered = remembered.candidates(run)
    if offered is not None:
        run.guessed = ("naive_tokens", "saved_tokens")
        choice = chosen(run, served, offered, limit=limit)
        if choice.reason is None:
            return choice
        run.guessed = ()
    found = searched(run, served)
    run.overall = found.clustered.summaries is not None
    choice = chosen(run, served, found, limit=limit)
    run.read = None if run.overall else run.pool or found.pool
    return choice


def _answered(run: Run, served: Served, extracts: Sequence[Extract], *, limit: int, naive: int | None) -> Answer:
    """`naive`: tokens of the naive prompt; None: there is none but the one that is sent."""
    since = time.monotonic()
    rendered = render(extracts, counter=served.reader.tokenizer, budget=limit)
    messages = _messages(run, rendered)
    if naive is None:
        naive = served.reader.prompt_tokens(messages)
    run.step("render", since, tokens=rendered.tokens, passages=len(rendered.passages))
    try:
        generation = generated(run, served, messages, extracts=extracts, context=rendered)
    except UpstreamError as error:
        if served.settings.fallback == "none":
            raise
        return extracted(run, served, rendered, naive=naive, error=error)
    return checked(run, served, generation, context=rendered, naive=naive)


def _messages(run: Run, rendered: Context) -> list[Message]:
    return prompts.build(run.asked.told, rendered.text, overall=run.overall)
