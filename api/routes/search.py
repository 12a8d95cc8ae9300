"""`POST /v1/search`: the passages nearest to a query."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request, Response

from api import asking
from api.asking import Question, filter_of
from api.responses import as_json
from api.schemas import responses
from api.schemas.requests import SearchRequest
from api.stream import result_of
from api.strict import Caller, StrictRoute, scope, service_of, shown
from rag.checks import clean_question
from rag.errors import BudgetError, InputError
from rag.settings import choices
from rag.types import SearchResult

router = APIRouter(route_class=StrictRoute, tags=["search"])


@router.post("/v1/search", summary="Search without asking", response_class=Response, responses={
    **responses.success(responses.SearchResult, "The hits, best first; fewer than `k` where there are fewer."),
    **responses.errors(400, 404, 409, 413, 422, 503)})
@scope("read")
async def search(request: Request, body: SearchRequest, caller: Caller) -> Response:
    """The best `k` passages. A `k` over what the collection holds gives all there are."""
    service = service_of(request)
    if body.mode not in choices("mode"):
        raise InputError(f"Unknown mode {shown(body.mode)}.", field="mode", hint=f"Use one of {', '.join(choices('mode'))}.")
    if body.k > service.server.max_k:
        raise InputError(f"k = {body.k} is over the limit of {service.server.max_k}.", field="k", hint="Use a smaller k.")
    longest = service.server.max_deadline_s
    if body.deadline_s is not None and body.deadline_s > longest:
        raise BudgetError(f"deadline_s = {body.deadline_s} is over the limit of {longest:g}.", field="deadline_s",
                          hint="Use a smaller number.")
    name = service.shelf.named(caller, body.collection)
    query = _cleaned(body.query, limit=service.settings.max_question_chars)
    where = filter_of(body.filters)
    books = service.books(caller, request, "search")
    question = Question(text=query, collection=name, model="", budget_tokens=0, max_cost_usd=None,
                        deadline_s=body.deadline_s or longest, where=where)

    def work() -> SearchResult:
        kb = service.shelf.open(caller, name)
        return asking.search(lambda: kb.find(query, mode=body.mode, k=body.k, where=where), question, books=books)

    future = service.searches.submit(work, after=await service.place(caller))
    found = await result_of(future, receive=request.receive, call_off=lambda: None)
    if "k" in body.model_fields_set and len(found.hits) < body.k:
        found = replace(found, notes=(*found.notes, f"k = {body.k} is more than the {len(found.hits)} passages that were found."))
    return as_json({"query": query, **found.to_dict()})


def _cleaned(query: str, *, limit: int) -> str:
    try:
        return clean_question(query, limit=limit)
    except InputError as error:
        error.field = "query"       # here it goes by this name
        raise
