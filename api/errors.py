"""Every error as HTTP: one status for each class of `rag.errors`, one JSON shape for all.

    {"error": {"code", "message", "hint", "field", "request_id"}}

The codes are those of the command line. What only a server can refuse is added here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from rag import errors
from rag.errors import RagError


class BadRequest(RagError):
    """The request itself cannot be read: no JSON, no UTF-8, no multipart."""

    code = "body_invalid"


class Unauthorized(RagError):
    """No key, or one that is not valid. It is not said which of the two parts of a key was wrong."""

    code = "key_invalid"


class Forbidden(RagError):
    code = "scope_missing"


class NotFound(RagError):
    """Not there, or not for this caller: the two look the same."""

    code = "not_found"


class MethodRefused(RagError):
    code = "method_not_allowed"


class Conflict(RagError):
    code = "conflict"


class BodyTooLarge(RagError):
    code = "body_too_large"


class BodyTimeout(RagError):
    """The body did not arrive in time."""

    code = "body_timeout"


class WrongMediaType(RagError):
    code = "media_type_unsupported"


class Later(RagError):
    """The same request can succeed later. `retry_after_s` says when it makes sense to try."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: float, hint: str = "", field: str | None = None,
                 code: str | None = None) -> None:
        super().__init__(message, hint=hint, field=field, code=code)
        self.retry_after_s = retry_after_s


class Overloaded(Later):
    """The queue is full."""


class RateLimited(Later):
    """More requests of this key than it may send."""

    code = "rate_limited"


class TokensSpent(Later):
    """The key's tokens of the day are spent."""

    code = "daily_tokens_spent"


class MoneySpent(Later):
    """The key's money of the day is spent."""

    code = "daily_cost_spent"


class ShuttingDown(Later):
    code = "shutting_down"


# The first class that an error is of decides.
_STATUSES: tuple[tuple[type[RagError], int], ...] = (
    (BadRequest, 400), (Unauthorized, 401), (MoneySpent, 402), (Forbidden, 403),
    (NotFound, 404), (errors.CollectionMissing, 404), (errors.DocumentMissing, 404), (MethodRefused, 405), (BodyTimeout, 408),
    (Conflict, 409), (errors.Locked, 409), (errors.SnapshotMismatch, 409), (BodyTooLarge, 413), (WrongMediaType, 415),
    (errors.BudgetExceeded, 500), (errors.InputError, 422), (errors.BudgetError, 422),
    (ShuttingDown, 503), (Later, 429),
    (errors.ModelRefused, 502), (errors.ModelUnavailable, 503), (errors.ModelCorrupt, 503), (errors.ModelTimeout, 504),
    (errors.UpstreamError, 502), (errors.DeadlineExceeded, 504), (errors.SnapshotError, 503), (errors.ConfigError, 503),
    (errors.StorageError, 507),
)
_RETRY_S: tuple[tuple[type[RagError], float], ...] = ((errors.ModelUnavailable, 5.0), (errors.Locked, 5.0))


def status_of(error: RagError) -> int:
    """The HTTP status of an error; 500 for a class that has none, which is a defect."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def headers_of(error: RagError) -> dict[str, str]:
    """`Retry-After` where trying again can help, `WWW-Authenticate` where a key is asked for."""
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": 'Bearer realm="thriftrag"'}
    seconds = error.retry_after_s if isinstance(error, Later | errors.UpstreamError) else None
    if seconds is None:
        seconds = next((pause for kind, pause in _RETRY_S if isinstance(error, kind)), None)
    return {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}


def body_of(error: RagError, *, request_id: str, hidden: Mapping[str, str] | None = None) -> dict[str, object]:
    """The JSON body. `hidden`: folders of this machine by what they are called instead; callers have no business with them."""
    told = error.to_dict()
    if isinstance(error, errors.CollectionMissing):
        # The product's own hint lists what else there is, and not every caller may know.
        told["hint"] = "GET /v1/collections lists those that you can use."
    for folder, name in (hidden or {}).items():
        told["message"] = str(told["message"]).replace(folder, name)
        told["hint"] = str(told["hint"]).replace(folder, name)
    return {"error": {**told, "request_id": request_id}}


def defect() -> RagError:
    """What a caller is told of an exception that nobody foresaw; the log has the rest."""
    return RagError("This is a defect of ThriftRAG.", code="internal_error",
                    hint="Report it with the request id, which the server's log has as well.")
