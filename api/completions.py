"""Answers as OpenAI's chat completions and chunks, with the answer object as `thriftrag` beside OpenAI's own fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from api.errors import NotFound
from api.responses import encoded
from rag.errors import BudgetTooSmall
from rag.prompts import UNKNOWN
from rag.types import Answer, Receipt

OWNER = "thriftrag"
DONE = b"data: [DONE]\n\n"
# A collection's name has neither slash nor colon.
_MODEL = re.compile(rf"{OWNER}(?:/(?P<collection>[^/:]{{1,64}}))?(?::(?P<budget>\d{{1,6}}))?")
# Ends that cut an answer short, under the one name that OpenAI has for them.
_CUT = ("length", "deadline")
# A chat shows the text alone: one that says nothing would look broken.
NOTHING_SAID = f"{UNKNOWN}."


@dataclass(frozen=True, slots=True)
class Named:
    """What a model's name says; None where it leaves it open."""

    collection: str | None
    budget_tokens: int | None


def named(model: str) -> Named:
    """Raises NotFound: no model of this server goes by such a name. BudgetTooSmall: a budget of 0."""
    found = _MODEL.fullmatch(model)
    if found is None:
        raise NotFound(f"There is no model {model!a}.", code="model_not_found", field="model",
                       hint="Models are called thriftrag/COLLECTION or thriftrag/COLLECTION:BUDGET; GET /v1/models lists them.")
    budget = None if found["budget"] is None else int(found["budget"])
    if budget == 0:
        raise BudgetTooSmall("A budget of 0 tokens is under the minimum of 1.", field="model",
                             hint="Use 1 or more, or leave it out.")
    return Named(found["collection"], budget)


def model_id(collection: str) -> str:
    return f"{OWNER}/{collection}"


@dataclass(frozen=True, slots=True)
class Shape:
    """What all chunks of one completion have in common. `created`: seconds since 1970."""

    id: str
    model: str
    created: int
    trace: bool = False
    usage: bool = False         # whether a last chunk tells it
    carried: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def completion(self, answer: Answer) -> dict[str, object]:
        message = {"role": "assistant", "content": answer.text or NOTHING_SAID, "refusal": None}
        return {"id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish(answer)}],
                "usage": usage(answer.receipt), "system_fingerprint": answer.config, "thriftrag": self._extras(answer)}

    def chunk(self, content: str, *, first: bool = False) -> bytes:
        """A piece of the text; the first says whose it is."""
        return self._sent({"role": "assistant", "content": content} if first else {"content": content})

    def last(self, answer: Answer) -> bytes:
        """Why it ended, with citations and receipt."""
        return self._sent({}, finish=finish(answer), extras=self._extras(answer))

    def bill(self, receipt: Receipt) -> bytes:
        """The chunk that `stream_options.include_usage` asks for."""
        return _data({**self._head(), "choices": [], "usage": usage(receipt)})

    def _sent(self, delta: dict[str, str], *, finish: str | None = None, extras: dict[str, object] | None = None) -> bytes:
        row = {**self._head(), "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
        if self.usage:
            row["usage"] = None
        return _data(row if extras is None else {**row, "thriftrag": extras})

    def _head(self) -> dict[str, object]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}

    def _extras(self, answer: Answer) -> dict[str, object]:
        return {**answer.to_dict(trace=self.trace), "carried": list(self.carried), "ignored": list(self.ignored)}


def finish(answer: Answer) -> str:
    """`length` where the answer was cut short, else `stop`."""
    ends = [step.facts.get("finish") for step in answer.trace if step.stage == "generate"]
    return "length" if ends and ends[-1] in _CUT else "stop"


def usage(receipt: Receipt) -> dict[str, object]:
    """Tokens as the receipt has them, of all calls of the reader together."""
    return {"prompt_tokens": receipt.prompt_tokens, "completion_tokens": receipt.completion_tokens,
            "total_tokens": receipt.prompt_tokens + receipt.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": receipt.cached_tokens}}


def failed(body: dict[str, object]) -> bytes:
    """An error in a stream that has begun."""
    return _data(body)


def listed(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    return {"object": "list", "data": list(rows)}


def _data(row: dict[str, object]) -> bytes:
    return b"data: " + encoded(row) + b"\n\n"
