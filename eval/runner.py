"""Runs every (data set, system, budget, question) that is not done yet, one line of results each, then sums up.

Three passes. A few questions of each data set are run alone, one at a time on a cold reader: only their seconds are told.
Then the rest of the reader's sample, `parallel` questions at a time; a question meets all systems and budgets in a row, the
largest budget first, so that prompts that begin alike share the reader's prefix cache. Last the questions beyond the sample,
of which only the contexts are made and judged.

A rerun into the same folder goes on where the last one stopped and repeats only what failed. Reader calls that were made
before, by any run of this home, are remembered and cost nothing; their tokens and money are those of the real call.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path
from typing import Protocol

from eval import datasets, systems
from eval.cache import CachingReader
from eval.corpus import FOLDER, OpenCollection, opened
from eval.datasets import Dataset, Question
from eval.judge import Judge
from eval.machine import machine, versions
from eval.reply import Reply
from eval.report import Paths, write_questions, write_report
from eval.results import Contexts, Key, Results, Row, write_text
from eval.scoring import score, score_of_failure
from eval.summary import BASELINE, summarise
from eval.systems import KnowledgeBase, System
from rag import __version__
from rag.errors import BudgetError, InputError, RagError, StorageError
from rag.llm import Reader
from rag.settings import Settings
from rag.types import OnProgress, Progress, no_progress

READER_CALLS = "reader-calls.sqlite"
OURS = "thrift"


class OpenReader(Protocol):
    def __call__(self, *, prefix_cache: bool) -> Reader:
        """The reader, loaded when it is first asked. Without `prefix_cache` every prompt is computed from its beginning."""


class Peer(Protocol):
    """Another program with an index of its own over the data set's passages."""

    def answer(self, question: str, *, budget: int, read: bool) -> Reply: ...

    def ahead(self, question: str, *, budget: int) -> None:
        """Has the reader, which remembers, answer what `answer` will ask it; others may use the peer meanwhile."""

    def close(self) -> None: ...


class OpenPeer(Protocol):
    def __call__(self, name: str, dataset: Dataset, *, settings: Settings, reader: Reader, cold: bool,
                 on_progress: OnProgress) -> Peer:
        """`cold` as for collections. Raises InputError where the program is not installed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `limit`: so many questions of each data set, drawn by `seed`; `sample`: so many of these the reader
    answers, None for all; `timed`: so many of these alone and by the clock; `parallel`: questions at a time else."""

    folders: tuple[Path, ...]
    systems: tuple[str, ...]
    budgets: tuple[int, ...]
    out: Path
    limit: int | None = None
    sample: int | None = None
    timed: int = 5
    parallel: int = 8
    answerable: bool = False
    seed: int = 13
    patience_s: float = 60.0
    fresh: bool = False
    layout: str | None = None
    command: str | None = None          # that runs this plan again, for the report


@dataclass(frozen=True, slots=True)
class Outcome:
    """The summary and the report as written, and what this call did.

    Rows: `computed` now, `kept` from before, `failed` among all. Reader calls: made (`calls`) and `remembered`.
    """

    summary: Mapping[str, object]
    report: Paths | None
    computed: int
    kept: int
    failed: int
    calls: int
    remembered: int
    stopped: bool


@dataclass(frozen=True, slots=True)
class _Task:
    """One row to make. `budget` is None for systems that no budget binds."""

    dataset: Dataset
    question: Question
    system: System
    budget: int | None
    read: bool
    timed: bool

    @property
    def key(self) -> Key:
        return self.dataset.name, self.system.name, self.budget, self.question.id

    @property
    def note(self) -> str:
        return f"{self.system.name}{'' if self.budget is None else f' {self.budget}'} on {self.dataset.name}"


@dataclass(frozen=True)
class _Means:
    """What a run needs besides its plan."""

    settings: Settings
    open_reader: OpenReader
    open_collection: OpenCollection
    open_peer: OpenPeer
    results: Results
    contexts: Contexts
    on_progress: OnProgress
    cancelled: Callable[[], bool]


