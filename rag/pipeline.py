"""Question to answer: the only place where stages meet. Each adds one step with its time and facts to the trace.

    retrieve -> filter -> select -> render -> generate -> check -> receipt
"""

from __future__ import annotations

import math
import time
import unicodedata
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from indexers import lexical
from indexers.encoders import Encoder, Vectors
from indexers.sentences import split
from optimizers import SELECTORS
from optimizers.context import body, render
from optimizers.pool import Candidate, Pool
from rag import citations, ledger, prompts
from rag.errors import BudgetError, ConfigError, DeadlineExceeded, InputError, QuestionEmpty, QuestionTooLong
from rag.llm import Generation, Message, Reader
from rag.settings import Settings
from rag.types import (
    Answer,
    Budget,
    Chunk,
    Citation,
    Considered,
    Context,
    Extract,
    Mode,
    ScoredChunk,
    Selection,
    Step,
    Usage,
    Verdict,
)
from retrievers.hybrid import Searcher

# Sentence vectors kept between questions: repeated questions about the same chunks then cost no encoder pass. 384-d: 30 MB.
_CACHED_SENTENCES = 20_000


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a caller may watch or stop."""

    on_token: Callable[[str], None] | None = None
    on_step: Callable[[Step], None] | None = None
    cancelled: Callable[[], bool] | None = None


class SentenceVectors:
    """Unit vectors of sentences, encoded once and kept for the most recent. Thread-safe."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._kept: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = Lock()

    def get(self, texts: Sequence[str]) -> tuple[Vectors, int]:
        """Vectors in order, shape (len(texts), dimension), and how many texts had to be encoded."""
        unique = dict.fromkeys(texts)
        with self._lock:
            known = {text: self._kept[text] for text in unique if text in self._kept}
        missing = [text for text in unique if text not in known]
        known.update(zip(missing, self._encoder.encode(missing), strict=True))
        with self._lock:
            for text in unique:
                self._kept[text] = known[text]
                self._kept.move_to_end(text)
            while len(self._kept) > _CACHED_SENTENCES:
                self._kept.popitem(last=False)
        empty = np.zeros((0, self._encoder.dimension), np.float32)
        return (np.stack([known[text] for text in texts]) if texts else empty), len(missing)


@dataclass(slots=True)
class _Run:
    """The state of one question: its clock, its trace and what it has spent."""

    question: str
    budget: Budget
    hooks: Hooks
    started: float
    steps: list[Step] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    encoder_s: float = 0.0

    @property
    def deadline(self) -> float | None:
        return None if self.budget.seconds is None else self.started + self.budget.seconds

    def step(self, stage: str, since: float, **facts: object) -> None:
        step = Step(stage, time.monotonic() - since, facts)
        self.steps.append(step)
        if self.hooks.on_step:
            self.hooks.on_step(step)
        if self.deadline is not None and stage != "check" and time.monotonic() > self.deadline:
            raise DeadlineExceeded(f"The deadline of {self.budget.seconds:g} s passed in stage {stage!r}.",
                                   hint="Raise --deadline, or lower `candidates`.")

    def stopped(self) -> bool:
        if self.hooks.cancelled is not None and self.hooks.cancelled():
            return True
        return self.deadline is not None and time.monotonic() > self.deadline


