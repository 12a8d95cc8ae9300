"""`POST /v1/chat/completions`: a collection as a model of any OpenAI client. The same checks, lanes, limits and ledger as
`/v1/ask`; only the shapes are others."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence

from fastapi import APIRouter, Request, Response

from api import openai_errors
from api.asking import Abandoned
from api.completions import DONE, NOTHING_SAID, Shape, failed, named
from api.errors import defect
from api.responses import as_json
from api.routes.ask import Running, begin
from api.schemas import chat
from api.schemas.chat import ChatRequest
from api.schemas.requests import AskRequest, TurnOfTalk
from api.service import Service
from api.stream import EventStream, Gone, result_of
from api.strict import Caller, StrictRoute, scope, service_of
from rag.conversation import Standalone, Turn, standalone
from rag.errors import InputError, RagError
from rag.rewriting import TURN_CHARS, TURNS

router = APIRouter(route_class=StrictRoute, tags=["openai"])
_CHUNKS = 'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"27 months"}}]}\n\n' \
          "data: [DONE]\n\n"


@router.post("/v1/chat/completions", summary="Ask as an OpenAI client", response_class=Response, responses={
    200: {"model": chat.Completion, "description": "The completion, or its chunks where `stream` is true.", "content": {
        "text/event-stream": {"schema": {"type": "string"}, "example": _CHUNKS}}},
    **chat.errors(400, 404, 409, 413, 502, 503, 504)})
@scope("read")
async def complete(request: Request, body: ChatRequest, caller: Caller) -> Response:
    """The last user turn is the question; earlier turns are used where it leans on them. `thriftrag` beside OpenAI's own fields is
    the answer object of `/v1/ask`."""
    service = service_of(request)
    chat.check(body)
    text, before = chat.conversation(body.messages)
    # What precedes is read no further than a question may be long.
    question = standalone(text, before) if len(text) <= service.settings.max_question_chars else Standalone(text)
    running = await begin(service, request, _asked(body, text, before), caller, endpoint="chat", answer_tokens=body.longest(),
                          carried_tokens=question.tokens)
    shape = Shape(id=f"chatcmpl-{uuid.uuid4().hex}", model=body.model, created=int(time.time()), trace=body.trace,
                  usage=body.stream_options is not None and bool(body.stream_options.include_usage), carried=question.carried,
                  ignored=tuple(body.ignored()))
    if body.stream:
        return EventStream(_chunks(service, request, running, shape), ping_s=service.server.ping_s, on_end=running.call_off)
    answer = await result_of(running.future, receive=request.receive, call_off=running.call_off)
    return as_json(shape.completion(answer))


def _asked(body: ChatRequest, question: str, before: Sequence[Turn]) -> AskRequest:
    """The same as `/v1/ask` takes it. Raises as `named`, and InputError: the model's name and a field disagree."""
    model = named(body.model)
    for field, by_name, given in (("collection", model.collection, body.collection),
                                  ("budget_tokens", model.budget_tokens, body.budget_tokens)):
        if by_name is not None and given is not None and by_name != given:
            raise InputError(f"The model's name says {field} {by_name}, and the field says {given}.", field=field,
                             hint="Say it once.")
    return AskRequest(question=question, collection=body.collection or model.collection,
                      budget_tokens=body.budget_tokens or model.budget_tokens, max_cost_usd=body.max_cost_usd,
                      deadline_s=body.deadline_s, selector=body.selector, fallback=body.fallback, filters=body.filters,
                      memory=body.memory, model=body.reader, rewriter=body.rewriter, stream=bool(body.stream), trace=body.trace,
                      history=[TurnOfTalk(role=turn.role, content=turn.text[:TURN_CHARS]) for turn in before[-TURNS:]])


async def _chunks(service: Service, request: Request, running: Running, shape: Shape) -> AsyncGenerator[bytes, None]:
    """What a stream sends: the text as it comes, why it ended, and the usage where that was asked for; or an error."""
    service.metrics.streams.inc()
    request_id = str(request.state.request_id)
    silent = True
    try:
        yield shape.chunk("", first=True)
        while (told := await running.told.get()) is not None:
            name, data = told
            if name == "token":
                silent = False
                yield shape.chunk(str(data["text"]))
        try:
            answer = running.future.result()
        except (Abandoned, asyncio.CancelledError):
            raise Gone from None
        except RagError as error:
            yield failed(openai_errors.body(error, request_id=request_id, hidden=service.hidden))
            return
        except Exception:  # recorded where it arose; a stream that has begun can only say so
            yield failed(openai_errors.body(defect(), request_id=request_id))
            return
        if silent:
            yield shape.chunk(answer.text or NOTHING_SAID)
        yield shape.last(answer)
        if shape.usage:
            yield shape.bill(answer.receipt)
        yield DONE
    finally:
        service.metrics.streams.dec()
