"""Tuning from end to end: pairs, plan, search, frontier. The command line shows what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

from eval.cache import CachingReader
from eval.tune import frontier, generation, halving, pairs, trials, vetting
from eval.tune import search as trying
from eval.tune.bounds import BoundedReader, Spent
from eval.tune.generation import Collection, Generated
from eval.tune.pairs import Pair
from eval.tune.search import Contest, Results
from eval.tune.writing import LONGEST_REPLY
from rag.errors import RagError
from rag.llm import Reader
from rag.settings import Settings
from rag.types import OnProgress, no_progress

PAIRS = "pairs.jsonl"
READER_CALLS = "reader-calls.sqlite"
BUDGETS = (64, 96, 128, 192, 256, 384, 512, 1024)
SELECTORS = ("topk", "sentences", "greedy")
CANDIDATES = (12, 24, 48)
# Of what is allowed, the share that making pairs may use.
_FOR_PAIRS = 0.5
# What a call takes beside its context, and an answer: for estimates only.
_PROMPT_TOKENS, _ANSWER_TOKENS = 100, 15
_CALLS_PER_TRY = 3
# Questions are tried one after the other: the candidates of one, under every mode and number, are needed at a time.
_POOLS = 64


class NothingToTune(RagError):
    """There is nothing to compare configurations on."""

    code = "nothing_to_tune"


class Tunable(Collection, trials.Pipeline, Protocol):
    """An open collection (`rag.ThriftRAG`)."""

    def close(self) -> None: ...


class OpenCollection(Protocol):
    def __call__(self, settings: Settings, reader: Reader, keep_pools: int, /) -> Tunable:
        """The collection that the settings name. Raises CollectionMissing if it is not there."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to try, on how many questions, and how far to go. `keep`: share of the best F1 to keep."""

    questions: int = 40
    budgets: tuple[int, ...] = BUDGETS
    selectors: tuple[str, ...] = SELECTORS
    candidates: tuple[int, ...] = CANDIDATES
    modes: tuple[str, ...] = ("hybrid",)
    keep: float = 0.95
    max_calls: int | None = None
    max_seconds: float | None = None
    seed: int = 13


