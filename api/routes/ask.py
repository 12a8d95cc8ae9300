"""`POST /v1/ask`: the answer object, or the same as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack

from fastapi import APIRouter, Request, Response

from api import asking
from api.asking import Abandoned, Question, filter_of
from api.errors import body_of, defect
from api.keys import Key
from api.limits import Cost, worst_case
from api.responses import as_json
from api.schemas import responses
from api.schemas.requests import AskRequest
from api.service import Service
from api.stream import EventStream, Gone, event, result_of
from api.strict import Caller, StrictRoute, scope, service_of, shown
from rag.checks import clean_question
from rag.conversation import Turn, standalone
from rag.errors import BudgetError, InputError, RagError
from rag.settings import choices
from rag.thriftrag import ThriftRAG
from rag.types import Answer
from retrievers.rewriting import proposal

router = APIRouter(route_class=StrictRoute, tags=["ask"])
Event = tuple[str, dict[str, object]]


@router.post("/v1/ask", summary="Ask a question", response_class=Response, responses={
    200: {"model": responses.Answer, "description": "The answer object, or its events where `stream` is true.", "content": {
        "text/event-stream": {"schema": {"type": "string"}, "example": responses.EVENTS_EXAMPLE}}},
    **responses.errors(400, 402, 404, 409, 413, 422, 502, 503, 504)})
@scope("read")
async def ask(request: Request, body: AskRequest, caller: Caller) -> Response:
    """Answers from the collection within the budget, with citations and a receipt. When the documents do not hold the answer, the
    verdict says so: that is an outcome and no error."""
    service = service_of(request)
    running = await begin(service, request, body, caller)
    if body.stream:
        return EventStream(_events(service, request, running, trace=body.trace), ping_s=service.server.ping_s,
                           on_end=running.call_off)
    answer = await result_of(running.future, receive=request.receive, call_off=running.call_off)
    return as_json(answer.to_dict(trace=body.trace))


class Running:
    """A question under way: its future answer, and what it has told so far."""

    def __init__(self, call_off: Callable[[], None]) -> None:
        self.call_off = call_off
        self.told: asyncio.Queue[Event | None] = asyncio.Queue()
        self.future: asyncio.Future[Answer]


async def begin(service: Service, request: Request, body: AskRequest, key: Key, *, endpoint: str = "ask",
                answer_tokens: int | None = None, carried_tokens: int = 0) -> Running:
    """Checks, sets aside and begins. Raises what a refusal is, before anything has been sent or spent. `answer_tokens`: the
    longest answer, where that is shorter than the setting. `carried_tokens`: of the budget, what earlier turns have taken."""
    question, kb, held = await service.at_door(lambda: _admitted(service, body, key, answer_tokens, carried_tokens))
    flag = service.started()
    held.callback(service.ended, flag)
    running = Running(flag.set)
    loop = asyncio.get_running_loop()

    def tell(name: str, data: dict[str, object]) -> None:
        loop.call_soon_threadsafe(running.told.put_nowait, (name, data))

    books = service.books(key, request, endpoint)
    running.future = service.asks.submit(lambda: asking.answer(
        kb, question, books=books, cancelled=flag, tell=tell if body.stream else None), after=held.close)
    running.future.add_done_callback(lambda _: running.told.put_nowait(None))
    return running


def _admitted(service: Service, body: AskRequest, key: Key, answer_tokens: int | None,
              carried_tokens: int) -> tuple[Question, ThriftRAG, ExitStack]:
    """The question, where it is asked, and what gives back the place and the worst case that were taken for it. Blocks on the
    disk; all of it in one go, for every change of threads is felt by whoever waits."""
    question, kb = _checked(service, body, key, answer_tokens, carried_tokens)
    with ExitStack() as taken:
        taken.callback(service.places.take(key))
        taken.callback(service.ceilings.take(key, _cost(question, kb)))
        return question, kb, taken.pop_all()


def _checked(service: Service, body: AskRequest, key: Key, answer_tokens: int | None,
             carried_tokens: int) -> tuple[Question, ThriftRAG]:
    """Everything that can be refused without asking the collection anything."""
    server = service.server
    for setting, chosen in (("selector", body.selector), ("rewriter", body.rewriter), ("fallback", body.fallback)):
        if chosen is not None and chosen not in choices(setting):
            raise InputError(f"Unknown {setting} {shown(chosen)}.", field=setting,
                             hint=f"Use one of {', '.join(choices(setting))}.")
    name = service.shelf.named(key, body.collection)
    text = clean_question(body.question, limit=service.settings.max_question_chars)
    where = filter_of(body.filters)
    model = service.models.checked(body.model)
    kb = service.shelf.open(key, name, model=model)
    for field, value, most in (("budget_tokens", body.budget_tokens, server.max_budget_tokens),
                               ("deadline_s", body.deadline_s, server.max_deadline_s)):
        if value is not None and value > most:
            raise BudgetError(f"{field} = {value} is over the limit of {most:g}.", field=field, hint="Use a smaller number.")
    deadline = min(body.deadline_s or kb.settings.deadline_s or server.max_deadline_s, server.max_deadline_s)
    budget = max(1, (body.budget_tokens or kb.settings.budget_tokens) - carried_tokens)
    shorter = answer_tokens if answer_tokens is not None and answer_tokens < kb.settings.reader_max_tokens else None
    question = Question(text=text, collection=name, model=model, budget_tokens=budget,
                        max_cost_usd=body.max_cost_usd or kb.settings.max_cost_usd or None, deadline_s=deadline,
                        selector=body.selector, where=where, answer_tokens=shorter, rewriter=body.rewriter, memory=body.memory,
                        fallback=body.fallback,
                        history=tuple(Turn(turn.role, turn.content) for turn in body.history))
    return question, kb


def _cost(question: Question, kb: ThriftRAG) -> Cost:
    settings = kb.settings
    both = settings.router != "off"     # then two readers may be asked with the same prompt
    rewrites = (question.rewriter or settings.rewriter) == "llm"
    said = standalone(question.text, question.history).added
    if rewrites and question.history:
        said += "".join(message.content for message in proposal.messages(question.text, question.history))
    return worst_case(question=question.text, said=said, rewrites=rewrites, budget_tokens=question.budget_tokens,
                      answer_tokens=question.answer_tokens or settings.reader_max_tokens,
                      price_prompt=settings.price_prompt + (settings.price_small_prompt if both else 0.0),
                      price_completion=settings.price_completion + (settings.price_small_completion if both else 0.0),
                      max_cost_usd=question.max_cost_usd, calls=2 if both else 1)


async def _events(service: Service, request: Request, running: Running, *, trace: bool) -> AsyncGenerator[bytes, None]:
    """What a stream sends: status and tokens as they come, then citations, receipt and done, or an error."""
    service.metrics.streams.inc()
    try:
        yield event("status", {"stage": "queued", "seconds": 0.0})
        while (told := await running.told.get()) is not None:
            yield event(*told)
        try:
            answer = running.future.result()
        except (Abandoned, asyncio.CancelledError):
            raise Gone from None
        except RagError as error:
            yield event("error", body_of(error, request_id=str(request.state.request_id), hidden=service.hidden))
            return
        except Exception:  # recorded where it arose; a stream that has begun can only say so
            yield event("error", body_of(defect(), request_id=str(request.state.request_id)))
            return
        row = answer.to_dict(trace=trace)
        yield event("citations", {name: row[name] for name in ("answer", "verdict", "reason", "citations")})
        yield event("receipt", row["receipt"])
        yield event("done", row)
    finally:
        service.metrics.streams.dec()
