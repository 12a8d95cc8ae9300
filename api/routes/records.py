"""What was spent, and what people thought of it."""

from __future__ import annotations

import uuid
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.errors import NotFound
from api.keys import now
from api.responses import as_json
from api.schemas import responses
from api.schemas.requests import FeedbackRequest
from api.strict import Caller, StrictRoute, scope, service_of, shown
from api.usage import GROUPS
from rag.errors import InputError

router = APIRouter(route_class=StrictRoute, tags=["records"])
_EXAMPLE = {"group_by": ["day", "model"], "rows": [{
    "day": "2030-01-01", "model": "qwen2.5-coder-1.5b-instruct", "requests": 12, "prompt_tokens": 3744, "completion_tokens": 216,
    "cached_tokens": 0, "saved_tokens": 8544, "llm_calls": 12, "encoder_passes": 300, "cost_usd": 0.0, "seconds": 22.8}],
    "total": {"requests": 12, "prompt_tokens": 3744, "completion_tokens": 216, "cached_tokens": 0, "saved_tokens": 8544,
              "llm_calls": 12, "encoder_passes": 300, "cost_usd": 0.0, "seconds": 22.8}}
GroupBy = Annotated[str, Query(max_length=200, description=f"Some of {', '.join(GROUPS)}, separated by commas.")]
Day = Annotated[str | None, Query(max_length=10, description="A day as YYYY-MM-DD, in UTC, inclusive.")]


@router.get("/v1/usage", summary="What was spent", response_class=Response, responses={
    **responses.success(responses.Usage, "Sums of the ledger.", _EXAMPLE), **responses.errors(422)})
@scope("read")
async def usage(request: Request, caller: Caller, group_by: GroupBy = "day", since: Day = None, until: Day = None) -> Response:
    """Of the own key; an admin sees every key of the tenant, and one without a tenant sees all."""
    wanted = [part.strip() for part in group_by.split(",") if part.strip()]
    wrong = [part for part in wanted if part not in GROUPS]
    if wrong:
        raise InputError(f"Usage cannot be grouped by {shown(wrong[0])}.", field="group_by",
                         hint=f"Use some of {', '.join(GROUPS)}.")
    days = [_day(name, value) for name, value in (("since", since), ("until", until))]
    service = service_of(request)

    def work() -> dict[str, object]:
        rows = service.ledger.summed(by=wanted, key=caller, since=days[0], until=days[1])
        [total] = service.ledger.summed(by=(), key=caller, since=days[0], until=days[1])
        return {"group_by": [group for group in GROUPS if group in wanted], "rows": rows if wanted else [], "total": total}

    return as_json(await service.upkeep.run(work))


@router.post("/v1/feedback", summary="Rate an answer", status_code=201, response_class=Response, responses={
    **responses.success(responses.Feedback, "It is kept.", status=201), **responses.errors(400, 404, 413, 422)})
@scope("read")
async def feedback(request: Request, body: FeedbackRequest, caller: Caller) -> Response:
    """Keeps what a person thinks of an answer that this key was given."""
    service = service_of(request)

    def work() -> str:
        if not service.ledger.answered(body.answer_id, key=caller):
            raise NotFound("There is no such answer.", field="answer_id", code="answer_missing",
                           hint="Send the id of an answer that this key was given.")
        feedback_id = uuid.uuid4().hex
        service.database.write("INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (
            feedback_id, now(), caller.id, caller.tenant, body.answer_id, body.rating, body.comment, body.expected))
        return feedback_id

    return as_json({"id": await service.upkeep.run(work)}, status=201)


def _day(name: str, value: str | None) -> str | None:
    try:
        return None if value is None else date.fromisoformat(value).isoformat()
    except ValueError:
        raise InputError(f"{name} = {shown(value)} is no day.", field=name, hint="Write it as YYYY-MM-DD.") from None
