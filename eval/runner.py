"""Runs every (data set, system, budget, question) that is not done yet, one line of results each, then sums up.

A rerun into the same folder goes on where the last one stopped and repeats only what failed. Reader calls that were made
before are answered from `reader-calls.sqlite` there and cost nothing; tokens, money and seconds are those of the real call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count, groupby
from pathlib import Path

from eval import datasets, systems
from eval.cache import CachingReader
from eval.corpus import OpenCollection, opened
from eval.datasets import Dataset, Question
from eval.machine import machine, versions
from eval.report import as_markdown
from eval.results import Key, Results, Row, write_text
from eval.scoring import score, score_of_failure
from eval.summary import summarise
from eval.systems import KnowledgeBase, System
from rag import __version__
from rag.errors import BudgetError, InputError, RagError, StorageError
from rag.llm import Reader
from rag.settings import Settings
from rag.types import Answer, OnProgress, Progress, no_progress

READER_CALLS = "reader-calls.sqlite"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `limit`: the first so many questions of each data set, None for all; `seed` draws the intervals."""

    folders: tuple[Path, ...]
    systems: tuple[str, ...]
    budgets: tuple[int, ...]
    out: Path
    limit: int | None = None
    answerable: bool = False
    seed: int = 13


@dataclass(frozen=True, slots=True)
class Outcome:
    """The summary as written, and what this call did.

    Rows: `computed` now, `kept` from before, `failed` among all. Reader calls: made (`calls`) and `remembered`.
    """

    summary: Mapping[str, object]
    computed: int
    kept: int
    failed: int
    calls: int
    remembered: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class _Group:
    """Questions that one open collection answers in one way. `budget` is None for systems that no budget binds."""

    dataset: Dataset
    system: System
    budget: int | None
    questions: tuple[Question, ...]

    def key(self, question: Question) -> Key:
        return self.dataset.name, self.system.name, self.budget, question.id

    @property
    def note(self) -> str:
        return f"{self.system.name}{'' if self.budget is None else f' {self.budget}'} on {self.dataset.name}"


