"""Question to answer: the only place where stages meet. Each adds one step with its time and facts to the trace.

    trigger -> rewrite -> retrieve -> filter -> select -> render -> generate -> check -> receipt
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from indexers import lexical
from indexers.encoders import Vectors
from indexers.sentences import split
from optimizers import BY_CHANCE, SELECTORS, WHOLE, coverage, relevance
from optimizers.context import render
from optimizers.crossencoder import reading
from optimizers.crossencoder.encoder import CrossEncoder
from optimizers.knowledge_filter import filtered
from optimizers.pool import Pool, Unit, Watch
from optimizers.router import Size
from optimizers.routing import Reading, seen
from optimizers.sufficiency import sufficiency
from rag import citations, clustered_route, ledger, prompts, rewriting, routing
from rag.checks import clean_question
from rag.conversation import Turn
from rag.errors import DeadlineExceeded, QuestionTooLong, UpstreamError
from rag.extractive import quoted
from rag.filters import Filter
from rag.llm import Generation, Message, Reader
from rag.llm.absent import AbsentReader
from rag.memory import Memory, Recalled, Stored
from rag.pooling import Recent, SentenceVectors, pooled
from rag.recall import Asking
from rag.settings import Settings
from rag.types import (
    Answer,
    Budget,
    Chunk,
    Citation,
    Context,
    Extract,
    Mode,
    Prepared,
    ScoredChunk,
    Selection,
    Step,
    Usage,
    Verdict,
    whole,
)
from retrievers.clustered import Clustered, is_summary
from retrievers.hybrid import Found, Searcher
from retrievers.rewriting.search import rewritten
from retrievers.second_look import SecondLook, second_look


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a caller may watch or stop."""

    on_token: Callable[[str], None] | None = None
    on_step: Callable[[Step], None] | None = None
    cancelled: Callable[[], bool] | None = None
    on_search: Watch | None = None      # the way to the choice, once it is made


@dataclass(slots=True)
class _Run:
    """The state of one question: its clock, its trace and what it has spent. `question`: as it was asked."""

    question: str
    budget: Budget
    hooks: Hooks
    started: float
    where: Filter | None = None
    steps: list[Step] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    small_usage: Usage = field(default_factory=Usage)       # of the router's small reader
    answered_by: Size = "large"
    seen: tuple[Pool, Mapping[Unit, float]] | None = None   # what the choice was made from, for the router
    encoder_s: float = 0.0
    counted: bool = True
    degraded: str | None = None     # why the context is not what it would have been
    overall: bool = False           # the question is about all texts together, and answered from summaries
    asked: rewriting.Asked = field(init=False)
    silent: bool = False            # the reader is not to be asked
    rewrite_s: float = 0.0
    recalled: Recalled | None = None
    pool: Pool | None = None        # what was chosen from, less what the knowledge filter dropped
    read: Pool | None = None        # the same where the index gave it
    guessed: tuple[str, ...] = ()   # fields of the receipt that are no measurements here

    def __post_init__(self) -> None:
        self.asked = rewriting.Asked(self.question, self.question)

    @property
    def deadline(self) -> float | None:
        return None if self.budget.seconds is None else self.started + self.budget.seconds

    def take(self, asked: rewriting.Asked) -> None:
        """The question as it goes on, and what that cost, which is spent but once."""
        self.asked = replace(asked, usage=Usage())
        self.usage += asked.usage
        self.counted = self.counted and asked.counted

    def bill(self, usage: Usage, *, counted: bool, small: bool) -> None:
        """Adds a reader's call, the router's small reader's apart. `counted`: by the reader itself."""
        if small:
            self.small_usage += usage
        else:
            self.usage += usage
        self.counted = self.counted and counted

    def record(self, stage: str, since: float, **facts: object) -> None:
        """Adds a finished stage to the trace."""
        step = Step(stage, time.monotonic() - since, facts)
        self.steps.append(step)
        if self.hooks.on_step:
            self.hooks.on_step(step)

    def step(self, stage: str, since: float, **facts: object) -> None:
        """Records a stage that comes before there is an answer: past the deadline there will be none."""
        self.record(stage, since, **facts)
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise DeadlineExceeded(f"The deadline of {self.budget.seconds:g} s passed in stage {stage!r}.",
                                   hint="Raise --deadline, or lower `candidates`.")

    def halfway(self) -> Callable[[], bool]:
        """A stop for a stage that others follow: it says so when half of the time that is left is gone."""
        now = time.monotonic()
        until = None if self.deadline is None else now + (self.deadline - now) / 2
        return lambda: self.stopped() or (until is not None and time.monotonic() > until)

    def stopped(self) -> bool:
        if self.hooks.cancelled is not None and self.hooks.cancelled():
            return True
        return self.deadline is not None and time.monotonic() > self.deadline


