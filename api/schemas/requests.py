"""What callers send. Unknown fields are refused, and values are taken as they are: "5" is no number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from rag.settings import choices

Collection = Annotated[str, Field(min_length=1, max_length=64, description="Name of a collection.", examples=["handbook"])]
Filters = Annotated[dict[str, JsonValue] | None, Field(
    description="Only documents whose fields match, as a typed filter: see docs/ingestion.md. Never a string.",
    examples=[{"year": {"gte": 2020}, "lang": ["en", "de"]}])]
_SELECTORS = list(choices("selector"))
_MODES = [*choices("mode"), "clustered"]
_REWRITERS = list(choices("rewriter"))


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TurnOfTalk(Strict):
    """What was said before the question."""

    role: Literal["user", "assistant"]
    content: str = Field(max_length=8000)


class Terms(Strict):
    """Where an answer is looked for and what it may cost: the same for every way of asking."""

    collection: Collection | None = Field(None, description="Default: the key's only collection, else the setting `collection`.")
    budget_tokens: int | None = Field(None, ge=1, le=1_000_000, description="Most context tokens, as the reader counts them.",
                                      examples=[256])
    max_cost_usd: float | None = Field(None, gt=0, le=1_000_000, allow_inf_nan=False,
                                       description="Most US dollars for this answer.", examples=[0.002])
    deadline_s: float | None = Field(None, gt=0, le=86_400, allow_inf_nan=False,
                                     description="Most seconds for this answer, waiting in line included.", examples=[30.0])
    selector: str | None = Field(None, max_length=64, description="How the context is chosen.",
                                 json_schema_extra={"enum": [*_SELECTORS, None]})
    rewriter: str | None = Field(None, max_length=64, description="Further queries beside the question.",
                                 json_schema_extra={"enum": [*_REWRITERS, None]})
    fallback: str | None = Field(None, max_length=64, json_schema_extra={"enum": [*choices("fallback"), None]}, description=(
        "What is told when the reader fails: none (an error), or extracts (the best sentences of the context, word for word, with "
        "the verdict `degraded`)."))
    filters: Filters = None
    memory: bool = Field(True, description="Whether memory may serve, where the collection's settings switch it on; false always "
                                           "searches and asks the reader.")


class AskRequest(Terms):
    """A question and the ceilings of its answer. Only the question is required."""

    question: str = Field(description="What you want to know.", examples=["How long is the warranty?"])
    model: str | None = Field(None, max_length=200, description="A reader of this server.")
    history: list[TurnOfTalk] = Field([], max_length=50, description="What was said before, the newest last. A question that "
                                      "refers to it is made self-contained.")
    stream: bool = Field(False, description="Server-sent events instead of one object.")
    trace: bool = Field(True, description="Whether the answer holds its trace.")


class SearchRequest(Strict):
    """A query. No reader runs."""

    query: str = Field(description="Words or a question.", examples=["warranty period"])
    collection: Collection | None = Field(None, description="Default: the key's only collection, else the setting `collection`.")
    mode: str = Field("hybrid", max_length=64, description="How to search.", json_schema_extra={"enum": list(_MODES)})
    k: int = Field(10, ge=1, le=10_000, description="Most hits.")
    deadline_s: float | None = Field(None, gt=0, le=86_400, allow_inf_nan=False, description=(
        "Most seconds that it may wait in line. Default: the most that the server allows."))
    filters: Filters = None


class CollectionRequest(Strict):
    name: Collection


class FeedbackRequest(Strict):
    """What a person thinks of an answer."""

    answer_id: str = Field(min_length=1, max_length=64, description="The `id` of the answer.",
                           examples=["0f8fad5bd9cb469fa16570867728950e"])
    rating: Literal["up", "down"] = Field(examples=["up"])
    comment: str = Field("", max_length=4000)
    expected: str = Field("", max_length=4000, description="What would have been right.")
