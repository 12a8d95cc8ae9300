"""Jobs: how an upload is coming on, as one object or as events, and its cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.jobs import ENDED, Job
from api.keys import Key
from api.responses import as_json
from api.schemas import responses
from api.service import Service
from api.stream import EventStream, event
from api.strict import Caller, StrictRoute, scope, service_of

router = APIRouter(route_class=StrictRoute, tags=["jobs"])
Collection = Annotated[str | None, Query(min_length=1, max_length=64, description="Only those into this collection.")]
UnderWay = Annotated[bool, Query(description="Only those that have not ended.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Most jobs.")]
_LOOK_S = 0.5                   # how late a shutdown may be noticed
_EVENTS = 'event: progress\ndata: {"state":"running","progress":{"stage":"encode","done":512,"total":null,"unit":"chunks"}}\n\n' \
          'event: done\ndata: {"state":"done"}\n\n'


@router.get("/v1/jobs", summary="List jobs", response_class=Response, responses={
    **responses.success(responses.Jobs, "The newest first."), **responses.errors(422)})
@scope("read")
async def list_jobs(request: Request, caller: Caller, collection: Collection = None, under_way: UnderWay = False,
                    limit: Limit = 100) -> Response:
    """Uploads into the key's collections, also those whose client left before it was told the id. Older ones are forgotten."""
    service = service_of(request)
    found = await service.upkeep.run(
        lambda: service.jobs.listed(caller, collection=collection, under_way=under_way, limit=limit))
    return as_json({"jobs": [job.to_dict() for job in found]})


@router.get("/v1/jobs/{job_id}", summary="Show a job", response_class=Response, responses={
    **responses.success(responses.Job, "The job as it is now."), **responses.errors(404)})
@scope("read")
async def show_job(request: Request, job_id: str, caller: Caller) -> Response:
    service = service_of(request)
    return as_json((await service.upkeep.run(lambda: service.jobs.get(caller, job_id))).to_dict())


@router.get("/v1/jobs/{job_id}/events", summary="Watch a job", response_class=Response, responses={
    200: {"description": "`progress` whenever something changed, then `done`; each with the whole job.",
          "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EVENTS}}}, **responses.errors(404)})
@scope("read")
async def watch_job(request: Request, job_id: str, caller: Caller) -> Response:
    service = service_of(request)
    job = await service.upkeep.run(lambda: service.jobs.get(caller, job_id))
    return EventStream(_events(service, job, caller), ping_s=service.server.ping_s, on_end=lambda: None)


@router.delete("/v1/jobs/{job_id}", summary="Cancel a job", status_code=202, response_class=Response, responses={
    **responses.success(responses.Job, "The job, which ends soon: what it published stays.", status=202), **responses.errors(404)})
@scope("write")
async def cancel_job(request: Request, job_id: str, caller: Caller) -> Response:
    """At once while it waits, after the batch in hand while it runs. A job that has ended stays as it is."""
    service = service_of(request)
    request_id = str(request.state.request_id)

    def work() -> Job:
        job = service.jobs.cancel(caller, job_id)
        service.record("job.cancel", key=caller, target=job_id, request_id=request_id)
        return job

    return as_json((await service.upkeep.run(work)).to_dict(), status=202)


async def _events(service: Service, job: Job, key: Key) -> AsyncGenerator[bytes, None]:
    """Only the newest state matters: what came in between while the client was slow is left out. A server that shuts down ends
    the stream without `done`: the job goes on when it is up again."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    newest: dict[str, object] = job.to_dict()

    def note(row: dict[str, object]) -> None:
        nonlocal newest
        newest = row
        changed.set()

    def pass_on(row: dict[str, object]) -> None:
        loop.call_soon_threadsafe(note, row)

    unlisten = await service.at_door(lambda: service.jobs.listen(job, pass_on))
    try:
        # It may have moved on before we listened.
        note((await service.upkeep.run(lambda: service.jobs.get(key, job.id))).to_dict())
        while not service.draining:
            try:
                await asyncio.wait_for(changed.wait(), _LOOK_S)
            except TimeoutError:
                if service.jobs.here(job):
                    continue
                row = (await service.upkeep.run(lambda: service.jobs.get(key, job.id))).to_dict()
                if row == newest:
                    continue
                note(row)
            changed.clear()
            row = newest
            if row["state"] in ENDED:
                yield event("done", row)
                return
            yield event("progress", row)
    finally:
        unlisten()