@dataclass(frozen=True, slots=True)
class _Found:
    """Candidates, the pool made of them, what the naive prompt would have cost, and the searches behind them."""

    candidates: list[ScoredChunk]
    pool: Pool
    naive_tokens: int
    search: Found
    second: SecondLook
    rewrite: Mapping[str, object] | None = None     # facts of that stage, None where it was not taken
    clustered: clustered_route.Routed = clustered_route.ORDINARY


@dataclass(frozen=True)
class Pipeline:
    """One collection's snapshot with the models that serve it."""

    searcher: Searcher
    reader: Reader
    vectors: SentenceVectors
    settings: Settings
    recent: Recent[_Found] = field(default_factory=lambda: Recent(0))
    cross: CrossEncoder | None = None
    clusters: Clustered | None = None
    memory: Memory | None = None

    def ask(self, question: str, *, budget: Budget, hooks: Hooks = Hooks(), where: Filter | None = None,
            history: Sequence[Turn] = ()) -> Answer:
        """The answer within `budget` from the documents that `where` allows, its citations and its receipt. `history`: what was
        said before, the newest last.

        Raises:
            QuestionEmpty, QuestionTooLong, BudgetError, CostExceeded, DeadlineExceeded, UpstreamError.
        """
        since = time.monotonic()
        try:
            return self._asked_reader(self._run(question, budget, hooks, where, history=history))
        except UpstreamError as error:
            left = None if budget.seconds is None else budget.seconds - (time.monotonic() - since)
            # It could not even count: without it then. What fails in the call itself is met where the context is at hand.
            if self.settings.fallback == "none" or (left is not None and left <= 0):
                raise
            absent = replace(self, reader=AbsentReader(self._large, error))
            return absent._asked_reader(absent._run(question, replace(budget, seconds=left), hooks, where, history=history))

    def _asked_reader(self, run: _Run) -> Answer:
        limit = self._context_limit(run)
        self._recall(run, limit)
        if run.recalled is not None and run.recalled.answer is not None:
            return self._repeated(run, run.recalled.answer)
        extracts, naive, reason = self._choose(run, limit)
        if reason:
            shown = render(extracts, counter=self.reader.tokenizer, budget=limit) if extracts else EMPTY
            return self._finish(run, EMPTY, naive=naive, verdict="abstained", reason=reason, shown=shown)
        return self._remembered(run, limit, self._answer(run, extracts, limit, naive=naive))

    def context(self, question: str, *, budget: Budget, extracts: Sequence[Extract] | None = None, hooks: Hooks = Hooks(),
                where: Filter | None = None, history: Sequence[Turn] = ()) -> Prepared:
        """What `ask`, or `answer_from` where `extracts` are given, would send to the reader, which is not asked, not for queries
        either. Raises as they do, but for UpstreamError."""
        run = self._run(question, budget, hooks, where, history=history, silent=True)
        limit = self._context_limit(run)
        naive, reason = 0, None
        if extracts is None:
            self._recall(run, limit)
            extracts, naive, reason = self._choose(run, limit)
        since = time.monotonic()
        context = render(extracts, counter=self.reader.tokenizer, budget=limit) if extracts else EMPTY
        tokens = 0 if reason else self.reader.prompt_tokens(self._messages(run, context))
        run.step("render", since, tokens=context.tokens, passages=len(context.passages))
        return Prepared(question=run.question, context=context, reason=reason, prompt_tokens=tokens, naive_tokens=naive or tokens,
                        encoder_passes=run.usage.encoder_passes, seconds=_seconds(run), trace=tuple(run.steps))

    def _choose(self, run: _Run, limit: int) -> tuple[tuple[Extract, ...], int, str | None]:
        """The choice, what the naive prompt would have cost, and why it is not to be read, or None. Where memory has nothing to
        read after all, the index is searched."""
        recalled = run.recalled
        if recalled is not None and recalled.found is not None and recalled.pool is not None:
            run.guessed = ("naive_tokens", "saved_tokens")
            naive = 0 if recalled.past is None else recalled.past.naive_tokens
            chosen = self._chosen(run, _Found(list(recalled.found.hits), recalled.pool, naive, recalled.found,
                                              SecondLook(recalled.found)), limit)
            if chosen[2] is None:
                return chosen
            run.guessed = ()
        found = self._read(run, self._found(run))
        run.overall = found.clustered.summaries is not None
        chosen = self._chosen(run, found, limit)
        run.read = None if run.overall else run.pool or found.pool
        return chosen

    def _chosen(self, run: _Run, found: _Found, limit: int) -> tuple[tuple[Extract, ...], int, str | None]:
        reason = self._filter(run, found)
        if reason:
            return (), found.naive_tokens, reason
        if run.budget.cost_usd and run.usage.llm_calls:
            limit = min(limit, self._context_limit(run))
        selection, chance = self._select(run, found, limit)
        reason = None if selection.extracts else selection.degraded or self._too_small(found.candidates, limit)
        return selection.extracts, found.naive_tokens, reason or self._insufficient(chance)

    def answer_from(self, question: str, extracts: Sequence[Extract], *, budget: Budget, hooks: Hooks = Hooks(),
                    overall: bool | None = None) -> Answer:
        """The answer from a given ordered choice, which must fit the budget; empty asks the reader alone. `overall`: whether it is
        asked for what all texts say together; None: where summaries are among them."""
        run = self._run(question, budget, hooks)
        run.overall = any(is_summary(extract.chunk) for extract in extracts) if overall is None else overall
        return self._answer(run, extracts, self._context_limit(run), naive=None)

    def pool(self, question: str, *, where: Filter | None = None) -> Pool:
        """What a selector would see for this question: for fitting and inspecting selectors without asking the reader."""
        run = self._run(question, Budget(1), Hooks(), where, silent=True)
        return self._read(run, self._found(run)).pool

    def _run(self, question: str, budget: Budget, hooks: Hooks, where: Filter | None = None, *, history: Sequence[Turn] = (),
             silent: bool = False) -> _Run:
        run = _Run(clean_question(question, limit=self.settings.max_question_chars), budget, hooks, time.monotonic(), where,
                   silent=silent)
        if history:
            since = time.monotonic()
            run.take(rewriting.contextual(run.question, history, reader=self._large, settings=self._quiet(run),
                                          limits=self._limits(run)))
            run.rewrite_s += time.monotonic() - since
        return run

    def _quiet(self, run: _Run) -> Settings:
        """The settings, in which a reader that is not to be asked writes no queries."""
        asks = self.settings.rewriter == "llm"
        return replace(self.settings, rewriter="auto") if asks and run.silent else self.settings

    def _limits(self, run: _Run) -> rewriting.Limits:
        fixed = 0 if run.budget.cost_usd is None else self.reader.prompt_tokens(prompts.build(run.asked.told, ""))
        return rewriting.Limits(run.deadline, run.hooks.cancelled, run.budget.cost_usd, fixed)

    def _recall(self, run: _Run, limit: int) -> None:
        """What memory has, and the decision that follows from it, where memory is asked at all."""
        if self.memory is None or clustered_route.asks_of_all(self.clusters, run.asked.search, self.settings):
            return
        since = time.monotonic()
        recalled = run.recalled = self.memory.recall(self._asking(run, limit))
        self._spend(run, encoder_passes=recalled.passes, since=since)
        verdict = recalled.verdict
        run.step("trigger", since, decision=verdict.decision, why=verdict.why, **recalled.facts)

    def _remembered(self, run: _Run, limit: int, answer: Answer) -> Answer:
        """The answer, when what it took from the index has been kept."""
        if self.memory is not None and run.recalled is not None and run.read is not None:
            self.memory.remember(self._asking(run, limit), run.recalled, pool=run.read, answer=answer)
        return answer

    def _repeated(self, run: _Run, stored: Stored) -> Answer:
        if run.hooks.on_token is not None:
            run.hooks.on_token(stored.text)
        return self._finish(run, EMPTY, naive=stored.naive_tokens, verdict="answered", reason=stored.reason, text=stored.text,
                            cited=stored.citations)

    def asking(self, question: str, *, where: Filter | None = None) -> Asking:
        """A question as memory takes it, for fitting and inspecting: under no budget."""
        return self._asking(self._run(question, Budget(1), Hooks(), where, silent=True), 1)

    def _asking(self, run: _Run, limit: int) -> Asking:
        return Asking(run.asked.search, self.searcher, self.vectors, self.reader.tokenizer, self.settings, self.reader.name, limit,
                      self.cross if self.settings.selector in BY_CHANCE else None, run.where, told=run.asked.told,
                      way=(self._quiet(run).rewriter, *clustered_route.state(self.clusters, self.settings)))

    def _context_limit(self, run: _Run) -> int:
        """The context budget after the reader's window and the caller's money are taken into account."""
        # Which of the two prompts it will be is not known yet.
        fixed = max(self.reader.prompt_tokens(prompts.build(run.asked.told, _PROBE, overall=overall))
                    for overall in (False, True)[:1 + clustered_route.possible(self.clusters, self.settings)])
        fixed -= self.reader.tokenizer.count(_PROBE)
        tables = [ledger.prices(self.settings)] + ([ledger.small_prices(self.settings)] if self._pair else [])
        room = self.reader.context_window - fixed - self.settings.reader_max_tokens
        if room < 1:
            raise QuestionTooLong(f"The question leaves no room in the reader's window of {self.reader.context_window} tokens.",
                                  hint="Shorten it.", field="question")
        limit = min(run.budget.context_tokens, room)
        if run.budget.cost_usd:
            spent = ledger.cost_usd(run.usage, settings=self.settings, local_wh=0)
            for table in tables:
                affordable = ledger.affordable_context(max_cost=run.budget.cost_usd - spent, fixed_tokens=fixed,
                                                       settings=self.settings, prices=table)
                limit = limit if affordable is None else min(limit, affordable)
        return limit

    def _found(self, run: _Run) -> _Found:
        """Candidates and their pool, from memory where the same was asked a moment ago."""
        since = time.monotonic() - run.rewrite_s
        settings = self.settings
        found = self.recent.get(self._asked(run), lambda: self._retrieve(run))
        if found.rewrite is not None or run.asked.facts:
            run.step("rewrite", time.monotonic() - run.rewrite_s, rewriter=settings.rewriter, **(found.rewrite or run.asked.facts))
        since += run.rewrite_s
        plan = found.search.plan
        facts: dict[str, object] = {"origins": list(plan.origins)}
        if settings.mode == "hybrid":
            facts["fusion"] = settings.fusion
        if plan.notes:
            facts["notes"] = list(plan.notes)
        if run.where is not None:
            facts["where"] = str(run.where)
        if found.second.asked:
            facts["second_look"] = found.second.facts()
        facts |= found.clustered.facts
        run.step("retrieve", since, mode=settings.mode, **facts, candidates=len(found.candidates), naive_tokens=found.naive_tokens)
        return found

    def _asked(self, run: _Run) -> tuple[object, ...]:
        """What decides about the candidates of a question."""
        settings = self.settings
        return (self.searcher.snapshot.id, run.asked.search, run.asked.told, run.asked.queries, settings.mode, settings.origins,
                settings.fusion, settings.candidates, settings.naive_k, settings.second_look, self._quiet(run).rewriter,
                str(run.where), *clustered_route.state(self.clusters, settings))

    def _retrieve(self, run: _Run) -> _Found:
        """`naive_tokens`: what the prompt of a rank-order fill with the first `naive_k` hybrid chunks would have cost."""
        since = time.monotonic()
        question = run.asked.search
        [vector], encoded = self.vectors.get([question])
        self._spend(run, encoder_passes=encoded, since=since)
        mode: Mode = self.settings.mode  # type: ignore[assignment]  # checked when the settings were read
        k = self.settings.candidates
        rewrites = mode == "hybrid" and self.settings.rewriter != "off"
        found = self.searcher.find(question, mode=mode, k=max(k, self.settings.naive_k, rewriting.DEPTH if rewrites else 0),
                                   vector=vector, where=run.where, settings=self.settings)
        ranked = found if mode == "hybrid" else self.searcher.find(
            question, mode="hybrid", k=self.settings.naive_k, vector=vector, where=run.where, settings=self.settings)
        naive = render([whole(hit.chunk) for hit in ranked.hits[:self.settings.naive_k]], counter=self.reader.tokenizer)
        second, rewrite = SecondLook(Found(found.hits[:k], found.rows[:k], found.plan)), None
        routed = clustered_route.routed(self.clusters, question, ranked.hits, vector=vector, where=run.where,
                                        settings=self.settings)
        if routed.summaries is not None:
            candidates = list(routed.summaries.hits)
            return _Found(candidates, self._pool(run, candidates),
                          self.reader.prompt_tokens(prompts.build(run.asked.told, naive.text)), second.found, second, None, routed)
        if rewrites and found.hits:
            second, rewrite = self._rewritten(run, found, vector)
        elif mode == "hybrid" and self.settings.second_look == "auto":
            second = second_look(question, found, searcher=self.searcher, k=k, vector=vector, where=run.where)
        candidates = list(second.found.hits)
        return _Found(candidates, self._pool(run, candidates),
                      self.reader.prompt_tokens(prompts.build(run.asked.told, naive.text)), second.found, second, rewrite,
                      routed)

    def _rewritten(self, run: _Run, first: Found, vector: Vectors) -> tuple[SecondLook, Mapping[str, object]]:
        """The pool after the stage `rewrite`, in the place of a second look, and its facts."""
        since, settings, k = time.monotonic(), self._quiet(run), self.settings.candidates
        is_open, chance = rewriting.opened(run.asked, first, searcher=self.searcher, settings=settings)
        facts: dict[str, object] = {} if chance is None else {"chance": round(chance, 4)}
        if is_open:
            run.take(rewriting.with_proposals(run.asked, reader=self._large, settings=settings, limits=self._limits(run)))
        queries = run.asked.queries
        pool = Found(first.hits[:k], first.rows[:k], first.plan)
        if is_open or queries:
            self._spend(run, encoder_passes=len(queries), since=time.monotonic())
            done = rewritten(run.asked.search, first, searcher=self.searcher, vector=vector, k=k, queries=queries, where=run.where,
                             bridges=is_open and settings.rewriter != "feedback", settings=self.settings, stop=run.halfway())
            pool, facts = done.found, {**facts, **done.facts}
        run.rewrite_s += time.monotonic() - since
        return SecondLook(pool), {"open": is_open, **run.asked.facts, "queries": [query.to_dict() for query in queries], **facts}

    def _read(self, run: _Run, found: _Found) -> _Found:
        """With the cross-encoder's scores, for selectors that go by them; from memory where the same was asked a moment ago."""
        if self.cross is None or self.settings.selector not in BY_CHANCE or not found.candidates or found.clustered.summaries:
            return found
        cross, since, pairs, question = self.cross, time.monotonic(), self.settings.cross_pairs, run.asked.search
        key = (*self._asked(run), cross.name, pairs)
        read = self.recent.get(key, lambda: replace(found, pool=reading.read(found.pool, question, encoder=cross, pairs=pairs)))
        run.step("read", since, model=cross.name, pairs=sum(bool(each.sentence_answers) for each in read.pool.candidates))
        run.encoder_s += time.monotonic() - since
        return read

    def _insufficient(self, chance: float | None) -> str | None:
        """Why a choice of that sufficiency is not worth the reader's time, or None."""
        least = self.settings.min_sufficiency
        if chance is None or chance >= least:
            return None
        return (f"insufficient: the best context holds the answer with a chance of {chance:.2f}, under the threshold of "
                f"{least:.2f} (setting min_sufficiency)")

    def _filter(self, run: _Run, found: _Found) -> str | None:
        """Why none of the candidates is worth reading, or None."""
        since = time.monotonic()
        best = max((max(candidate.sentence_relevance) for candidate in found.pool.candidates), default=0.0)
        least = self.settings.abstain_below
        if found.clustered.summaries is not None:
            best, least = max(best, found.clustered.nearest), 0.0 if found.clustered.all_they_say else least
        run.step("filter", since, best_relevance=round(best, 4), threshold=least)
        if not found.candidates and run.where is not None:
            return f"no_index_content: no document that could be searched matches {run.where}"
        if not found.candidates:
            return "no_index_content: the collection holds nothing that could be searched"
        if best < least:
            return (f"nothing_relevant: the best sentence has relevance {best:.2f}, under the threshold of "
                    f"{least:.2f} (setting abstain_below)")
        return None

    def _select(self, run: _Run, found: _Found, limit: int) -> tuple[Selection, float | None]:
        """The choice, and the chance that it suffices where the selector goes by chances."""
        since, settings = time.monotonic(), self.settings
        pool = found.pool
        chances = relevance.chances(pool) if settings.selector in BY_CHANCE and not run.overall else None
        if chances is not None and settings.filter_below:
            pool = filtered(pool, chances, below=settings.filter_below, floor=settings.filter_floor)
        run.pool = pool
        selector = SELECTORS[self.settings.selector] if not run.overall else clustered_route.selector(found.clustered)
        selection = selector(pool, budget=limit, render=lambda extracts: render(extracts, counter=self.reader.tokenizer),
                             stop=run.halfway(), watch=run.hooks.on_search)
        run.degraded = selection.degraded
        if self._pair and not run.overall:      # summaries are read by the large reader
            run.seen = found.pool, relevance.chances(found.pool) if chances is None else chances
        chance = None if chances is None else sufficiency(pool, chances, selection.extracts)
        considered = [{**row.to_dict(), "origins": {name: round(score, 6) for name, score in hit.origins.items()}}
                      for row, hit in zip(selection.considered, found.candidates, strict=True)]
        run.step("select", since, selector=coverage.NAME if run.overall else settings.selector, limit_tokens=limit,
                 filtered=len(pool.dropped), utility=round(selection.utility, 6),
                 evaluations=selection.evaluations, degraded=selection.degraded,
                 next_best=selection.next_best.to_dict() if selection.next_best else None, considered=considered,
                 sufficiency=None if chance is None else round(chance, 4),
                 **self._explained(run, found, selection))
        return selection, chance

    def _explained(self, run: _Run, found: _Found, selection: Selection) -> dict[str, object]:
        """For each chosen passage what the question's terms add to its sparse score, where that was searched."""
        if run.overall:
            return {}
        chosen = list({extract.chunk.id: extract.chunk for extract in selection.extracts}.values())
        told = self.searcher.explain(run.asked.search, found.search, chunks=chosen)
        if told is None:
            return {}
        return {"terms": [{"chunk_id": chunk.id, "source": chunk.source, "terms": [match.to_dict() for match in matches]}
                          for chunk, matches in zip(chosen, told, strict=True)]}

    def _too_small(self, found: Sequence[ScoredChunk], limit: int) -> str:
        if self.settings.selector in WHOLE:
            unit, parts = "whole chunk", [whole(hit.chunk) for hit in found]
        else:
            unit, parts = "sentence", [Extract(hit.chunk, (i,)) for hit in found for i in range(len(hit.chunk.sentences))]
        least = min(render([part], counter=self.reader.tokenizer).tokens for part in parts)
        if least <= limit:
            return (f"nothing_chosen: the selector {self.settings.selector} found no {unit} worth its tokens within {limit}. "
                    "Try another --selector")
        return (f"budget_too_small: {limit} context tokens hold no {unit} of any candidate; the shortest takes {least} "
                f"with its heading. Raise --budget to {least} or more")

    def _pool(self, run: _Run, found: Sequence[ScoredChunk]) -> Pool:
        since = time.monotonic()
        question = run.asked.search
        pool, encoded = pooled(question, found, vectors=self.vectors, counter=self.reader.tokenizer,
                               weights=self.searcher.bm25.idf(lexical.words(question)))
        self._spend(run, encoder_passes=encoded, since=since)
        return pool

    def _answer(self, run: _Run, extracts: Sequence[Extract], limit: int, *, naive: int | None) -> Answer:
        since = time.monotonic()
        context = render(extracts, counter=self.reader.tokenizer, budget=limit)
        messages = self._messages(run, context)
        if naive is None:
            naive = self.reader.prompt_tokens(messages)
        run.step("render", since, tokens=context.tokens, passages=len(context.passages))
        pair = self._pair
        try:
            if pair is None or run.seen is None:
                generation = self._generate(run, messages, self.reader)
            else:
                generation = self._routed(run, messages, pair, context, seen(*run.seen, extracts, tokens=context.tokens))
        except UpstreamError as error:
            if self.settings.fallback == "none":
                raise
            return self._extracted(run, context, naive=naive, error=error)
        return self._checked(run, generation, context, naive=naive)

    def _members(self, chunk: Chunk) -> Sequence[Chunk] | None:
        return None if self.clusters is None else self.clusters.members(chunk)

    def _messages(self, run: _Run, context: Context) -> list[Message]:
        return prompts.build(run.asked.told, context.text, overall=run.overall)

    def _extracted(self, run: _Run, context: Context, *, naive: int, error: UpstreamError) -> Answer:
        """What the documents themselves say, where the reader says nothing."""
        since = time.monotonic()
        found = quoted(context, weights=self.searcher.bm25.idf(lexical.words(run.question)))
        run.record("extract", since, error=error.code, sentences=len(found.citations))
        return self._finish(run, context, naive=naive, verdict="degraded", reason=f"reader_failed: {error.message}",
                            text=found.text, cited=found.citations)

    @property
    def _pair(self) -> routing.Pair | None:
        """The two readers to choose from, where the router is on."""
        return self.reader if isinstance(self.reader, routing.Pair) else None

    @property
    def _large(self) -> Reader:
        """The reader for everything but answers."""
        return self._pair.large if self._pair else self.reader

    def _routed(self, run: _Run, messages: Sequence[Message], pair: routing.Pair, context: Context, signs: Mapping[str, float]
                ) -> Generation:
        """The answer of the reader that the router settles on."""
        since = time.monotonic()

        def ask(size: Size, *, last: bool) -> Generation:
            nonlocal since
            generation = self._generate(run, messages, pair.large if size == "large" else pair.small, small=size == "small",
                                        heard=last)
            since = time.monotonic()
            return generation

        def judge(generation: Generation) -> Reading:
            text = generation.text.strip()
            return Reading(text, prompts.abstains(text) or not text, self._support(run, text, context).support,
                           generation.finish != "stop", generation.mean_logprob, generation.least_logprob)

        def forbidden() -> str | None:
            if run.stopped():
                return "there is no time left"
            most = ledger.worst_usd(prompt_tokens=pair.large.prompt_tokens(messages), settings=self.settings,
                                    prices=ledger.prices(self.settings))
            spent = ledger.small_prices(self.settings).of(run.small_usage) + ledger.prices(self.settings).of(run.usage)
            if run.budget.cost_usd and spent + most > run.budget.cost_usd:
                return f"both could cost ${spent + most:.6f}, over the ceiling of ${run.budget.cost_usd:g}"
            return None

        found = routing.routed(pair.model, run.asked.told, signs, settings=self.settings, ask=ask, judge=judge, forbidden=forbidden,
                               tell=lambda **facts: run.record("route", since, **facts))
        run.answered_by, run.degraded = found.size, run.degraded or found.degraded
        if run.hooks.on_token is not None and not found.heard:
            run.hooks.on_token(found.generation.text)
        return found.generation

    def _generate(self, run: _Run, messages: Sequence[Message], reader: Reader, *, small: bool = False, heard: bool = True
                  ) -> Generation:
        """`small`: billed as the router's small reader. `heard`: whoever listens hears the answer as it comes."""
        since = time.monotonic()
        try:
            generation = reader.generate(messages, max_tokens=self.settings.reader_max_tokens,
                                         on_token=run.hooks.on_token if heard else None,
                                         deadline=run.deadline, cancelled=run.hooks.cancelled)
        except UpstreamError as error:
            if error.spent is not None:
                run.bill(error.spent, counted=False, small=small)
            raise
        run.bill(Usage(prompt_tokens=generation.prompt_tokens, completion_tokens=generation.completion_tokens,
                       cached_tokens=generation.cached_tokens, llm_calls=1, llm_seconds=generation.seconds),
                 counted=generation.counted_by == "server", small=small)
        # A deadline met while generating is a partial answer, which the check reports; it is no error.
        run.record("generate", since, model=reader.name, finish=generation.finish,
                   prompt_tokens=generation.prompt_tokens, completion_tokens=generation.completion_tokens,
                   cached_tokens=generation.cached_tokens, first_token_s=generation.first_token_s,
                   mean_logprob=generation.mean_logprob, least_logprob=generation.least_logprob)
        return generation

    def _checked(self, run: _Run, generation: Generation, context: Context, *, naive: int) -> Answer:
        since = time.monotonic()
        text = generation.text.strip()
        checked = self._support(run, text, context)
        unknown = prompts.abstains(text)
        run.record("check", since, support=checked.support, unknown_marks=list(checked.unknown_marks), said_unknown=unknown)
        if not text:
            return self._finish(run, context, naive=naive, verdict="abstained", reason="empty_answer: the reader said nothing")
        if unknown:
            return self._finish(run, context, naive=naive, verdict="abstained", text=checked.text,
                                reason="reader_declined: the reader found no answer in the context")
        verdict, reason = _judged(generation, checked, closed_book=not context.passages)
        if verdict == "answered" and run.degraded:
            verdict, reason = "degraded", run.degraded
        return self._finish(run, context, naive=naive, verdict=verdict, reason=reason, text=checked.text, cited=checked.citations)

    def _support(self, run: _Run, text: str, context: Context) -> citations.Checked:
        return citations.check(text, context, sentences=[text[a:b] for a, b in split(text, "en")], question=run.asked.told,
                               members=self._members)

    def _finish(self, run: _Run, context: Context, *, naive: int, verdict: Verdict, reason: str | None, text: str = "",
                cited: Sequence[Citation] = (), shown: Context | None = None) -> Answer:
        """`shown`: the best passages of an answer for which nothing was read."""
        pair = self._pair
        model = pair.small.name if pair and run.answered_by == "small" else self.reader.name
        receipt = ledger.receipt(
            run.usage, settings=self.settings, local=self.reader.local, exact_tokens=self.reader.tokenizer.exact,
            second=ledger.Second(run.small_usage, ledger.small_prices(self.settings), pair.small.local) if pair else None,
            counted=run.counted, budget_tokens=run.budget.context_tokens, context_tokens=context.tokens,
            naive_tokens=naive, model=model, seconds=_seconds(run), encoder_s=run.encoder_s, guessed=run.guessed)
        return Answer(id=uuid.uuid4().hex, question=run.question, text=text, verdict=verdict, reason=reason,
                      citations=tuple(cited), receipt=receipt, snapshot=self.searcher.snapshot.id,
                      config=self.settings.config_hash(), trace=tuple(run.steps), context=shown or context)

    def _spend(self, run: _Run, *, encoder_passes: int, since: float) -> None:
        run.usage += Usage(encoder_passes=encoder_passes)
        run.encoder_s += time.monotonic() - since


EMPTY = Context(text="", tokens=0, passages=())
# A context of known cost: what a prompt costs around any context is the prompt with this one, less this one.
_PROBE = "[1]\n"


def _seconds(run: _Run) -> dict[str, float]:
    """By stage; one that ran twice counts twice."""
    spent: dict[str, float] = {}
    for step in run.steps:
        spent[step.stage] = spent.get(step.stage, 0.0) + step.seconds
    return {**{stage: round(seconds, 6) for stage, seconds in spent.items()}, "total": round(time.monotonic() - run.started, 6)}


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
