"""The body of OpenAI's chat completions, as far as one collection can serve it, with the terms of `/v1/ask` beside it.

Three kinds of parameters: those that are kept to, those that change nothing here and are named in `thriftrag.ignored` of the
answer, and those that ask for something that no answer would have, which are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from api.schemas.requests import Terms
from rag.conversation import Turn
from rag.errors import InputError

# Answers are decoded greedily, by a prompt of our own: what tunes sampling or another prompt changes nothing.
IGNORED = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "logit_bias", "stop", "prediction",
           "reasoning_effort", "verbosity", "parallel_tool_calls", "service_tier", "store", "metadata", "user", "safety_identifier",
           "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "moderation")
_TEXT_PARTS = ("text", "refusal")


class Unsupported(InputError):
    """A parameter that asks for what a collection does not do."""

    code = "unsupported_parameter"


class Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    type: str = Field(max_length=64)
    text: str | None = None
    refusal: str | None = None


class ChatMessage(BaseModel):
    """One turn. Fields that clients add to turns, such as `name`, are taken and not used."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None

    def said(self) -> str:
        """Its text, parts joined by line ends. Raises Unsupported: an image, a sound or a file."""
        if not isinstance(self.content, list):
            return self.content or ""
        other = next((part.type for part in self.content if part.type not in _TEXT_PARTS), None)
        if other is not None:
            raise Unsupported(f"A message has content of the type {other!a}, and only text can be read.", field="messages",
                              hint="Send text alone.")
        return "\n".join(part.text or part.refusal or "" for part in self.content)


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    include_usage: bool | None = Field(None, description="Whether a last chunk tells the usage of the whole answer.")
    include_obfuscation: bool | None = Field(None, description="Nothing is padded here, either way.")


class ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    type: str = Field(max_length=64)


Ignored = Annotated[JsonValue, Field(description="Changes nothing; named in `thriftrag.ignored` where it is set.")]
Refused = Annotated[JsonValue, Field(description="Refused, unless it asks for nothing.")]


class ChatRequest(Terms):
    """A conversation; its last user turn is the question. What `/v1/ask` takes may stand beside OpenAI's own fields."""

    model: str = Field(max_length=200, description="thriftrag, thriftrag/COLLECTION, thriftrag/COLLECTION:BUDGET or "
                                                   "thriftrag:BUDGET.", examples=["thriftrag/handbook:256"])
    messages: list[ChatMessage] = Field(min_length=1, examples=[[{"role": "user", "content": "How long is the warranty?"}]])
    reader: str | None = Field(None, max_length=200, description="A reader of this server: what /v1/ask calls model.")
    trace: bool = Field(False, description="Whether `thriftrag` holds the answer's trace.")
    stream: bool | None = Field(None, description="Chunks as server-sent events instead of one object.")
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, description="Longest answer; the setting reader_max_tokens holds all the same.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The same under its newer name, which wins.")
    n: int | None = Field(None, ge=1, description="1: there is one answer.")
    response_format: ResponseFormat | None = None
    modalities: list[str] | None = None
    logprobs: bool | None = Field(None, description="Refused where true.")
    top_logprobs: Refused = None
    tools: Refused = None
    tool_choice: Refused = None
    functions: Refused = None
    function_call: Refused = None
    audio: Refused = None
    web_search_options: Refused = None
    temperature: Ignored = None
    top_p: Ignored = None
    presence_penalty: Ignored = None
    frequency_penalty: Ignored = None
    seed: Ignored = None
    logit_bias: Ignored = None
    stop: Ignored = None
    prediction: Ignored = None
    reasoning_effort: Ignored = None
    verbosity: Ignored = None
    parallel_tool_calls: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None
    metadata: Ignored = None
    user: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    moderation: Ignored = None

    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    def ignored(self) -> list[str]:
        """What was set and changes nothing, in order: parameters, then roles of messages that are not read."""
        roles = {message.role for message in self.messages}
        return [*(name for name in IGNORED if getattr(self, name) is not None),
                *(f"messages[{role}]" for role in ("system", "developer", "tool", "function") if role in roles)]


class Model(BaseModel):
    """A collection as OpenAI lists models, with what it holds."""

    id: str
    object: Literal["model"]
    created: int = Field(description="Seconds since 1970 at which the collection was made.")
    owned_by: str
    documents: int
    chunks: int


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


class OpenAIError(BaseModel):
    message: str
    type: str
    param: str | None
    code: str
    request_id: str


class OpenAIErrorBody(BaseModel):
    error: OpenAIError


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for these errors, beside those that any route can give."""
    return {status: {"model": OpenAIErrorBody, "description": "An error in OpenAI's shape."} for status in
            sorted({*statuses, 401, 403, 429})}


class Completion(BaseModel):
    """OpenAI's completion, and the answer object of `/v1/ask` as `thriftrag`."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, JsonValue]]
    usage: dict[str, JsonValue]
    thriftrag: dict[str, JsonValue]


def check(body: ChatRequest) -> None:
    """Raises Unsupported: it asks for something that no answer of ours has. InputError: fields that do not go together."""
    for name, asked, instead in (
            ("n", (body.n or 1) > 1, "There is one answer to a question here: leave n out."),
            ("tools", bool(body.tools), "Collections call no tools: leave tools out."),
            ("functions", bool(body.functions), "Collections call no functions: leave functions out."),
            ("tool_choice", body.tool_choice not in (None, "none", "auto"), "Collections call no tools: leave tool_choice out."),
            ("function_call", body.function_call not in (None, "none", "auto"), "Leave function_call out."),
            ("logprobs", bool(body.logprobs), "Readers tell no probabilities: leave logprobs out."),
            ("top_logprobs", bool(body.top_logprobs), "Readers tell no probabilities: leave top_logprobs out."),
            ("response_format", body.response_format is not None and body.response_format.type != "text",
             "Answers are text: leave response_format out."),
            ("modalities", any(kind != "text" for kind in body.modalities or ()), "Answers are text: leave modalities out."),
            ("audio", body.audio is not None, "Answers are text: leave audio out."),
            ("web_search_options", body.web_search_options is not None, "Answers come from the collection alone.")):
        if asked:
            raise Unsupported(f"{name} as given is not supported.", field=name, hint=instead)
    if body.stream_options is not None and not body.stream:
        raise InputError("stream_options goes with stream alone.", field="stream_options", hint="Set stream to true.")


def conversation(messages: Sequence[ChatMessage]) -> tuple[str, list[Turn]]:
    """The last user turn, and the turns of users and assistants before it.

    Raises:
        InputError: no user turn. Unsupported: content that is no text.
    """
    asked = max((at for at, message in enumerate(messages) if message.role == "user"), default=-1)
    if asked < 0:
        raise InputError("No message has the role user, so there is no question.", field="messages",
                         hint="End the conversation with a user's turn.")
    before = [Turn("user" if message.role == "user" else "assistant", message.said()) for message in messages[:asked]
              if message.role in ("user", "assistant")]
    return messages[asked].said(), before
