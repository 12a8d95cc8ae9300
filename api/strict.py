"""Requests as they must be before anything else looks at them: a caller who may, strict JSON, and no unknown fields.

Authentication comes before the body is read, so that strangers cannot make the server parse anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from fastapi import Depends, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.routing import APIRoute

from api.errors import BadRequest, Forbidden, WrongMediaType
from api.keys import Key
from rag.errors import BudgetError, BudgetTooSmall, InputError, RagError, UnknownField

if TYPE_CHECKING:
    from api.service import Service

F = TypeVar("F", bound=Callable[..., Any])
_SCOPE = "__scope__"
_BUDGET = ("budget_tokens", "max_cost_usd", "deadline_s")
_DEEPEST = 64
_SHOWN = 60


def scope(name: str) -> Callable[[F], F]:
    """Marks an endpoint with the scope that a key needs for it; an unmarked one is open to everybody."""
    def marked(endpoint: F) -> F:
        setattr(endpoint, _SCOPE, name)
        return endpoint

    return marked


def scope_of(endpoint: object) -> str | None:
    return getattr(endpoint, _SCOPE, None)


class StrictRoute(APIRoute):
    """Asks who calls, then reads the body as strict JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()
        needed = scope_of(self.endpoint)
        known = {parameter.alias for parameter in self.dependant.query_params}
        has_json = self.body_field is not None

        async def handle(request: Request) -> Response:
            if needed is not None:
                request.state.caller = await service_of(request).admit(request, scope=needed)
            unknown = sorted(set(request.query_params) - known)
            if unknown:
                raise UnknownField(f"Unknown query parameter {shown(unknown[0])}.", field=unknown[0][:_SHOWN],
                                   hint=f"Known are {', '.join(sorted(known))}." if known else "This takes none.")
            if has_json and not _is_json(request.headers.get("content-type", "")):
                raise WrongMediaType("The body is not declared as JSON.", hint="Send Content-Type: application/json.")
            try:
                return await inner(StrictRequest(request.scope, request.receive))
            except HTTPException as error:
                # What reading the body raised comes wrapped.
                if isinstance(error.__cause__, RagError):
                    raise error.__cause__ from None
                raise

        return handle


class StrictRequest(Request):
    """`json` refuses what the lenient parser lets through: other encodings than UTF-8, repeated keys, endless nesting."""

    async def json(self) -> Any:
        return parse(await self.body())


def parse(body: bytes) -> object:
    """The JSON value of a body. NaN and infinities pass as such: fields refuse them by name.

    Raises:
        BadRequest: not UTF-8, or not JSON. InputError: a key twice in an object, or nested too deeply.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"The body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}.", code="body_not_utf8",
                         hint="Encode it as UTF-8.") from None
    try:
        value: object = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.", code="json_invalid",
                         hint="Send one JSON object.") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:      # an integer of thousands of digits
        raise BadRequest("The body holds a number that is too long.", code="json_invalid", hint="Send smaller numbers.") from None
    if _depth_over(value, _DEEPEST):
        raise _too_deep()
    return value


def service_of(request: Request) -> Service:
    return cast("Service", request.app.state.service)


async def _caller(request: Request) -> Key:     # async, or the framework would run it on a thread
    return cast(Key, request.state.caller)


Caller = Annotated[Key, Depends(_caller)]


def refused(error: RequestValidationError) -> RagError:
    """The first thing that is wrong with a request's fields, as an error of ours: named, with what would be right."""
    first = error.errors()[0]
    kind, place = str(first["type"]), [str(part) for part in first["loc"]]
    field = ".".join(place[1:])[:200] or None
    shown_field = shown(field or "body")
    if kind == "extra_forbidden":
        return UnknownField(f"Unknown field {shown_field}.", field=field, hint="Leave it out, or check its spelling.")
    if kind == "missing":
        return InputError(f"{shown_field} is missing.", field=field, hint="Add it.")
    what = f"{shown_field}: {str(first['msg'])[:200]}."
    if place[-1] in _BUDGET:
        if place[-1] == "budget_tokens" and kind in ("greater_than", "greater_than_equal"):
            return BudgetTooSmall(f"budget_tokens = {shown(first.get('input'))} is under the minimum of 1.", field=field,
                                  hint="Use 1 or more; the default is the setting budget_tokens.")
        return BudgetError(what, field=field, hint="Use a number above 0 and within the limits of this server.")
    if kind == "string_unicode":
        return InputError(f"{shown_field} holds a broken character.", field=field, hint="Send it as valid UTF-8.",
                          code="question_invalid" if place[-1] in ("question", "query") else None)
    return InputError(what, field=field, hint="The API's description at /openapi.json says what it takes.")


def shown(value: object) -> str:
    """A value as it may stand in a message: short, one line, and only what every terminal shows."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def forbidden(needed: str) -> Forbidden:
    return Forbidden(f"This key does not have the scope {needed!r}.", hint=f"Use a key that was made with --scopes {needed}.")


def _is_json(content_type: str) -> bool:
    kind = content_type.split(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table: dict[str, object] = {}
    for name, value in pairs:
        if name in table:
            raise InputError(f"The field {shown(name)} stands twice in one object.", field=name[:_SHOWN], hint="Send it once.",
                             code="field_repeated")
        table[name] = value
    return table


def _too_deep() -> InputError:
    return InputError(f"The body is nested more than {_DEEPEST} levels deep.", hint="Send a flatter one.", code="json_too_deep")


def _depth_over(value: object, levels: int) -> bool:
    """Level by level, without recursion of our own."""
    level = [value]
    for _ in range(levels + 1):
        level = [child for item in level if isinstance(item, dict | list)
                 for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True
