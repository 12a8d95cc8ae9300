"""Collections: create, list, show, delete."""

from __future__ import annotations

import shutil

from fastapi import APIRouter, Request, Response

from api.jobs import UPLOADS
from api.responses import as_json
from api.schemas import responses
from api.schemas.requests import CollectionRequest
from api.strict import Caller, StrictRoute, scope, service_of

router = APIRouter(route_class=StrictRoute, tags=["collections"])


@router.get("/v1/collections", summary="List collections", response_class=Response, responses={
    **responses.success(responses.Collections, "Those that the key can use."), **responses.errors()})
@scope("read")
async def list_collections(request: Request, caller: Caller) -> Response:
    """Those that this key can use, by name. One that is damaged is left out: `thriftrag collections verify` explains it."""
    service = service_of(request)
    found = await service.upkeep.run(lambda: service.shelf.listed(caller))
    return as_json({"collections": [info.to_dict() for info in found]})


@router.post("/v1/collections", summary="Create a collection", status_code=201, response_class=Response, responses={
    **responses.success(responses.Collection, "The new, empty collection.", status=201),
    **responses.errors(400, 404, 409, 413, 422)})
@scope("write")
async def create_collection(request: Request, body: CollectionRequest, caller: Caller) -> Response:
    """Makes an empty collection for the configured encoder."""
    service = service_of(request)
    request_id = str(request.state.request_id)

    def work() -> dict[str, object]:
        info = service.shelf.create(caller, body.name)
        service.record("collection.create", key=caller, target=body.name, request_id=request_id)
        return info.to_dict()

    return as_json(await service.upkeep.run(work), status=201, headers={"Location": f"/v1/collections/{body.name}"})


@router.get("/v1/collections/{name}", summary="Show a collection", response_class=Response, responses={
    **responses.success(responses.Collection, "Its counts, size, encoder and snapshot."), **responses.errors(404, 422, 503)})
@scope("read")
async def show_collection(request: Request, name: str, caller: Caller) -> Response:
    service = service_of(request)
    return as_json(await service.upkeep.run(lambda: service.shelf.open(caller, name).info().to_dict()))


@router.delete("/v1/collections/{name}", summary="Delete a collection", response_class=Response, responses={
    **responses.success(responses.Deleted, "It is gone.", {"deleted": "handbook", "collection": "handbook"}),
    **responses.errors(404, 409, 422)})
@scope("write")
async def delete_collection(request: Request, name: str, caller: Caller) -> Response:
    """Deletes it for good. What is being answered from it ends in peace; uploads that wait are called off. While one is being read
    in it cannot be deleted: that gives 409, and the upload is called off all the same."""
    service = service_of(request)
    request_id = str(request.state.request_id)

    def work() -> None:
        service.shelf.open(caller, name)
        service.jobs.cancel_all(caller.tenant, name)
        service.shelf.delete(caller, name)
        shutil.rmtree(service.shelf.home_of(caller.tenant) / UPLOADS / name, ignore_errors=True)
        service.record("collection.delete", key=caller, target=name, request_id=request_id)

    await service.upkeep.run(work)
    return as_json({"deleted": name, "collection": name})
