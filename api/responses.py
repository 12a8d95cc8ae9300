"""JSON as it goes out: UTF-8, and safe whatever text is in it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response


def encoded(value: object) -> bytes:
    """Halves of surrogate pairs, which UTF-8 has no place for, go out as JSON escapes. Numbers that are none raise ValueError."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def as_json(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(encoded(value), status_code=status, headers=dict(headers or {}), media_type="application/json")
