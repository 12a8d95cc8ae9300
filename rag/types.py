"""The plain values that flow between stages. Standard library only; everybody may import this module.

    file -> Document -> Chunk -> Snapshot                                        (ingestion)
    question -> [ScoredChunk] -> Pool -> Selection -> Context -> Answer          (query path)

Values are frozen: a stage returns a new one and never edits what it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Span = tuple[int, int]
Scalar = str | int | float | bool | None
FieldValue = Scalar | tuple[Scalar, ...]
Metadata = Mapping[str, FieldValue]
Verdict = Literal["answered", "abstained", "degraded"]
Mode = Literal["dense", "bm25", "sparse", "hybrid"]


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a document's text that chunks must not straddle in silence: what was above it is carried along.

    `heading` is what a reader needs to understand the stretch alone: the heading path ("Guide > Warranty"), and for table
    rows that do not name their columns the header row. `page` counts from 1, None where the format has no pages.
    Where `units` lists spans (table rows, code lines), the stretch is split between them and not at sentence ends.
    """

    span: Span
    heading: str = ""
    page: int | None = None
    units: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """One source as text. `blocks` cover `text` in order without overlap; whitespace between them may be left out."""

    id: str                     # stable across changes of content: derived from the source, or given by the user
    source: str                 # what a person calls it: the path as typed, or path#record
    uri: str                    # what makes it the same document next time: the absolute path, or path#record
    title: str
    text: str
    content_hash: str           # of the bytes read: an equal hash means there is nothing to do
    blocks: tuple[Block, ...]
    media_type: str = "text/plain"
    language: str = "en"        # BCP 47 primary tag, used to split sentences
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One retrievable passage: `text == document.text[span[0]:span[1]]`, exactly."""

    id: str                     # document id, ordinal, content hash
    doc_id: str
    ordinal: int                # position in the document, from 0
    text: str
    span: Span                  # characters in the document's text
    sentences: tuple[Span, ...]  # characters in `text`, in order, not overlapping: the units that selection may choose
    tokens: int                 # of title, heading and text together, by the encoder's tokenizer
    title: str = ""
    heading: str = ""           # carried context, not part of `text`
    page: int | None = None
    source: str = ""
    content_hash: str = ""      # of the normalised text: equal for exact duplicates
    metadata: Metadata = field(default_factory=dict)

    def sentence(self, index: int) -> str:
        start, end = self.sentences[index]
        return self.text[start:end]


@dataclass(frozen=True, slots=True)
class Led:
    """How strongly passages that a question finds at once lead to another, each from 0 to 1 (`retrievers.second_look_model` has
    their meaning). `by`: the chunk that leads best."""

    linked: float = 0.0
    one_word: float = 0.0
    rare: float = 0.0
    named: float = 0.0
    by: str = ""


@dataclass(frozen=True, slots=True)
class ScoredChunk:
    """A candidate. Scores of different origins are not comparable; only `retrievers.fusion` combines them. `led`: what leads to
    it, where a second look was taken."""

    chunk: Chunk
    score: float
    origins: Mapping[str, float] = field(default_factory=dict)
    led: Led | None = None


@dataclass(frozen=True, slots=True)
class Extract:
    """Chosen sentences of one chunk, as strictly increasing indexes into `chunk.sentences`; never empty."""

    chunk: Chunk
    sentences: tuple[int, ...]

    @property
    def whole(self) -> bool:
        return len(self.sentences) == len(self.chunk.sentences)


def whole(chunk: Chunk) -> Extract:
    """All of a chunk."""
    return Extract(chunk, tuple(range(len(chunk.sentences))))


@dataclass(frozen=True, slots=True)
class Considered:
    """One row of the trace for one candidate: what it scored, what it would cost, whether it was kept, and why."""

    chunk_id: str
    source: str
    rank: int
    score: float
    relevance: float
    tokens: int                 # of the candidate's whole text, by the reader's tokenizer
    kept: bool
    why: str
    kept_sentences: tuple[int, ...] = ()
    sentences: int = 0
    chance: float | None = None     # of its best sentence to hold the answer, where the selector goes by chances
    # What the choice would lose without the passage, and without each of `kept_sentences`: U(S) - U(S without it). None and
    # empty for what was dropped, and where the selector's objective has no such thing or it would have to ask a model.
    marginal: float | None = None
    sentence_marginals: tuple[float | None, ...] = ()

    def to_dict(self) -> dict[str, object]:
        return {
            "chunk_id": self.chunk_id, "source": self.source, "rank": self.rank, "score": round(self.score, 6),
            "relevance": round(self.relevance, 6), "chance": _rounded(self.chance), "tokens": self.tokens, "kept": self.kept,
            "why": self.why, "kept_sentences": list(self.kept_sentences), "sentences": self.sentences,
            "marginal": _rounded(self.marginal), "sentence_marginals": [_rounded(value) for value in self.sentence_marginals],
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


@dataclass(frozen=True, slots=True)
class Part:
    """Sentences of one candidate, as indexes into its chunk's; `rank` counts candidates from 1."""

    rank: int
    chunk_id: str
    source: str
    sentences: tuple[int, ...]

    def to_dict(self) -> dict[str, object]:
        return {"rank": self.rank, "chunk_id": self.chunk_id, "source": self.source, "sentences": list(self.sentences)}


