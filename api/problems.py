"""An error as the response that its caller understands: in OpenAI's shape where OpenAI's clients call, else in ours."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from api import openai_errors
from api.errors import body_of, headers_of, status_of
from api.responses import as_json
from rag.errors import RagError


def problem(error: RagError, *, path: str, request_id: str, hidden: Mapping[str, str] | None = None) -> Response:
    """`hidden` as for `api.errors.body_of`."""
    if openai_errors.speaks(path):
        return as_json(openai_errors.body(error, request_id=request_id, hidden=hidden), status=openai_errors.status(error),
                       headers=openai_errors.headers(error))
    return as_json(body_of(error, request_id=request_id, hidden=hidden), status=status_of(error), headers=headers_of(error))