def run(plan: Plan, *, settings: Settings, open_reader: Callable[[], Reader], open_collection: OpenCollection,
        on_progress: OnProgress = no_progress, cancelled: Callable[[], bool] = lambda: False) -> Outcome:
    """Runs the plan and writes results.jsonl, summary.json and summary.md into `plan.out`.

    The reader is opened only if something is left to do, and closed. When `cancelled` turns true, the run ends after the
    question in hand and sums up what is there.

    Raises:
        InputError, BudgetError: the plan, a data set, or results of another run in the folder cannot be used.
        StorageError: the disk refused; the rows before are safe.
    """
    groups = _groups(plan)
    made = {"reader": settings.reader, "reader_url": settings.reader_url, "embedder": settings.embedder,
            "chunk_tokens": settings.chunk_tokens, "config": settings.config_hash(), "version": __version__}
    wanted = [group.key(question) for group in groups for question in group.questions]
    with closing(Results(plan.out, run=made, datasets={g.dataset.name: g.dataset.digest for g in groups})) as results:
        done = {key for key in wanted if results.done(key)}
        calls = remembered = 0
        if len(done) < len(wanted):
            memory = CachingReader(open_reader(), plan.out / READER_CALLS)
            try:
                _compute(groups, results, memory, partial(opened, settings=settings, open_collection=open_collection,
                                                          reader=memory, on_progress=on_progress, cancelled=cancelled),
                         on_progress=on_progress, cancelled=cancelled)
            finally:
                memory.end()
            calls, remembered = memory.misses, memory.hits
        rows = [results.rows[key] for key in wanted if key in results.rows]
        computed = sum(key in results.computed for key in wanted)
    summed = _summary(rows, plan, made)
    write_text(plan.out / "summary.json", json.dumps(summed, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
    write_text(plan.out / "summary.md", as_markdown(summed))
    return Outcome(summary=summed, computed=computed, kept=len(done), calls=calls, remembered=remembered,
                   failed=sum(row["error"] is not None for row in rows), stopped=computed + len(done) < len(wanted))


def _compute(groups: Sequence[_Group], results: Results, memory: CachingReader,
             open_group: Callable[[Dataset], KnowledgeBase | None], *, on_progress: OnProgress,
             cancelled: Callable[[], bool]) -> None:
    """Appends a row for every question that is not done, group by group."""
    todo = [(group, question) for group in groups for question in group.questions if not results.done(group.key(question))]
    tick = count()
    for group, pairs in groupby(todo, key=lambda pair: pair[0]):
        # A collection opened for each group: none gains from what another has left in its caches.
        kb = None if cancelled() else open_group(group.dataset)
        if kb is None:
            return
        with closing(kb):
            for _, question in pairs:
                if cancelled():
                    return
                on_progress(Progress("answer", next(tick), len(todo), unit="questions", note=group.note))
                results.append(_row(group, question, kb, memory))
    on_progress(Progress("answer", len(todo), len(todo), unit="questions"))


def _groups(plan: Plan) -> list[_Group]:
    """The plan, checked before any work: data sets in the order given, then systems, then budgets."""
    chosen = systems.named(plan.systems)
    if not plan.budgets:
        raise BudgetError("No budget is named.", hint="Use for instance --budgets 128,256.", field="budgets")
    for budget in plan.budgets:
        if budget < 1:
            raise BudgetError(f"A budget of {budget} tokens is not possible.", hint="Use 1 or more.", field="budgets")
    data = [datasets.load(folder) for folder in plan.folders]
    names = [dataset.name for dataset in data]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Two data sets are named {name!r}.", code="dataset_invalid",
                             hint="Give each folder its own name: results are kept by it.")
    return [_Group(dataset, system, budget, datasets.chosen(dataset, limit=plan.limit, answerable=plan.answerable))
            for dataset in data for system in chosen
            for budget in (dict.fromkeys(plan.budgets) if system.bounded else (None,))]


def _row(group: _Group, question: Question, kb: KnowledgeBase, memory: CachingReader) -> Row:
    place = {"dataset": group.dataset.name, "system": group.system.name, "budget": group.budget, "question": question.id,
             "type": question.type, "unanswerable": question.unanswerable}
    hits, replayed_s = memory.hits, memory.replayed_s
    budget = memory.context_window if group.budget is None else group.budget
    try:
        answer = group.system.answer(kb, question, budget)
    except StorageError:
        raise
    except Exception as error:  # whatever goes wrong with one question is its result; the others have theirs
        code = error.code if isinstance(error, RagError) else type(error).__name__
        return {**place, **dict.fromkeys(_FACTS), **score_of_failure(question),
                "error": {"code": code, "message": str(error)}}
    return {**place, **_facts(answer, replayed_s=memory.replayed_s - replayed_s), **score(question, answer),
            "remembered": memory.hits > hits, "error": None}


_FACTS = ("answer", "verdict", "reason", "shown", "context_tokens", "prompt_tokens", "completion_tokens", "cached_tokens",
          "naive_tokens", "llm_calls", "encoder_passes", "cost_usd", "seconds", "remembered")


def _facts(answer: Answer, *, replayed_s: float) -> dict[str, object]:
    """What was answered, from which documents, at what cost. `replayed_s`: what remembered calls had really taken."""
    bill = answer.receipt
    return {
        "answer": answer.text, "verdict": answer.verdict, "reason": answer.reason,
        "shown": [passage.chunk.doc_id for passage in answer.context.passages],
        "context_tokens": bill.context_tokens, "prompt_tokens": bill.prompt_tokens,
        "completion_tokens": bill.completion_tokens, "cached_tokens": bill.cached_tokens, "naive_tokens": bill.naive_tokens,
        "llm_calls": bill.llm_calls, "encoder_passes": bill.encoder_passes, "cost_usd": bill.cost_usd,
        "seconds": bill.seconds["total"] + replayed_s,
    }


def _summary(rows: Sequence[Row], plan: Plan, made: Mapping[str, object]) -> dict[str, object]:
    chosen = {system.name: system.bounded for system in systems.named(plan.systems)}
    budgets = tuple(dict.fromkeys(plan.budgets))
    return {
        **summarise(rows, systems=chosen, budgets=budgets, seed=plan.seed),
        "plan": {"systems": list(chosen), "budgets": list(budgets), "limit": plan.limit, "answerable": plan.answerable,
                 "seed": plan.seed},
        "run": dict(made), "machine": machine(), "versions": versions(),
    }
