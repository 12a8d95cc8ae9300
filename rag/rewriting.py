"""The stage `rewrite`: which further queries a question gets, and what they cost. `retrievers.rewriting` searches them.

    off        the question alone (a second look follows, if `second_look` says so)
    feedback   pseudo-relevance feedback: what the best passages have in common
    bridge     feedback, and what the best passages mention, in rounds
    auto       `bridge` where the first look suggests that it helps, nothing elsewhere
    llm        as `auto`, and where it helps the reader is asked for queries, in one call

What a conversation leaves unsaid is put back first: by the reader in the way `llm`, else by words that are carried over
(`rag.conversation`).
Whatever a model replies, the question goes on: a reply that cannot be used is told in the trace and paid for in the receipt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rag import conversation, ledger
from rag.conversation import Turn
from rag.errors import InputError, RagError
from rag.filters import Filter
from rag.llm import Constrained, Generation, Message, Reader
from rag.settings import Settings
from rag.types import Usage
from retrievers.hybrid import Found, Searcher
from retrievers.rewriting import gate, proposal
from retrievers.rewriting.model import Model, shipped
from retrievers.rewriting.proposal import SearchQuery
from retrievers.rewriting.search import DEPTH, rewritten

__all__ = ["DEPTH", "Asked", "Limits", "contextual", "opened", "proposed", "searched", "turns", "with_proposals"]

# Turns and characters of a conversation that are looked at; callers may send more.
TURNS = 20
TURN_CHARS = 8000
_ROLES: Mapping[str, Literal["user", "assistant"]] = {"user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Asked:
    """The question as the stages after it get it. `search`: what is searched; `told`: what the reader is told. `queries`: to search
    beside it. `proposed`: whether a model was asked already. `facts`: for the trace, empty where nothing was done."""

    search: str
    told: str
    queries: tuple[SearchQuery, ...] = ()
    proposed: bool = False
    facts: Mapping[str, object] = field(default_factory=dict)
    usage: Usage = Usage()
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call to a model must keep to. `cost_usd`: for the whole answer, None for any; `least_tokens`: of the prompt that the
    answer needs in any case."""

    deadline: float | None
    cancelled: Callable[[], bool] | None
    cost_usd: float | None
    least_tokens: int


def turns(given: Sequence[Turn | Mapping[str, object]]) -> tuple[Turn, ...]:
    """The last turns of a conversation, from `Turn`s or mappings with `role` and `content`.

    Raises:
        InputError: one has another role, or no text, naming its place.
    """
    found = []
    for place, turn in enumerate(given):
        role, content = (turn.role, turn.text) if isinstance(turn, Turn) else (turn.get("role"), turn.get("content"))
        if not isinstance(role, str) or role not in _ROLES or not isinstance(content, str):
            raise InputError(f"history[{place}] is no turn of a conversation.", field="history", code="history_invalid",
                             hint='Each has a "role", user or assistant, and a text "content".')
        found.append(Turn(_ROLES[role], content[:TURN_CHARS]))
    return tuple(found[-TURNS:])


def contextual(question: str, said: Sequence[Turn], *, reader: Reader, settings: Settings, limits: Limits) -> Asked:
    """The question with what a conversation leaves unsaid; as it is without one."""
    if not said:
        return Asked(question, question)
    alone = conversation.standalone(question, said)
    asked = Asked(alone.text, alone.text, facts={"history": len(said), "carried": list(alone.carried)})
    if settings.rewriter != "llm" or not conversation.leans(question):
        return asked
    told = proposed(question, said, reader=reader, settings=settings, limits=limits)
    return _with(asked, told, standalone=told.search if told.search != question else None)


def opened(asked: Asked, first: Found, *, searcher: Searcher, settings: Settings, model: Model | None = None
           ) -> tuple[bool, float | None]:
    """Whether the question's first look calls for more, and the chance that more helps, where that was asked."""
    if settings.rewriter in ("feedback", "bridge"):
        return True, None
    weighing = shipped() if model is None else model
    [chance] = weighing.gate.of([gate.shape(asked.search, first, searcher=searcher)])
    return bool(chance >= weighing.open_from), float(chance)


