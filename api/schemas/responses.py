"""What callers get: descriptions for people and for generated clients. The values themselves come from `to_dict` of `rag.types`,
as on the command line; a test holds the two together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class ErrorDetail(BaseModel):
    code: str = Field(description="Stable and made for programs.")
    message: str = Field(description="What happened, with the value that caused it.")
    hint: str = Field(description="What to do about it.")
    field: str | None
    request_id: str


class ErrorBody(BaseModel):
    error: ErrorDetail


class Citation(BaseModel):
    n: int
    chunk_id: str
    doc_id: str
    source: str
    page: int | None
    start: int
    end: int
    quote: str


class Receipt(BaseModel):
    budget_tokens: int
    context_tokens: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    llm_calls: int
    encoder_passes: int
    model: str
    cost_usd: float
    seconds: dict[str, float]
    naive_tokens: int
    saved_tokens: int
    energy_wh: float
    water_ml: float
    co2_g: float
    estimates: list[str]


class Answer(BaseModel):
    id: str
    question: str
    answer: str
    verdict: Literal["answered", "abstained", "degraded"]
    reason: str | None
    citations: list[Citation]
    receipt: Receipt
    snapshot: str
    config: str
    trace: list[dict[str, Any]]


class Hit(BaseModel):
    chunk_id: str
    doc_id: str
    score: float
    source: str
    page: int | None
    text: str
    origins: dict[str, float]


class SearchResult(BaseModel):
    query: str
    hits: list[Hit]
    origins: list[str]
    notes: list[str]


class Collection(BaseModel):
    name: str
    documents: int
    chunks: int
    tokens: int
    bytes: int
    encoder: str
    dimension: int
    terms: str
    segments: int
    snapshot: str
    created: str


class Collections(BaseModel):
    collections: list[Collection]


class DocumentRow(BaseModel):
    id: str
    source: str
    title: str
    chunks: int
    tokens: int
    added: str


class Documents(BaseModel):
    documents: list[DocumentRow]
    next: str | None = Field(description="What to send as `after` for the next page; null at the end.")


class Document(BaseModel):
    id: str
    source: str
    title: str
    media_type: str
    language: str
    pages: int | None
    characters: int
    content_hash: str
    metadata: dict[str, Any]
    text: str


class Chunk(BaseModel):
    id: str
    doc_id: str
    ordinal: int
    source: str
    title: str
    heading: str
    page: int | None
    start: int
    end: int
    tokens: int
    sentences: list[tuple[int, int]]
    text: str


class Job(BaseModel):
    id: str
    collection: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    files: list[str]
    created: str
    started: str | None
    ended: str | None
    progress: dict[str, Any] | None
    report: dict[str, Any] | None = Field(description="As `thriftrag ingest --json`, with each file that failed and why.")
    error: dict[str, Any] | None


class Jobs(BaseModel):
    jobs: list[Job]


class Deleted(BaseModel):
    deleted: int | str
    collection: str


class Usage(BaseModel):
    group_by: list[str]
    rows: list[dict[str, Any]]
    total: dict[str, Any]


class AskFacts(BaseModel):
    budget_tokens: int
    max_budget_tokens: int
    max_cost_usd: float | None
    deadline_s: float
    max_deadline_s: float
    selector: str
    selectors: list[str]
    rewriter: str
    rewriters: list[str]
    fallback: str
    memory: bool = Field(description="Whether memory may serve: passages or answers of questions before.")
    models: list[str] = Field(description="Readers that a request may name, the default first.")
    max_question_chars: int
    answer_tokens: int = Field(description="Most tokens that an answer may have.")
    instruction_chars: int = Field(description="Characters of the prompt around context and question.")
    naive_k: int = Field(description="Passages in the rank-order fill that savings are counted against.")


class Prices(BaseModel):
    prompt: float = Field(description="US dollars per million tokens, as the others but `kwh`.")
    cached: float
    completion: float
    kwh: float = Field(description="US dollars per kWh, for models that run on the server.")


class UploadFacts(BaseModel):
    files: int
    mb: int
    file_mb: int


class CallerFacts(BaseModel):
    name: str
    scopes: list[str]
    collections: list[str] = Field(description="Those that the key may use; empty means all.")
    needed: bool = Field(description="Whether this server asks for keys.")


class Settings(BaseModel):
    version: str
    collection: str = Field(description="Where a request looks that names none.")
    ask: AskFacts
    prices: Prices
    upload: UploadFacts
    key: CallerFacts


class FrontierPoint(BaseModel):
    budget: int | None = Field(description="Null where no budget binds.")
    tokens: float = Field(description="Of context, a question.")
    f1: float = Field(description="In percent.")
    f1_ci: tuple[float, float] | None
    n: int


class FrontierCurve(BaseModel):
    system: str
    points: list[FrontierPoint]


class FrontierGroup(BaseModel):
    name: str
    curves: list[FrontierCurve]


class Frontier(BaseModel):
    kind: Literal["evaluation", "tuning"]
    made: str
    reader: str | None
    command: str | None
    recommended: dict[str, Any] | None
    groups: list[FrontierGroup]


class Frontiers(BaseModel):
    tuning: Frontier | None = Field(description="From `thriftrag tune`, on questions from this collection's own documents.")
    evaluation: Frontier | None = Field(description="From the last `thriftrag eval run`.")


class Feedback(BaseModel):
    id: str


class Health(BaseModel):
    status: str
    version: str


ANSWER_EXAMPLE = {
    "id": "0f8fad5bd9cb469fa16570867728950e", "question": "How long is the warranty?", "answer": "27 months [1].",
    "verdict": "answered", "reason": None,
    "citations": [{"n": 1, "chunk_id": "3f2a9c1be07d-0-aa", "doc_id": "3f2a9c1be07d", "source": "guide.pdf", "page": 3,
                   "start": 120, "end": 171, "quote": "The Zeta 4 pump is sold with a warranty of 27 months."}],
    "receipt": {"budget_tokens": 256, "context_tokens": 231, "prompt_tokens": 312, "completion_tokens": 18, "cached_tokens": 0,
                "llm_calls": 1, "encoder_passes": 25, "model": "qwen2.5-coder-1.5b-instruct", "cost_usd": 0.0,
                "seconds": {"retrieve": 0.01, "generate": 1.8, "total": 1.9}, "naive_tokens": 1024, "saved_tokens": 712,
                "energy_wh": 0.03, "water_ml": 0.14, "co2_g": 0.02, "estimates": ["energy_wh", "water_ml", "co2_g"]},
    "snapshot": "9b1deb4d-7", "config": "c0ffee123456", "trace": [],
}
ERROR_EXAMPLES: dict[int, tuple[str, str, str, str | None]] = {
    400: ("json_invalid", "The body is not JSON: Expecting value at line 1, column 1.", "Send one JSON object.", None),
    401: ("key_invalid", "The API key is not valid.", "Check it, or ask for a new one: keys can be revoked.", None),
    402: ("daily_cost_spent", "This answer may cost $0.001000, and of the $1 a day of this key $0.000200 are left.",
          "It resets at 2030-01-02T00:00:00Z. A smaller budget or a lower max_cost_usd may fit.", "max_cost_usd"),
    403: ("scope_missing", "This key does not have the scope 'write'.", "Use a key that was made with --scopes write.", None),
    404: ("collection_missing", "There is no collection 'handbok'.", "GET /v1/collections lists those that you can use.",
          "collection"),
    409: ("collection_exists", "There is a collection 'handbook' already.", "Use another name, or delete it first.", "name"),
    413: ("body_too_large", "The body is larger than the limit of 256 kB.", "Send less at once.", None),
    422: ("budget_too_small", "budget_tokens = 0 is under the minimum of 1.",
          "Use 1 or more; the default is the setting budget_tokens.", "budget_tokens"),
    429: ("overloaded", "The ask queue is full: 4 at work, 8 waiting.", "Try again after the time in Retry-After.", None),
    502: ("model_refused", "The reader's server answered 400.", "Look at its log.", None),
    503: ("model_unavailable", "Nothing answers at http://127.0.0.1:8000/v1.", "Start the server, or correct reader_url.", None),
    504: ("deadline_exceeded", "The deadline of 5 s passed in stage 'retrieve'.", "Raise --deadline, or lower `candidates`.", None),
    507: ("disk_full", "The disk is full.", "Make room: what was published before is whole and serves.", None),
}
EVENTS_EXAMPLE = """event: status
data: {"stage":"retrieve","seconds":0.012}

event: token
data: {"text":"27 months"}

event: citations
data: {"answer":"27 months [1].","verdict":"answered","reason":null,"citations":[{"n":1,"source":"guide.pdf"}]}

event: receipt
data: {"budget_tokens":256,"context_tokens":231}

event: done
data: {"id":"0f8fad5bd9cb469fa16570867728950e"}

"""


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for these errors, beside those that any route can give."""
    return {status: {"model": ErrorBody, "description": ERROR_EXAMPLES[status][1]} for status in sorted({*statuses, 401, 403, 429})}


def error_example(status: int) -> dict[str, object]:
    return {"error": {**dict(zip(("code", "message", "hint", "field"), ERROR_EXAMPLES[status], strict=True)), "request_id": "7d44"}}


def success(model: type[BaseModel], description: str, example: object = None, *,
            status: int = 200) -> dict[int | str, dict[str, Any]]:
    row: dict[str, Any] = {"model": model, "description": description}
    if example is not None:
        row["content"] = {"application/json": {"example": example}}
    return {status: row}