@dataclass(frozen=True)
class Pipeline:
    """One collection's snapshot with the models that serve it."""

    searcher: Searcher
    reader: Reader
    vectors: SentenceVectors
    settings: Settings

    def ask(self, question: str, *, budget: Budget, hooks: Hooks = Hooks()) -> Answer:  # frozen, no state
        """The answer within `budget`, its citations and its receipt.

        Raises:
            QuestionEmpty, QuestionTooLong, BudgetError, CostExceeded, DeadlineExceeded, UpstreamError.
        """
        run = _Run(clean_question(question, limit=self.settings.max_question_chars), budget, hooks, time.monotonic())
        limit = self._context_limit(run)
        found, naive = self._retrieve(run)
        reason = self._filter(run, found)
        if reason:
            return self._finish(run, EMPTY, naive=naive, verdict="abstained", reason=reason)
        selection = self._select(run, found, limit)
        return self._answer(run, selection.extracts, limit, naive=naive, considered=selection.considered)

    def answer_from(self, question: str, extracts: Sequence[Extract], *, budget: Budget, hooks: Hooks = Hooks()) -> Answer:
        """The answer from a given ordered choice, which must fit the budget; empty asks the reader alone."""
        run = _Run(clean_question(question, limit=self.settings.max_question_chars), budget, hooks, time.monotonic())
        return self._answer(run, extracts, self._context_limit(run), naive=None, considered=(), closed_book=not extracts)

    def pool(self, question: str) -> Pool:
        """What a selector would see for this question: for fitting and inspecting selectors without asking the reader."""
        run = _Run(clean_question(question, limit=self.settings.max_question_chars), Budget(1), Hooks(), time.monotonic())
        return self._pool(run, self._retrieve(run)[0])

    def _context_limit(self, run: _Run) -> int:
        """The context budget after the reader's window and the caller's money are taken into account."""
        if run.budget.context_tokens < 1:
            raise BudgetError(f"A budget of {run.budget.context_tokens} tokens is not possible.", field="budget_tokens",
                              hint="Use 1 or more; 128 to 512 suit most questions.")
        fixed = self.reader.prompt_tokens(prompts.build(run.question, ""))
        room = self.reader.context_window - fixed - self.settings.reader_max_tokens - _FENCE_TOKENS
        if room < 1:
            raise QuestionTooLong(f"The question leaves no room in the reader's window of {self.reader.context_window} tokens.",
                                  hint="Shorten it.", field="question")
        limit = min(run.budget.context_tokens, room)
        if run.budget.cost_usd:
            affordable = ledger.affordable_context(max_cost=run.budget.cost_usd, fixed_tokens=fixed + _FENCE_TOKENS,
                                                   settings=self.settings)
            limit = limit if affordable is None else min(limit, affordable)
        return limit

    def _retrieve(self, run: _Run) -> tuple[list[ScoredChunk], int]:
        """Candidates, and what the prompt of a rank-order fill with the first `naive_k` hybrid chunks would have cost."""
        since = time.monotonic()
        vector = self.vectors.get([run.question])
        self._spend(run, encoder_passes=vector[1], since=since)
        mode: Mode = self.settings.mode  # type: ignore[assignment]  # checked when the settings were read
        k = self.settings.candidates
        found = self.searcher.search(run.question, mode=mode, k=max(k, self.settings.naive_k), vector=vector[0][0])
        ranked = found if mode == "hybrid" else self.searcher.search(
            run.question, mode="hybrid", k=self.settings.naive_k, vector=vector[0][0])
        naive = render([_whole(hit.chunk) for hit in ranked[:self.settings.naive_k]], counter=self.reader.tokenizer)
        naive_tokens = self.reader.prompt_tokens(prompts.build(run.question, naive.text))
        run.step("retrieve", since, mode=mode, candidates=len(found[:k]), naive_tokens=naive_tokens)
        return found[:k], naive_tokens

    def _filter(self, run: _Run, found: Sequence[ScoredChunk]) -> str | None:
        """Why nothing found is worth reading, or None."""
        since = time.monotonic()
        best = max((hit.origins.get("dense", 0.0) for hit in found), default=0.0)
        run.step("filter", since, best_relevance=round(best, 4), threshold=self.settings.abstain_below)
        if not found:
            return "no_index_content: the collection holds nothing that could be searched"
        if best < self.settings.abstain_below:
            return (f"nothing_relevant: the best passage has relevance {best:.2f}, under the threshold of "
                    f"{self.settings.abstain_below:.2f} (setting abstain_below)")
        return None

    def _select(self, run: _Run, found: Sequence[ScoredChunk], limit: int) -> Selection:
        since = time.monotonic()
        pool = self._pool(run, found)
        encoded_s = time.monotonic() - since
        selector = SELECTORS[self.settings.selector]
        selection = selector(pool, budget=limit, render=lambda extracts: render(extracts, counter=self.reader.tokenizer),
                             stop=run.stopped)
        run.step("select", since, selector=self.settings.selector, limit_tokens=limit, utility=round(selection.utility, 6),
                 evaluations=selection.evaluations, encode_s=round(encoded_s, 6),
                 considered=[row.to_dict() for row in selection.considered])
        return selection

    def _pool(self, run: _Run, found: Sequence[ScoredChunk]) -> Pool:
        since = time.monotonic()
        query = self.vectors.get([run.question])[0][0]
        texts = [[hit.chunk.sentence(j) for j in range(len(hit.chunk.sentences))] for hit in found]
        flat, encoded = self.vectors.get([text for sentences in texts for text in sentences])
        self._spend(run, encoder_passes=encoded, since=since)
        counts = self.reader.tokenizer.count_many([text for sentences in texts for text in sentences])
        bodies = self.reader.tokenizer.count_many([body(_whole(hit.chunk)) for hit in found])
        weights = self._term_weights(run.question)
        candidates, at = [], 0
        for hit, sentences, tokens in zip(found, texts, bodies, strict=True):
            rows = flat[at:at + len(sentences)]
            candidates.append(Candidate(
                chunk=hit.chunk, score=hit.score, relevance=hit.origins.get("dense", 0.0), tokens=tokens,
                sentence_relevance=tuple((rows @ query).tolist()), sentence_tokens=tuple(counts[at:at + len(sentences)]),
                sentence_terms=tuple(frozenset(weights).intersection(lexical.words(text)) for text in sentences),
                sentence_vectors=rows))
            at += len(sentences)
        return Pool(tuple(candidates), weights)

    def _term_weights(self, question: str) -> Mapping[str, float]:
        return self.searcher.bm25.idf(lexical.words(question))

    def _answer(self, run: _Run, extracts: Sequence[Extract], limit: int, *, naive: int | None,
                considered: Sequence[Considered], closed_book: bool = False) -> Answer:
        since = time.monotonic()
        context = render(extracts, counter=self.reader.tokenizer, budget=limit)
        messages = prompts.build(run.question, context.text)
        if naive is None:
            naive = self.reader.prompt_tokens(messages)
        run.step("render", since, tokens=context.tokens, passages=len(context.passages))
        if not context.passages and not closed_book:
            cheapest = min((row.tokens for row in considered), default=0)
            reason = (f"budget_too_small: a budget of {limit} context tokens holds no sentence of any candidate; the shortest "
                      f"candidate has {cheapest} tokens without its heading. Raise --budget")
            return self._finish(run, context, naive=naive, verdict="abstained", reason=reason)
        generation = self._generate(run, messages)
        return self._checked(run, generation, context, naive=naive)

    def _generate(self, run: _Run, messages: Sequence[Message]) -> Generation:
        since = time.monotonic()
        generation = self.reader.generate(messages, max_tokens=self.settings.reader_max_tokens, on_token=run.hooks.on_token,
                                          deadline=run.deadline, cancelled=run.hooks.cancelled)
        run.usage += Usage(prompt_tokens=generation.prompt_tokens, completion_tokens=generation.completion_tokens,
                           cached_tokens=generation.cached_tokens, llm_calls=1, llm_seconds=generation.seconds)
        # A deadline met while generating is a partial answer, which the check reports; it is no error.
        run.steps.append(Step("generate", time.monotonic() - since, {
            "model": self.reader.name, "finish": generation.finish, "prompt_tokens": generation.prompt_tokens,
            "completion_tokens": generation.completion_tokens, "cached_tokens": generation.cached_tokens,
            "first_token_s": generation.first_token_s}))
        if run.hooks.on_step:
            run.hooks.on_step(run.steps[-1])
        return generation

    def _checked(self, run: _Run, generation: Generation, context: Context, *, naive: int) -> Answer:
        since = time.monotonic()
        text = generation.text.strip()
        spans = split(text, "en")
        checked = citations.check(text, context, sentences=[text[a:b] for a, b in spans], question=run.question)
        unknown = prompts.abstains(text)
        run.step("check", since, support=checked.support, unknown_marks=list(checked.unknown_marks), said_unknown=unknown)
        if not text:
            return self._finish(run, context, naive=naive, verdict="abstained", reason="empty_answer: the reader said nothing")
        if unknown:
            return self._finish(run, context, naive=naive, verdict="abstained", text=checked.text,
                                reason="reader_declined: the reader found no answer in the context")
        verdict, reason = _judged(generation, checked, closed_book=not context.passages)
        return self._finish(run, context, naive=naive, verdict=verdict, reason=reason, text=checked.text, cited=checked.citations)

    def _finish(self, run: _Run, context: Context, *, naive: int, verdict: Verdict, reason: str | None, text: str = "",
                cited: Sequence[Citation] = ()) -> Answer:
        seconds = {step.stage: round(step.seconds, 6) for step in run.steps}
        seconds["total"] = round(time.monotonic() - run.started, 6)
        receipt = ledger.receipt(
            run.usage, settings=self.settings, local=self.reader.local, exact_tokens=self.reader.tokenizer.exact,
            budget_tokens=run.budget.context_tokens, context_tokens=context.tokens, naive_tokens=naive,
            model=self.reader.name, seconds=seconds, encoder_s=run.encoder_s)
        return Answer(id=uuid.uuid4().hex, question=run.question, text=text, verdict=verdict, reason=reason,
                      citations=tuple(cited), receipt=receipt, snapshot=self.searcher.snapshot.id,
                      config=self.settings.config_hash(), trace=tuple(run.steps), context=context)

    def _spend(self, run: _Run, *, encoder_passes: int, since: float) -> None:
        run.usage += Usage(encoder_passes=encoder_passes)
        run.encoder_s += time.monotonic() - since