@dataclass(frozen=True, slots=True)
class NextBest:
    """The best other set that a selector saw and the budget holds: what it has that was not chosen, and the other way round.

    `utility` is that of `Selection`. `tokens`: as the selector counts them while it searches, an estimate for sets of sentences
    that is meant to be no less than what the rendering costs.
    """

    utility: float
    tokens: int
    added: tuple[Part, ...]
    removed: tuple[Part, ...]

    def to_dict(self) -> dict[str, object]:
        return {"utility": round(self.utility, 6), "tokens": self.tokens, "added": [part.to_dict() for part in self.added],
                "removed": [part.to_dict() for part in self.removed]}


Point = tuple[int, float]       # tokens and utility of a set


@dataclass(frozen=True, slots=True)
class SearchPath:
    """The way that a selector took, for whoever watches it. Tokens as the selector counts while it searches: for sets that were
    only asked about they may be an estimate.

    `asked`: every set whose utility was computed, in that order. `growth`: the sets by which a selector that adds one piece
    after the other came to its choice. `greedy`: what growing by gain per token ends at, where sets are searched.
    `unlisted`: sets that were looked at and are not in `asked`.
    """

    budget: int
    asked: tuple[Point, ...]
    growth: tuple[Point, ...] = ()
    chosen: Point | None = None
    next_best: Point | None = None
    greedy: Point | None = None
    unlisted: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """What a selector chose, in the order to render. `utility` is the selector's own objective, for comparison only.

    `degraded`: why it ended before it was done, begun by `stopped:` or `limit:`; the choice is then the best so far. None where it
    came to its end. `next_best`: None where no other set was seen that the budget holds.
    """

    extracts: tuple[Extract, ...]
    utility: float
    evaluations: int
    considered: tuple[Considered, ...]
    degraded: str | None = None
    next_best: NextBest | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """One chunk's part of a rendered context. `n`: its mark, shared by neighbours in a document that were rendered as one."""

    n: int
    chunk: Chunk
    sentences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """The text exactly as sent to the reader and its tokens by the reader's tokenizer; `tokens <= budget`, always."""

    text: str
    tokens: int
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Budget:
    """Ceilings for one answer. They bind; nothing downstream may stretch them."""

    context_tokens: int
    cost_usd: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was spent on models. Tokens of the reader as the server counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    llm_calls: int = 0
    encoder_passes: int = 0
    llm_seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class Step:
    """One stage in the trace: its time and its own facts."""

    stage: str
    seconds: float
    facts: Mapping[str, object] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        return {"stage": self.stage, "seconds": round(self.seconds, 6), **self.facts}


@dataclass(frozen=True, slots=True)
class Citation:
    """Where in which source the answer is supported; `quote == document.text[start:end]`."""

    n: int
    chunk_id: str
    doc_id: str
    source: str
    page: int | None
    start: int
    end: int
    quote: str

    def to_dict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Receipt:
    """The bill for one answer; fields as in the contract. `estimates` names the fields that are not measurements."""

    budget_tokens: int
    context_tokens: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    llm_calls: int
    encoder_passes: int
    model: str
    cost_usd: float
    seconds: Mapping[str, float]
    naive_tokens: int
    saved_tokens: int
    energy_wh: float
    water_ml: float
    co2_g: float
    estimates: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        row: dict[str, object] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**row, "seconds": dict(self.seconds), "estimates": list(self.estimates)}

    def __str__(self) -> str:
        return (f"{self.context_tokens} of {self.budget_tokens} context tokens, {self.prompt_tokens} prompt + "
                f"{self.completion_tokens} completion tokens, ${self.cost_usd:.6f}, {self.seconds['total']:.2f} s, "
                f"{self.saved_tokens} tokens saved against rank-order fill")


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a reader would be sent for a question, and what that took: an answer's first half.

    `context` is empty where nothing should be read, and `reason` says why. `prompt_tokens`: of the whole prompt, 0 then.
    """

    question: str
    context: Context
    reason: str | None
    prompt_tokens: int
    naive_tokens: int
    encoder_passes: int
    seconds: Mapping[str, float]
    trace: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer object of the contract: the same keys from the CLI, REST and Python."""

    id: str
    question: str
    text: str
    verdict: Verdict
    reason: str | None
    citations: tuple[Citation, ...]
    receipt: Receipt
    snapshot: str
    config: str
    trace: tuple[Step, ...]
    context: Context

    def to_dict(self, *, trace: bool = True) -> dict[str, object]:
        return {
            "id": self.id, "question": self.question, "answer": self.text, "verdict": self.verdict,
            "reason": self.reason, "citations": [citation.to_dict() for citation in self.citations],
            "receipt": self.receipt.to_dict(), "snapshot": self.snapshot, "config": self.config,
            "trace": [step.to_dict() for step in self.trace] if trace else [],
        }


