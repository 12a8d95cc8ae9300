"""`GET /v1/models`: the collections that a key can use, as OpenAI lists models."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request, Response

from api.completions import OWNER, listed, model_id, named
from api.responses import as_json
from api.schemas import chat
from api.strict import Caller, StrictRoute, scope, service_of
from rag.thriftrag import CollectionInfo

router = APIRouter(route_class=StrictRoute, tags=["openai"])


@router.get("/v1/models", summary="List collections as models", response_class=Response, responses={
    200: {"model": chat.ModelList, "description": "Those that the key can use."}, **chat.errors()})
@scope("read")
async def list_models(request: Request, caller: Caller) -> Response:
    """Each can be asked under this id, or under it with `:BUDGET` at its end."""
    service = service_of(request)
    found = await service.upkeep.run(lambda: service.shelf.listed(caller))
    return as_json(listed([_row(info) for info in found]))


@router.get("/v1/models/{model:path}", summary="Show a collection as a model", response_class=Response, responses={
    200: {"model": chat.Model, "description": "It can be asked under this id."}, **chat.errors(404)})
@scope("read")
async def show_model(request: Request, model: str, caller: Caller) -> Response:
    service = service_of(request)

    def work() -> CollectionInfo:
        name = service.shelf.named(caller, named(model).collection)
        return service.shelf.open(caller, name).info()

    return as_json(_row(await service.upkeep.run(work)))


def _row(info: CollectionInfo) -> dict[str, object]:
    return {"id": model_id(info.name), "object": "model", "created": int(datetime.fromisoformat(info.created).timestamp()),
            "owned_by": OWNER, "documents": info.documents, "chunks": info.chunks}
