"""What a failing model server means for the caller. Messages name the address without credentials, never the key, and
repeat what the server said only where it does not repeat the prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from rag.errors import ModelRefused, ModelUnavailable, RagError
from rag.llm import Message

_BUSY = {429, 502, 503, 504}       # worth another attempt: nothing was generated
_BROKEN = {500}                     # the server's fault, but it may have worked, and been paid, before it failed
_ECHO = 24                      # characters in a row that count as a repeated prompt
_SAID = 200


@dataclass(frozen=True, slots=True)
class Failure:
    """`again`: another attempt may help. `wait_s`: what the server asked for."""

    error: RagError
    again: bool = False
    wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of whom, for the message."""

    url: str
    model: str
    api_key: str
    messages: Sequence[Message]


def unreachable(asked: Asked, *, why: str) -> Failure:
    return Failure(ModelUnavailable(f"No answer from the model server at {asked.url}: {why}.",
                                    hint="Start the server, or check reader_url."), again=True)


def broken_off(asked: Asked, *, after_text: bool) -> Failure:
    when = "in the middle of the answer" if after_text else "before the answer"
    return Failure(ModelUnavailable(f"The model server at {asked.url} broke off {when}.",
                                    hint="Look at the server's log; it may have run out of memory."), again=True)


def not_a_stream(asked: Asked) -> Failure:
    return Failure(ModelRefused(f"{asked.url} answered with something that is not a chat completion.",
                                hint="Check that reader_url is the base URL of an OpenAI-compatible server; "
                                     "it usually ends in /v1."))


def reported(asked: Asked, *, said: str) -> Failure:
    """An error inside a stream that had begun well."""
    error = ModelRefused(f"The model server at {asked.url} reported an error{_quoted(asked, said)}.",
                         hint="Look at the server's log.")
    error.passing = True
    return Failure(error)


def from_status(asked: Asked, *, status: int, said: str, retry_after: str | None, now: datetime | None = None) -> Failure:
    """An answer with an error status. `now`: for a `Retry-After` that is a date; the clock where None."""
    if status in (401, 403):
        what = "refused the key" if asked.api_key else "wants a key"
        return Failure(ModelRefused(f"The model server at {asked.url} {what} (status {status}).",
                                    hint="Set THRIFTRAG_READER_API_KEY to a key that may use the model."))
    if status == 404:
        hint = "Set `reader` to a model that the server lists under /models, or `thriftrag ask --model NAME`."
        if not asked.url.endswith("/v1"):
            hint += " If the address is wrong: it usually ends in /v1."
        missing = ModelUnavailable(f"The server at {asked.url} has no model {asked.model!r} (status 404).", hint=hint)
        missing.passing = False
        return Failure(missing)
    if status in _BUSY or status in _BROKEN:
        kind = ModelUnavailable if status in (502, 503, 504) else ModelRefused
        hint = "Wait, or use a plan that allows more." if status == 429 else "Look at the server's log."
        error = kind(f"The model server at {asked.url} answered with status {status}{_quoted(asked, said)}.", hint=hint)
        error.passing = True
        error.retry_after_s = wait_s = _seconds(retry_after, now=now)
        return Failure(error, again=status in _BUSY, wait_s=wait_s)
    said = _quoted(asked, said)
    return Failure(ModelRefused(f"The model server at {asked.url} refused the request (status {status}){said}.",
                                hint="Check `reader`, and that the prompt fits the model."))


def _quoted(asked: Asked, said: str) -> str:
    said = " ".join(said.split())[:_SAID]
    secret = bool(asked.api_key) and asked.api_key in said
    return f": {said}" if said and not secret and not _echoes(asked, said) else ""


def _echoes(asked: Asked, said: str) -> bool:
    """Whether `said` has a stretch of the prompt in it."""
    prompt = " ".join(" ".join(message.content.split()) for message in asked.messages)
    return any(said[at:at + _ECHO] in prompt for at in range(len(said) - _ECHO + 1))


def _seconds(retry_after: str | None, *, now: datetime | None) -> float | None:
    """The header in seconds from now, in either of its forms; None where there is none, or it is neither."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            at = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        seconds = (at.replace(tzinfo=at.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