def run(plan: Plan, *, settings: Settings, open_reader: OpenReader, open_collection: OpenCollection, open_peer: OpenPeer,
        judge: Callable[[], Reader] | None = None, on_progress: OnProgress = no_progress,
        cancelled: Callable[[], bool] = lambda: False) -> Outcome:
    """Runs the plan and writes results, summary and report into `plan.out`.

    The reader is opened only if something is left to do, and closed. When `cancelled` turns true, the run ends after the
    questions in hand and sums up what is there. `judge` opens a reader that grades the answers.

    Raises:
        InputError, BudgetError: the plan, a data set, or results of another run in the folder cannot be used.
        StorageError: the disk refused; the rows before are safe.
    """
    tasks = _tasks(plan)
    made = {"reader": settings.reader, "reader_url": settings.reader_url, "embedder": settings.embedder,
            "chunk_tokens": settings.chunk_tokens, "config": settings.config_hash(), "version": __version__}
    digests = {task.dataset.name: task.dataset.digest for task in tasks}
    with closing(Results(plan.out, run=made, datasets=digests)) as results, closing(Contexts(plan.out)) as contexts:
        todo = [task for task in tasks if not results.done(task.key, read=task.read, timed=task.timed)]
        means = _Means(settings, open_reader, open_collection, open_peer, results, contexts, on_progress, cancelled)
        calls = remembered = 0
        for kind, pass_ in _PASSES.items():
            chosen = [task for task in todo if kind == ("timed" if task.timed else "read" if task.read else "context")]
            if chosen and not cancelled():
                with _remembering(plan, means, prefix_cache=kind != "timed") as memory:
                    memory.reader.alone = kind == "timed"
                    pass_(chosen, plan, means, memory)
                calls, remembered = calls + memory.reader.misses, remembered + memory.reader.hits
        if judge is not None:
            _judge([task for task in tasks if task.read], means, judge, plan)
        rows = [results.rows[task.key] for task in tasks if task.key in results.rows]
        computed = sum(task.key in results.computed for task in tasks)
    summed = _summary(rows, plan, made)
    write_text(plan.out / "summary.json", json.dumps(summed, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
    by_dataset = {task.dataset.name: task.dataset for task in tasks}
    write_questions(plan.out, [(dataset, list(dict.fromkeys(task.question for task in tasks if task.dataset is dataset)))
                               for dataset in by_dataset.values()])
    # Without a row there is nothing to show: the run was stopped while it read the passages.
    report = write_report(plan.out, only={task.key for task in tasks},
                          wins_for=OURS if {OURS, BASELINE} <= set(plan.systems) else None) if rows else None
    return Outcome(summary=summed, report=report, computed=computed, kept=len(tasks) - len(todo), calls=calls,
                   remembered=remembered, failed=sum(row["error"] is not None for row in rows),
                   stopped=any(task.key not in results.computed for task in todo))


@dataclass(frozen=True)
class _Memory:
    """The reader of one pass, and the programs that were opened with it: each once for a data set."""

    reader: CachingReader
    peers: dict[tuple[str, str], Peer]
    stack: ExitStack

    def __enter__(self) -> _Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def peer(self, task: _Task, means: _Means) -> Peer:
        place = task.dataset.name, task.system.name
        if place not in self.peers:
            private = means.open_peer(task.system.name, task.dataset, settings=means.settings, reader=self.reader,
                                      cold=self.reader.alone, on_progress=means.on_progress)
            self.stack.callback(private.close)
            self.peers[place] = private
        return self.peers[place]


def _remembering(plan: Plan, means: _Means, *, prefix_cache: bool) -> _Memory:
    settings = means.settings
    stack = ExitStack()
    reader = CachingReader(means.open_reader(prefix_cache=prefix_cache), settings.home / FOLDER / READER_CALLS,
                           identity=f"{settings.reader} {settings.reader_url}".strip(), patience_s=plan.patience_s,
                           forgetful=plan.fresh, cancelled=means.cancelled)
    stack.callback(reader.end)
    return _Memory(reader, {}, stack)


def _one_by_one(tasks: Sequence[_Task], plan: Plan, means: _Means, memory: _Memory) -> None:
    """Group by group, each with a collection opened cold: none gains from what another has left in its caches."""
    tick = count()
    order = sorted(tasks, key=lambda task: (task.dataset.name, task.system.name, task.budget or 0))
    for _, group in groupby(order, key=lambda task: (task.dataset.name, task.system.name, task.budget)):
        members = list(group)
        kb = None if means.cancelled() else _opened(members[0], means, memory, cold=True)
        if kb is None:
            return
        with closing(kb):
            for task in members:
                if means.cancelled():
                    return
                means.on_progress(Progress("time", next(tick), len(tasks), unit="answers", note=task.note))
                means.results.append(_row(task, kb, means, memory))
    means.on_progress(Progress("time", len(tasks), len(tasks), unit="answers"))


def _at_once(tasks: Sequence[_Task], plan: Plan, means: _Means, memory: _Memory) -> None:
    """`plan.parallel` questions at a time, data set by data set."""
    tick, telling, broken = count(1), threading.Lock(), threading.Event()
    stage, unit = ("answer", "answers") if tasks[0].read else ("context", "contexts")
    means.on_progress(Progress(stage, 0, len(tasks), unit=unit, note=tasks[0].note))

    def work(mine: Sequence[_Task], kb: KnowledgeBase) -> None:
        try:
            for task in mine:
                if means.cancelled() or broken.is_set():
                    return
                means.results.append(_row(task, kb, means, memory))
                with telling:
                    means.on_progress(Progress(stage, next(tick), len(tasks), unit=unit, note=task.note))
        except BaseException:
            broken.set()        # what one thread cannot write down, the others cannot either
            raise

    for _, group in groupby(tasks, key=lambda task: task.dataset.name):
        members = sorted(group, key=lambda task: (task.system.name, -(task.budget or 0)))
        kb = None if means.cancelled() else _opened(members[0], means, memory, cold=False)
        if kb is None:
            return
        by_question: dict[str, list[_Task]] = {}
        for task in members:
            by_question.setdefault(task.question.id, []).append(task)
        for name in dict.fromkeys(task.system.name for task in members if task.system.reply is None):
            memory.peer(next(task for task in members if task.system.name == name), means)
        with closing(kb), ThreadPoolExecutor(plan.parallel, thread_name_prefix="evaluate") as pool:
            running = [pool.submit(work, mine, kb) for mine in by_question.values()]
            wait(running)
            for ended in running:
                ended.result()


_PASSES = {"timed": _one_by_one, "read": _at_once, "context": _at_once}


def _opened(task: _Task, means: _Means, memory: _Memory, *, cold: bool) -> KnowledgeBase | None:
    return opened(task.dataset, settings=means.settings, open_collection=means.open_collection, reader=memory.reader,
                  cold=cold, on_progress=means.on_progress, cancelled=means.cancelled)


def _tasks(plan: Plan) -> list[_Task]:
    """The plan, checked before any work: data sets in the order given, then systems, budgets and questions."""
    chosen = systems.named(plan.systems)
    if not plan.budgets:
        raise BudgetError("No budget is named.", hint="Use for instance --budgets 128,256.", field="budgets")
    for budget in plan.budgets:
        if budget < 1:
            raise BudgetError(f"A budget of {budget} tokens is not possible.", hint="Use 1 or more.", field="budgets")
    data = [datasets.load(folder, layout=plan.layout) for folder in plan.folders]
    names = [dataset.name for dataset in data]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"Two data sets are named {name!r}.", code="dataset_invalid",
                             hint="Give each folder its own name: results are kept by it.")
    tasks = []
    for dataset in data:
        questions = datasets.chosen(dataset, limit=plan.limit, answerable=plan.answerable, seed=plan.seed)
        sample = len(questions) if plan.sample is None else plan.sample
        tasks += [_Task(dataset, question, system, budget, read=place < sample, timed=place < min(plan.timed, sample))
                  for system in chosen for budget in (dict.fromkeys(plan.budgets) if system.bounded else (None,))
                  for place, question in enumerate(questions)]
    return tasks


def _row(task: _Task, kb: KnowledgeBase, means: _Means, memory: _Memory) -> Row:
    question = task.question
    place = {"dataset": task.dataset.name, "system": task.system.name, "budget": task.budget, "question": question.id,
             "type": question.type, "unanswerable": question.unanswerable, "language": question.language, "read": task.read}
    hits, seconds = memory.reader.replayed
    budget = memory.reader.context_window if task.budget is None else task.budget
    try:
        if task.system.reply is None:
            peer = memory.peer(task, means)
            if task.read and not task.timed:
                peer.ahead(question.text, budget=budget)
            reply = peer.answer(question.text, budget=budget, read=task.read)
        else:
            reply = task.system.reply(kb, question, budget=budget, read=task.read)
    except StorageError:
        raise
    except Exception as error:  # whatever goes wrong with one question is its result; the others have theirs
        code = error.code if isinstance(error, RagError) else type(error).__name__
        return {**place, **dict.fromkeys(_FACTS), **score_of_failure(question, read=task.read), "judge": None,
                "timed": task.timed, "remembered": False, "error": {"code": code, "message": str(error)}}
    hits_after, seconds_after = memory.reader.replayed
    times = {name: round(s, 6) for name, s in reply.seconds.items() if name != "total"} if task.timed else None
    return {**place, **_facts(reply), **score(question, reply), "judge": None,
            "context": means.contexts.put(reply.context) if task.read else None,
            "timed": task.timed, "stages": times,
            "seconds": round(reply.seconds["total"] + seconds_after - seconds, 6) if task.timed else None,
            "remembered": hits_after > hits, "error": None}


_FACTS = ("answer", "verdict", "reason", "shown", "citations", "context_tokens", "prompt_tokens", "completion_tokens",
          "cached_tokens", "naive_tokens", "llm_calls", "encoder_passes", "cost_usd", "energy_wh", "water_ml", "context",
          "stages", "seconds")


def _facts(reply: Reply) -> dict[str, object]:
    """What was answered, from which documents, at what cost."""
    cited = None if reply.citations is None else [
        {"chunk_id": c.chunk_id, "doc_id": c.doc_id, "start": c.start, "end": c.end, "quote": c.quote} for c in reply.citations]
    return {
        "answer": reply.text, "verdict": reply.verdict, "reason": reply.reason,
        "shown": [passage.doc_id for passage in reply.passages], "citations": cited,
        "context_tokens": reply.context_tokens, "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens, "cached_tokens": reply.cached_tokens, "naive_tokens": reply.naive_tokens,
        "llm_calls": reply.llm_calls, "encoder_passes": reply.encoder_passes, "cost_usd": reply.cost_usd,
        "energy_wh": round(reply.energy_wh, 9), "water_ml": round(reply.water_ml, 9),
    }


def _judge(tasks: Sequence[_Task], means: _Means, open_judge: Callable[[], Reader], plan: Plan) -> None:
    """Adds the judge's grade to rows that were read and have none; calls are remembered like the reader's own."""
    waiting = [task for task in tasks if (row := means.results.rows.get(task.key)) is not None
               and row["error"] is None and row["judge"] is None and task.question.answers]
    if not waiting:
        return
    reader = CachingReader(open_judge(), means.settings.home / FOLDER / READER_CALLS, patience_s=plan.patience_s,
                           forgetful=plan.fresh, cancelled=means.cancelled)
    try:
        judge = Judge(reader)
        for done, task in enumerate(waiting):
            if means.cancelled():
                return
            means.on_progress(Progress("judge", done, len(waiting), unit="answers", note=task.note))
            row = means.results.rows[task.key]
            means.results.append({**row, "judge": judge.grade(task.question, str(row["answer"]))})
    finally:
        reader.end()


def _summary(rows: Sequence[Row], plan: Plan, made: Mapping[str, object]) -> dict[str, object]:
    chosen = {system.name: system.bounded for system in systems.named(plan.systems)}
    budgets = tuple(dict.fromkeys(plan.budgets))
    return {
        **summarise(rows, systems=chosen, budgets=budgets, seed=plan.seed),
        "plan": {"systems": list(chosen), "budgets": list(budgets), "limit": plan.limit, "sample": plan.sample,
                 "timed": plan.timed, "answerable": plan.answerable, "seed": plan.seed, "command": plan.command},
        "run": dict(made), "machine": machine(), "versions": versions(),
    }
