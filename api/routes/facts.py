"""What a client has to know before it asks: defaults, limits and prices, and what quality each budget bought, where measured."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.keys import Key
from api.responses import as_json
from api.schemas import responses
from api.service import Service
from api.strict import Caller, StrictRoute, scope, service_of
from eval import last
from rag import __version__, prompts
from rag.errors import CollectionMissing
from rag.settings import choices
from rag.thriftrag import ThriftRAG

router = APIRouter(route_class=StrictRoute, tags=["facts"])
Collection = Annotated[str | None, Query(min_length=1, max_length=64, description="Default: as for asking.")]


@router.get("/v1/settings", summary="Defaults, limits and prices", response_class=Response, responses={
    **responses.success(responses.Settings, "What holds for this key and collection."), **responses.errors(422)})
@scope("read")
async def settings(request: Request, caller: Caller, collection: Collection = None) -> Response:
    """A collection that was tuned has defaults of its own; where there is none of this name, the server's are told."""
    service = service_of(request)
    return as_json(await service.upkeep.run(lambda: _settings(service, caller, collection)))


@router.get("/v1/frontier", summary="Quality for each budget, as measured", response_class=Response, responses={
    **responses.success(responses.Frontiers, "The last tuning of the collection and the last evaluation, null where none was."),
    **responses.errors(404, 422)})
@scope("read")
async def frontier(request: Request, caller: Caller, collection: Collection = None) -> Response:
    """`thriftrag tune` and `thriftrag eval run` make them. The evaluation is not for keys of some collections."""
    service = service_of(request)

    def work() -> dict[str, object]:
        kb = service.shelf.open(caller, service.shelf.named(caller, collection))
        home = service.shelf.settings_of(caller).home
        return {"tuning": last.read(kb.folder / last.TUNING),
                "evaluation": None if caller.collections else last.read(home / last.EVALUATION)}

    return as_json(await service.upkeep.run(work))


def _settings(service: Service, key: Key, collection: str | None) -> dict[str, object]:
    server = service.server
    name = service.shelf.named(key, collection)
    found = _opened(service, key, name)
    own = service.settings if found is None else found.settings
    instructions = sum(len(message.content) for message in prompts.build("", ""))
    return {
        "version": __version__, "collection": name,
        "ask": {"budget_tokens": own.budget_tokens, "max_budget_tokens": server.max_budget_tokens,
                "max_cost_usd": own.max_cost_usd or None, "max_deadline_s": server.max_deadline_s,
                "deadline_s": min(own.deadline_s or server.max_deadline_s, server.max_deadline_s), "selector": own.selector,
                "selectors": list(choices("selector")), "rewriter": own.rewriter, "rewriters": list(choices("rewriter")),
                "fallback": own.fallback, "memory": (own.memory, own.answer_cache) != ("off", "off"),
                "models": list(service.models.names),
                "max_question_chars": own.max_question_chars, "answer_tokens": own.reader_max_tokens,
                "instruction_chars": instructions, "naive_k": own.naive_k},
        "prices": {"prompt": own.price_prompt, "cached": own.price_cached, "completion": own.price_completion,
                   "kwh": own.price_kwh},
        "upload": {"files": server.upload_files, "mb": server.upload_mb, "file_mb": own.max_file_mb},
        "key": {"name": key.name, "scopes": list(key.scopes), "collections": list(key.collections),
                "needed": service.asks_for_keys()},
    }


def _opened(service: Service, key: Key, name: str) -> ThriftRAG | None:
    try:
        return service.shelf.open(key, name)
    except CollectionMissing:
        return None
