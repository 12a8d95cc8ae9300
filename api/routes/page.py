"""The web page at `/`. Open to everybody, it can do nothing by itself: all it shows comes from the routes that ask for a key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.errors import NotFound
from api.web.files import INDEX, page

router = APIRouter(include_in_schema=False)
# Nothing from elsewhere, no script or style in the document, and no way to turn text into either.
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
          "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")


@router.get("/")
async def index(request: Request) -> Response:
    return _file(request, INDEX)


@router.get("/page/{name}")
async def file(request: Request, name: str) -> Response:
    return _file(request, name)


def _file(request: Request, name: str) -> Response:
    found = page().get(name)
    if found is None:
        raise NotFound("There is nothing at this path.", hint="The page is at /.")
    headers = {"cache-control": "no-cache", "etag": found.tag, "content-security-policy": POLICY}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type=found.media_type, headers=headers)
