"""Errors on the paths that OpenAI's clients call, in OpenAI's shape and with its statuses.

    {"error": {"message", "type", "param", "code", "request_id"}}

Those clients show the message and nothing else, so it ends in the hint. They try again by themselves: what would fail or be paid
once more says that they should not.
"""

from __future__ import annotations

from collections.abc import Mapping

from api import errors as ours
from api.errors import body_of, headers_of, status_of
from rag import errors
from rag.errors import RagError

_PATHS = ("/v1/chat/completions", "/v1/models")
# Statuses that OpenAI answers otherwise than we do.
_STATUSES = {402: 429, 422: 400}
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 409: "conflict_error",
          429: "rate_limit_error"}
# Where OpenAI has a code for the same, clients know that one.
_CODES = {"key_missing": "invalid_api_key", "key_invalid": "invalid_api_key", "collection_missing": "model_not_found",
          "rate_limited": "rate_limit_exceeded", "too_many_at_once": "rate_limit_exceeded",
          "daily_tokens_spent": "insufficient_quota", "daily_cost_spent": "insufficient_quota",
          "question_too_long": "context_length_exceeded", "unknown_field": "unknown_parameter"}
# The question, under its name here.
_FIELDS = {"question": "messages", "collection": "model"}
_NOT_AGAIN: tuple[type[RagError], ...] = (ours.TokensSpent, ours.MoneySpent, errors.ModelRefused, errors.ModelTimeout,
                                          errors.DeadlineExceeded, errors.ConfigError, errors.BudgetExceeded)
_EXAMPLES: dict[int, tuple[str, str, str | None, str]] = {
    400: ("unsupported_parameter", "invalid_request_error", "n", "n as given is not supported. There is one answer: leave n out."),
    401: ("invalid_api_key", "authentication_error", None, "The API key is not valid. Check it, or ask for a new one."),
    403: ("scope_missing", "permission_error", None, "This key does not have the scope 'read'."),
    404: ("model_not_found", "not_found_error", "model", "There is no collection 'handbok'. GET /v1/models lists them."),
    409: ("snapshot_mismatch", "conflict_error", None, "The collection was made by another encoder. Run `thriftrag collections "
          "rebuild`."),
    413: ("body_too_large", "invalid_request_error", None, "The body is larger than the limit of 256 kB. Send less at once."),
    429: ("overloaded", "rate_limit_error", None, "The ask queue is full: 4 at work, 8 waiting."),
    502: ("model_refused", "server_error", None, "The reader's server answered 400. Look at its log."),
    503: ("model_unavailable", "server_error", None, "Nothing answers at http://127.0.0.1:8000/v1. Start the server."),
    504: ("deadline_exceeded", "server_error", None, "The deadline of 5 s passed in stage 'retrieve'."),
}


def speaks(path: str) -> bool:
    """Whether OpenAI's clients call this path."""
    return any(path == known or path.startswith(f"{known}/") for known in _PATHS)


def status(error: RagError) -> int:
    found = status_of(error)
    return _STATUSES.get(found, found)


def headers(error: RagError) -> dict[str, str]:
    """As elsewhere, and `x-should-retry: false` where trying again brings nothing or is paid again."""
    final = isinstance(error, _NOT_AGAIN) or status(error) == 500
    return {**headers_of(error), **({"x-should-retry": "false"} if final else {})}


def example(status: int) -> dict[str, object]:
    """What an error of this status looks like, for the API's description."""
    code, kind, param, message = _EXAMPLES[status]
    return {"error": {"message": message, "type": kind, "param": param, "code": code, "request_id": "7d44"}}


def body(error: RagError, *, request_id: str, hidden: Mapping[str, str] | None = None) -> dict[str, object]:
    told = body_of(error, request_id=request_id, hidden=hidden)["error"]
    assert isinstance(told, dict)
    field = told["field"]
    found = status(error)
    kind = "insufficient_quota" if isinstance(error, ours.TokensSpent | ours.MoneySpent) else _TYPES.get(
        found, "server_error" if found >= 500 else "invalid_request_error")
    return {"error": {"message": f"{told['message']} {told['hint']}".strip(), "type": kind, "param": _FIELDS.get(field, field),
                      "code": _CODES.get(error.code, error.code), "request_id": request_id}}