@dataclass(frozen=True, slots=True)
class Plan:
    """What is about to happen. `calls` is the most that can be made, `seconds` an estimate for all of them or None."""

    what: str
    calls: int
    seconds: float | None
    questions: int
    configurations: int = 0
    rungs: tuple[halving.Rung, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The frontier and what to use, None where that cannot be said. Reader calls: `calls` made, `remembered` from before."""

    rows: tuple[frontier.Row, ...]
    recommendation: frontier.Recommendation | None
    plan: Plan
    pairs: Mapping[str, int]
    question_metrics: Mapping[str, float]
    calls: int
    remembered: int
    finished: bool
    cancelled: bool
    run: Mapping[str, object] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        return {"recommendation": None if self.recommendation is None else self.recommendation.to_dict(),
                "frontier": [row.to_dict() for row in self.rows], "pairs": dict(self.pairs),
                "question_metrics": dict(self.question_metrics), "plan": asdict(self.plan),
                "reader_calls": {"made": self.calls, "remembered": self.remembered}, "finished": self.finished,
                "run": dict(self.run)}


class Tuning:
    """One collection being tuned. Close it, or use it as a context manager. The reader opens when the first call is made.

    `settings` with those of the collection on top. `folder` keeps every reader call, so that nothing is paid for twice,
    `pairs_file` the pairs.
    """

    def __init__(self, settings: Settings, options: Options, *, folder: Path, pairs_file: Path,
                 open_reader: Callable[[Settings], Reader], open_collection: OpenCollection) -> None:
        # A clock must not cut an answer that is measured, nor a price list a context whose cost is to be found out.
        self._settings = replace(settings, deadline_s=0.0, max_cost_usd=0.0)
        self._options = options
        self._file = pairs_file
        self._configurations = trials.grid(settings, selectors=options.selectors, budgets=options.budgets,
                                           candidates=options.candidates, modes=options.modes)
        self._bounded = BoundedReader(open_reader(self._settings))
        self._reader = CachingReader(self._bounded, folder / READER_CALLS,
                                     identity=f"{settings.reader} {settings.reader_url}".strip())
        try:
            self._collection = open_collection(self._settings, self._reader, _POOLS)
        except BaseException:
            self._reader.end()
            raise

    def __enter__(self) -> Tuning:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._collection.close()
        self._reader.end()

    def wants_pairs(self) -> bool:
        """Whether pairs are to be generated: there is no file yet, or one that generation began and did not fill."""
        if not self._file.exists():
            return True
        found = pairs.read(self._file)
        return any(pair.generated for pair in found) and sum(pair.keep for pair in found) < self._options.questions

    def generate(self, *, on_plan: Callable[[Plan], None], on_progress: OnProgress = no_progress,
                 cancelled: Callable[[], bool] = lambda: False) -> Generated:
        """Fills the file of pairs. One passage is tried before `on_plan` is told, so that it can say how long the rest takes.

        Raises:
            NothingToTune: the collection is empty, or holds no running text.
        """
        options = self._options
        self._bounded.bound(max_calls=None if options.max_calls is None else int(options.max_calls * _FOR_PAIRS),
                            max_seconds=None if options.max_seconds is None else options.max_seconds * _FOR_PAIRS)
        if not self._collection.documents():
            raise NothingToTune("The collection is empty.", hint="Read documents into it first: thriftrag ingest PATH.",
                                code="collection_empty")

        def so_far(tries: int) -> Generated:
            return generation.generate(self._collection, self._reader, path=self._file, wanted=options.questions, tries=tries,
                                       seed=options.seed, on_progress=on_progress, cancelled=cancelled)

        known = pairs.read(self._file) if self._file.is_file() else []
        tried = sum(pair.generated for pair in known)
        most = max(generation.TRIES_PER_PAIR * options.questions, tried)
        first = so_far(tried + 1)
        if first.finished and not first.pairs:
            raise NothingToTune("No passage of the collection is running text that a question could be asked about.",
                                hint="Tables, lists and passages under 20 words are left out. Write your own pairs and name "
                                     "their file with --pairs.")
        wanted = options.questions - sum(pair.keep for pair in first.pairs)
        calls = _within(_CALLS_PER_TRY * (most - tried), self._bounded.calls_left)
        on_plan(Plan(what="pairs", calls=calls, seconds=self._seconds(calls, self._settings.chunk_tokens + LONGEST_REPLY),
                     questions=wanted))
        return so_far(most)

    def search(self, *, on_plan: Callable[[Plan], None], on_progress: OnProgress = no_progress,
               cancelled: Callable[[], bool] = lambda: False) -> Found:
        """Tries configurations on the kept pairs of the file.

        Raises:
            NothingToTune: no pair is left. UpstreamError: the reader fails; what it answered is remembered.
        """
        options = self._options
        self._bounded.bound(max_calls=options.max_calls, max_seconds=options.max_seconds)
        if not self._file.exists():
            raise NothingToTune("The bounds on calls or seconds ended the work before one pair was made.",
                                hint="Raise --max-calls or --max-seconds: a pair takes three calls, and a search some hundred.")
        every = generation.without_lost_passages(pairs.read(self._file), self._collection)
        kept = [pair for pair in every if pair.keep]
        if not kept:
            raise NothingToTune(_why_none(every, self._file),
                                hint="Set \"keep\": true for good ones in that file, add pairs of your own, or let a larger reader "
                                     "write them: --model NAME with another --pairs FILE.")
        contest, plan = self._planned(kept)
        on_plan(plan)
        chosen = kept[:plan.questions]
        results = trying.search(self._collection, chosen, contest, on_progress=on_progress, cancelled=cancelled)
        return self._found(contest, results, chosen, plan, every)

    def _planned(self, kept: Sequence[Pair]) -> tuple[Contest, Plan]:
        """A ladder that fits what is left of the bounds, over as many of the pairs as that allows."""
        naive = trials.naive(self._settings, window=self._reader.context_window)
        current = trials.current(self._settings)
        count = len(self._configurations)
        tokens = sum(tried.budget for tried in self._configurations) / count + _PROMPT_TOKENS + _ANSWER_TOKENS
        self._pace(naive, kept)
        most = float("inf") if self._bounded.calls_left is None else float(self._bounded.calls_left)
        each, left = self._seconds(1, tokens), self._bounded.seconds_left
        if left is not None and each:
            most = min(most, left / each)
        rungs = halving.fitting(count, len(kept), most_reads=most, beside=2)
        calls = _within(halving.reads(rungs, beside=2), self._bounded.calls_left)
        plan = Plan(what="search", calls=calls, seconds=self._seconds(calls, tokens), questions=rungs[0].questions,
                    configurations=count, rungs=rungs)
        return Contest(self._configurations, naive, current, rungs), plan

    def _pace(self, naive: trials.Configuration, kept: Sequence[Pair]) -> None:
        """Makes two of the calls that are made in any case, where nothing was timed yet: the first one loads the model."""
        if self._bounded.seconds_per_token is None:
            with suppress(Spent):
                for pair in kept[:2]:
                    trials.trial(self._collection, naive, pair)

    def _seconds(self, calls: float, tokens: float) -> float | None:
        pace = self._bounded.seconds_per_token
        return None if pace is None else pace * tokens * calls

    def _found(self, contest: Contest, results: Results, chosen: Sequence[Pair], plan: Plan, every: Sequence[Pair]) -> Found:
        options = self._options
        vectors = self._collection.encoder.encode([pair.question for pair in chosen])
        return Found(
            rows=frontier.rows(contest, results, chosen, seed=options.seed),
            recommendation=frontier.recommend(contest, results, chosen, keep=options.keep, naive_k=self._settings.naive_k,
                                              seed=options.seed),
            plan=plan, pairs=generation.counts(every), calls=self._bounded.calls, remembered=self._reader.hits,
            question_metrics=vetting.question_metrics(chosen, vectors=vectors, documents=len(self._collection.documents())),
            finished=results.finished, cancelled=results.cancelled,
            run={"reader": self._reader.name, "embedder": self._settings.embedder, "seed": options.seed, "keep": options.keep,
                 "pairs": str(self._file)})


def _within(calls: int, left: int | None) -> int:
    return calls if left is None else min(calls, left)


def _why_none(every: Sequence[Pair], path: Path) -> str:
    told = "; ".join(f"{count}: {vetting.REASONS.get(reason, reason)}" for reason, count in generation.counts(every).items()
                     if reason != "kept")
    return f"None of the {len(every)} pairs in {path} is kept ({told})."