def searched(query: str, *, searcher: Searcher, k: int, where: Filter | None, settings: Settings) -> Found:
    """The best `k` of a hybrid search that is rewritten without a reader."""
    [vector] = searcher.encoder.encode([query])
    first = searcher.find(query, mode="hybrid", k=max(k, DEPTH), vector=vector, where=where, settings=settings)
    if first.hits and opened(Asked(query, query), first, searcher=searcher, settings=settings)[0]:
        return rewritten(query, first, searcher=searcher, vector=vector, k=k, bridges=settings.rewriter != "feedback", where=where,
                         settings=settings).found
    return Found(first.hits[:k], first.rows[:k], first.plan)


def with_proposals(asked: Asked, *, reader: Reader, settings: Settings, limits: Limits) -> Asked:
    """With the queries of a model, unless one was asked already."""
    if settings.rewriter != "llm" or asked.proposed:
        return asked
    return _with(asked, proposed(asked.told, (), reader=reader, settings=settings, limits=limits), standalone=None)


def proposed(question: str, said: Sequence[Turn], *, reader: Reader, settings: Settings, limits: Limits) -> Asked:
    """What one call to the reader proposes. `search` is the question unless it said a better one. Never raises for what the reader
    does or replies."""
    messages = proposal.messages(question, said)
    refused = _unaffordable(reader.prompt_tokens(messages), settings=settings, limits=limits)
    if refused:
        return Asked(question, question, proposed=True, facts={"problems": [refused]})
    try:
        generation = _generated(reader, messages, limits)
    except RagError as error:
        return Asked(question, question, proposed=True, facts={"problems": [f"{error.code}: the reader did not reply"]})
    usage = Usage(prompt_tokens=generation.prompt_tokens, completion_tokens=generation.completion_tokens,
                  cached_tokens=generation.cached_tokens, llm_calls=1, llm_seconds=generation.seconds)
    found = proposal.read(generation.text, question, said)
    told = found.question or question
    facts: dict[str, object] = {"model": reader.name, "finish": generation.finish, "prompt_tokens": generation.prompt_tokens,
                                "completion_tokens": generation.completion_tokens}
    if found.problems:
        facts["problems"] = list(found.problems)
    return Asked(told, told, found.queries, True, facts, usage, generation.counted_by == "server")


def _generated(reader: Reader, messages: Sequence[Message], limits: Limits) -> Generation:
    # Half of the time that is left: an answer is to come after it.
    now = time.monotonic()
    deadline = None if limits.deadline is None else now + (limits.deadline - now) / 2
    if isinstance(reader, Constrained):
        return reader.generate_json(messages, schema=proposal.SCHEMA, max_tokens=proposal.REPLY_TOKENS, deadline=deadline,
                                    cancelled=limits.cancelled)
    return reader.generate(messages, max_tokens=proposal.REPLY_TOKENS, deadline=deadline, cancelled=limits.cancelled)


def _unaffordable(prompt_tokens: int, *, settings: Settings, limits: Limits) -> str | None:
    """Why the call could leave too little money for an answer without context, or None."""
    if limits.cost_usd is None:
        return None
    worst = Usage(prompt_tokens=prompt_tokens + limits.least_tokens,
                  completion_tokens=proposal.REPLY_TOKENS + settings.reader_max_tokens)
    if ledger.cost_usd(worst, settings=settings, local_wh=0) <= limits.cost_usd:
        return None
    return "no call was made: with it an answer could cost more than max_cost_usd"


def _with(asked: Asked, told: Asked, *, standalone: str | None) -> Asked:
    """`asked` with what a model said. A self-contained question takes the place of the one that was made without it, which is then
    one of the queries."""
    queries = told.queries
    if standalone is not None and asked.search != standalone:
        queries = (SearchQuery(asked.search, "history"), *queries)
    return Asked(standalone or asked.search, standalone or asked.told, queries, True, {**asked.facts, **told.facts}, told.usage,
                 told.counted)
