"""Documents of a collection: upload, list, show, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect

from api.errors import NotFound
from api.jobs import new_id
from api.responses import as_json
from api.schemas import responses
from api.stream import Gone
from api.strict import Caller, StrictRoute, scope, service_of, shown
from api.uploads import FIELD, Receiving, boundary_of
from rag.types import Document

router = APIRouter(route_class=StrictRoute, tags=["documents"])
_MULTIPART = {"required": True, "content": {"multipart/form-data": {"schema": {
    "type": "object", "required": [FIELD], "additionalProperties": False,
    "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"},
                           "description": "One part for each file, all of this name."}}},
    "example": {FIELD: ["guide.pdf", "prices.xlsx"]}}}}
Limit = Annotated[int, Query(ge=1, le=1000, description="Most documents on a page.")]
After = Annotated[str | None, Query(max_length=1000, description="`next` of the page before.")]


@router.post("/v1/collections/{name}/documents", summary="Upload files", status_code=202, response_class=Response,
             openapi_extra={"requestBody": _MULTIPART}, responses={
                 **responses.success(responses.Job, "The job that reads them in.", status=202),
                 **responses.errors(400, 404, 409, 413, 422, 503, 507)})
@scope("write")
async def upload(request: Request, name: str, caller: Caller) -> Response:
    """Receives files and reads them in in the background; questions are answered meanwhile. A file replaces the one of the same
    name. Watch `GET /v1/jobs/{id}`, or its events."""
    service = service_of(request)
    await service.upkeep.run(lambda: service.shelf.open(caller, name))
    boundary = boundary_of(request.headers.get("content-type", ""))
    await service.at_door(service.jobs.check_room)
    job_id, request_id = new_id(), str(request.state.request_id)
    receiving = Receiving(service.jobs.staging(caller.tenant, job_id), boundary, max_files=service.server.upload_files,
                          max_file_bytes=service.settings.max_file_mb * 1_000_000)
    accepted = False
    try:
        async for piece in request.stream():
            if piece:
                await service.at_door(lambda piece=piece: receiving.feed(piece))  # type: ignore[misc]  # bound now, typed by feed
        names = await service.at_door(receiving.finish)
        job = await service.at_door(lambda: service.jobs.submit(caller, name, job_id=job_id, names=names))
        accepted = True
    except ClientDisconnect:
        raise Gone from None
    finally:
        if not accepted:
            await service.at_door(receiving.abandon)
    await service.at_door(lambda: service.record("documents.upload", key=caller, target=f"{name}: {len(names)} files",
                                                 request_id=request_id))
    return as_json(job.to_dict(), status=202, headers={"Location": f"/v1/jobs/{job.id}"})


@router.get("/v1/collections/{name}/documents", summary="List documents", response_class=Response, responses={
    **responses.success(responses.Documents, "A page of documents, by id."), **responses.errors(404, 422)})
@scope("read")
async def list_documents(request: Request, name: str, caller: Caller, limit: Limit = 100, after: After = None) -> Response:
    """A page at a time, in the order of their ids, so that nothing is missed or shown twice while others come and go."""
    service = service_of(request)

    def work() -> dict[str, object]:
        rows = sorted((row for row in service.shelf.open(caller, name).documents() if after is None or row.id > after),
                      key=lambda row: row.id)
        page = rows[:limit]
        return {"documents": [row.to_dict() for row in page], "next": page[-1].id if len(rows) > limit else None}

    return as_json(await service.upkeep.run(work))


@router.get("/v1/collections/{name}/documents/{document_id:path}", summary="Show a document", response_class=Response,
            responses={
    **responses.success(responses.Document, "Its facts and its text."), **responses.errors(404, 422)})
@scope("read")
async def show_document(request: Request, name: str, document_id: str, caller: Caller) -> Response:
    """By id or source. Citations point into `text`: `quote == text[start:end]`, in Unicode code points."""
    service = service_of(request)
    return as_json(await service.upkeep.run(lambda: _facts(service.shelf.open(caller, name).document(document_id))))


@router.get("/v1/collections/{name}/chunks/{chunk_id:path}", summary="Show a passage", response_class=Response, responses={
    **responses.success(responses.Chunk, "The passage, and where it stands."), **responses.errors(404, 422)})
@scope("read")
async def show_chunk(request: Request, name: str, chunk_id: str, caller: Caller) -> Response:
    """By the id that a trace, a citation or a search names. `start` and `end` count code points of the document's text, `sentences`
    those of `text`."""
    service = service_of(request)
    found = await service.upkeep.run(lambda: service.shelf.open(caller, name).chunk(chunk_id))
    if found is None:
        raise NotFound(f"There is no passage {shown(chunk_id)}.", field="chunk_id", code="chunk_missing",
                       hint="It may have been replaced since: ask again.")
    return as_json({"id": found.id, "doc_id": found.doc_id, "ordinal": found.ordinal, "source": found.source, "title": found.title,
                    "heading": found.heading, "page": found.page, "start": found.span[0], "end": found.span[1],
                    "tokens": found.tokens, "sentences": [list(span) for span in found.sentences], "text": found.text})


@router.delete("/v1/collections/{name}/documents/{document_id:path}", summary="Delete a document", response_class=Response,
               responses={
    **responses.success(responses.Deleted, "How many were deleted.", {"deleted": 1, "collection": "handbook"}),
    **responses.errors(404, 409, 422)})
@scope("write")
async def delete_document(request: Request, name: str, document_id: str, caller: Caller) -> Response:
    """By id or source. From then on no search finds it; answers under way end with what they have read."""
    service = service_of(request)
    request_id = str(request.state.request_id)

    def work() -> int:
        count = service.shelf.open(caller, name).delete(document_id)
        service.record("documents.delete", key=caller, target=name, request_id=request_id)
        return count

    return as_json({"deleted": await service.upkeep.run(work), "collection": name})


def _facts(document: Document) -> dict[str, object]:
    """As `thriftrag documents show --json`, but for `uri`, which names a place on the server."""
    pages = {block.page for block in document.blocks if block.page is not None}
    return {"id": document.id, "source": document.source, "title": document.title, "media_type": document.media_type,
            "language": document.language, "pages": len(pages) or None, "characters": len(document.text),
            "content_hash": document.content_hash, "metadata": dict(document.metadata), "text": document.text}