EMPTY = Context(text="", tokens=0, passages=())
# What the fence around a context costs besides the context itself; measured against the default reader's tokenizer, with room.
_FENCE_TOKENS = 12


def clean_question(question: str, *, limit: int) -> str:
    """The question as every stage sees it: NFC, one line, no control characters.

    Raises:
        InputError, QuestionEmpty, QuestionTooLong: naming the value and the fix.
    """
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"The question holds a broken character at position {error.start}.", field="question",
                         hint="Send it as valid UTF-8.", code="question_invalid") from error
    if len(question) > limit:
        raise QuestionTooLong(f"A question of {len(question)} characters is over the limit of {limit}.", field="question",
                              hint="Shorten it, or raise the setting max_question_chars.")
    visible = "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cn") else " " if c.isspace() else ""
                      for c in unicodedata.normalize("NFC", question))
    cleaned = " ".join(visible.split())
    if not cleaned:
        raise QuestionEmpty("The question is empty.", hint="Ask something.", field="question")
    return cleaned


def checked_budget(settings: Settings, *, tokens: int | None, cost: float | None, seconds: float | None) -> Budget:
    """Ceilings from the call, else from the settings; 0 in the settings sets none.

    Raises:
        BudgetError: one that cannot be met by anything, naming it.
    """
    for name, value in (("budget_tokens", tokens), ("max_cost_usd", cost), ("deadline_s", seconds)):
        if value is not None and (not math.isfinite(value) or value <= 0):
            raise BudgetError(f"{name} = {value} is not possible.", hint="Use a number above 0.", field=name)
    return Budget(context_tokens=settings.budget_tokens if tokens is None else tokens,
                  cost_usd=cost or settings.max_cost_usd or None, seconds=seconds or settings.deadline_s or None)


def checked_selector(name: str) -> str:
    if name not in SELECTORS:
        raise ConfigError(f"Unknown selector {name!r}.", hint=f"Use one of {', '.join(SELECTORS)}.", field="selector")
    return name


def _whole(chunk: Chunk) -> Extract:
    return Extract(chunk, tuple(range(len(chunk.sentences))))


def _judged(generation: Generation, checked: citations.Checked, *, closed_book: bool) -> tuple[Verdict, str | None]:
    if generation.finish in ("deadline", "cancelled"):
        return "degraded", f"{generation.finish}: the answer was cut short"
    if generation.finish == "repetition":
        return "degraded", "repetition: the reader repeated itself and was stopped"
    if closed_book:
        return "answered", "closed_book: no document was read"
    if checked.support == "none":
        return "answered", "unsupported: the answer's words are not in the passages that were read"
    return "answered", None