@dataclass(frozen=True, slots=True)
class TermMatch:
    """How much one term of a query adds to the sparse score of one passage. A word that the tokenizer cuts is one term, and so
    are words of the query that count as one.

    `weight`: of the term in the passage, 0 where it does not match; of a word of several pieces their mean, by query weight.
    `held`: the share of that which the passage's own words give; what expansion added gives the rest.
    """

    term: str
    query_weight: float
    weight: float
    held: float

    @property
    def contribution(self) -> float:
        return self.query_weight * self.weight

    @property
    def source(self) -> str:
        """Where the passage has the term from: passage, expansion, both (pieces of one word), or nothing."""
        if self.weight == 0:
            return "nothing"
        return "passage" if self.held == 1 else "both" if self.held else "expansion"

    def to_dict(self) -> dict[str, object]:
        return {"term": self.term, "query_weight": round(self.query_weight, 6), "weight": round(self.weight, 6),
                "contribution": round(self.contribution, 6), "from": self.source}


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result. `explain`: every term of the query, what adds most first, where an explanation was asked for and terms
    were searched; None elsewhere."""

    chunk: Chunk
    score: float
    origins: Mapping[str, float]
    explain: tuple[TermMatch, ...] | None = None

    def to_dict(self) -> dict[str, object]:
        row: dict[str, object] = {
            "chunk_id": self.chunk.id, "doc_id": self.chunk.doc_id, "score": self.score, "source": self.chunk.source,
            "page": self.chunk.page, "text": self.chunk.text, "origins": dict(self.origins)}
        return row if self.explain is None else {**row, "explain": [match.to_dict() for match in self.explain]}


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The hits, best first; which origins were searched; and what the user should know about that, in sentences."""

    hits: tuple[Hit, ...]
    origins: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        return {"hits": [hit.to_dict() for hit in self.hits], "origins": list(self.origins), "notes": list(self.notes)}


@dataclass(frozen=True, slots=True)
class FileFailure:
    """A file, or one record of it, that ingestion left out."""

    source: str
    code: str
    message: str
    hint: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"source": self.source, "code": self.code, "message": self.message, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class Skipped(FileFailure):
    """A file that nobody named, met in a folder or an archive, of a kind that is not read: counted, but no failure."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What one ingestion did. `unchanged` documents cost no encoding."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    chunks: int = 0
    tokens: int = 0
    seconds: float = 0.0
    moved: int = 0              # of the added: the same content under a new name
    removed: int = 0            # documents whose file is gone, forgotten because pruning was asked for
    gone: int = 0               # documents whose file is gone, kept
    encoded: int = 0            # passages that went through the encoder
    recalled: int = 0           # passages whose vector was known from before
    padding: float = 0.0        # share of the encoder's work that was padding
    padding_unsorted: float = 0.0   # what that share would have been in batches of 32 in order of arrival
    failures: tuple[FileFailure, ...] = ()
    skipped: tuple[FileFailure, ...] = ()   # files in folders that are of no known kind
    snapshot: str = ""
    dry_run: bool = False
    interrupted: bool = False

    def with_(self, **changes: object) -> IngestReport:
        return replace(self, **changes)  # type: ignore[arg-type]  # the names are checked by replace itself

    def to_dict(self) -> dict[str, object]:
        row: dict[str, object] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**row, "failures": [failure.to_dict() for failure in self.failures],
                "skipped": [failure.to_dict() for failure in self.skipped]}


@dataclass(frozen=True, slots=True)
class Progress:
    """A tick of long work: `done` of `total` (None while unknown) `unit`s of `stage`."""

    stage: str
    done: int
    total: int | None = None
    unit: str = "chunks"
    note: str = ""


OnProgress = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """For callers that do not watch."""
