"""The application: routes, errors and the edge around them, over one `Service`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api import logs, openai_errors
from api.edge import Edge
from api.errors import BadRequest, Later, MethodRefused, NotFound, status_of
from api.problems import problem
from api.routes import ask, chat, collections, documents, facts, health, jobs, models, page, records, search
from api.schemas import codes, examples
from api.schemas.responses import ERROR_EXAMPLES, error_example
from api.service import Service
from api.stream import Gone
from api.strict import refused, scope_of
from rag import __version__
from rag.errors import RagError

_ROUTERS = tuple(module.router for module in (
    ask, chat, models, search, collections, documents, jobs, records, facts, health, page))
Handler = Callable[[Request, Exception], Coroutine[Any, Any, Response]]
_ABOUT = """Answers questions from your own documents within a hard token budget, with citations and a receipt for each.

Every error is `{"error": {"code", "message", "hint", "field", "request_id"}}`; codes are stable. Send `Authorization: Bearer KEY`
where the server has API keys. Answers in `429` and `503` say in `Retry-After` when to come again."""


def create_app(service: Service) -> FastAPI:
    """The app over a service, which it closes when it is shut down."""
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(service.jobs.resume)
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    # The pages at /docs load scripts from elsewhere; the description itself is at /openapi.json.
    app = FastAPI(title="ThriftRAG", version=__version__, description=_ABOUT, docs_url=None, redoc_url=None, lifespan=lifespan,
                  redirect_slashes=False)
    app.state.service = service
    for router in _ROUTERS:
        app.include_router(router)
    app.add_exception_handler(RagError, cast(Handler, _on_ours))
    app.add_exception_handler(RequestValidationError, cast(Handler, _on_invalid))
    app.add_exception_handler(HTTPException, cast(Handler, _on_http))
    app.add_exception_handler(ClientDisconnect, cast(Handler, _on_left))
    if service.server.origins():
        app.add_middleware(CORSMiddleware, allow_origins=list(service.server.origins()), allow_methods=["GET", "POST", "DELETE"],
                           allow_headers=["authorization", "content-type", "x-request-id"],
                           expose_headers=["retry-after", "x-request-id", "location"])
    app.add_middleware(Edge, settings=service.server, metrics=service.metrics, tracing=service.tracing)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # the documented way to change the description
    return app


async def _on_ours(request: Request, error: RagError) -> Response:
    service = cast(Service, request.app.state.service)
    status = status_of(error)
    if isinstance(error, Later) or status in (401, 403):
        service.metrics.refused.labels(error.code).inc()
    if status >= 500:
        logs.defect(error, error.code)
    return problem(error, path=request.url.path, request_id=request.state.request_id, hidden=service.hidden)


async def _on_invalid(request: Request, error: RequestValidationError) -> Response:
    return await _on_ours(request, refused(error))


async def _on_http(request: Request, error: HTTPException) -> Response:
    """What the framework refuses by itself: paths and methods that nobody serves, bodies that cannot be read."""
    if error.status_code == 404:
        return await _on_ours(request, NotFound("There is nothing at this path.", hint="/openapi.json lists what there is."))
    if error.status_code == 405:
        answer = await _on_ours(request, MethodRefused("This path does not take this method.", hint="/openapi.json lists them."))
        answer.headers.update(error.headers or {})
        return answer
    cause = error.__cause__
    if isinstance(cause, RagError):
        return await _on_ours(request, cause)
    if isinstance(cause, ClientDisconnect):
        raise Gone from cause
    return await _on_ours(request, BadRequest("The body cannot be read.", hint="Send what /openapi.json describes."))


async def _on_left(_: Request, error: ClientDisconnect) -> Response:
    raise Gone from error


def _described(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1, with which scope each route asks for and nothing that this API never answers."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schema["components"]["securitySchemes"] = {"key": {
            "type": "http", "scheme": "bearer", "description": "An API key from `thriftrag keys create`."}}
        for route in [route for router in _ROUTERS for route in router.routes if isinstance(route, APIRoute)]:
            needed = scope_of(route.endpoint)
            for method in (route.methods or ()) if needed is not None else ():
                schema["paths"][route.path_format][method.lower()].update({"security": [{"key": []}], "x-scope": needed})
        app.openapi_schema = _without_defaults(schema)
    return app.openapi_schema


def _without_defaults(schema: dict[str, Any]) -> dict[str, Any]:
    """The framework describes its own validation error, which is answered in our shape instead. Adds examples."""
    ours = {"$ref": "#/components/schemas/ErrorBody"}
    for path, operation in [(path, operation) for path, methods in schema["paths"].items() for operation in methods.values()]:
        if openai_errors.speaks(path):
            operation["responses"].pop("422", None)     # such clients are told 400
        for status, response in operation["responses"].items():
            content = response.get("content", {}).get("application/json")
            if content is None:
                continue
            if status == "422":
                response["description"] = "A value cannot be used; `field` names it."
                content["schema"] = ours
            # Here and not at the routes, for the framework drops every null from their examples.
            name = content["schema"].get("$ref", "").rpartition("/")[2]
            if name in examples.RESPONSES:
                content["example"] = examples.RESPONSES[name]
            if content["schema"] == ours and int(status) in ERROR_EXAMPLES:
                content["example"] = error_example(int(status))
                response["description"] = f"{response['description']} {codes.told(int(status))}"
            elif name == "OpenAIErrorBody":
                content["example"] = openai_errors.example(int(status))
        for parameter in operation.get("parameters", ()):
            parameter["example"] = examples.PARAMETERS[parameter["name"]]
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
    return schema
