"""For those who watch the server: is it alive, can it serve, and its figures."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.errors import ShuttingDown
from api.metrics import CONTENT_TYPE
from api.responses import as_json
from api.schemas import responses
from api.schemas.examples import METRICS
from api.strict import Caller, StrictRoute, scope, service_of
from rag import __version__

router = APIRouter(route_class=StrictRoute, tags=["health"])


@router.get("/healthz", summary="Alive", response_class=Response, responses=responses.success(
    responses.Health, "The process answers.", {"status": "ok", "version": __version__}))
async def healthz() -> Response:
    return as_json({"status": "ok", "version": __version__})


@router.get("/readyz", summary="Ready", response_class=Response, responses={
    **responses.success(responses.Health, "Requests can be served.", {"status": "ready", "version": __version__}),
    503: {"model": responses.ErrorBody, "description": "Send requests elsewhere."}})
async def readyz(request: Request) -> Response:
    """Models are opened by the first request that needs them, so they are no part of this."""
    service = service_of(request)
    reason = await service.at_door(service.ready)
    if reason is not None:
        raise ShuttingDown(f"Not ready: {reason}.", retry_after_s=5.0, hint="Try again later.")
    return as_json({"status": "ready", "version": __version__})


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response, responses={
    200: {"description": "The text format of Prometheus.", "content": {
        "text/plain": {"schema": {"type": "string"}, "example": METRICS}}},
    **responses.errors()})
@scope("admin")
async def metrics(request: Request, caller: Caller) -> Response:
    service = service_of(request)
    return Response(await service.at_door(service.figures_text), media_type=CONTENT_TYPE)
