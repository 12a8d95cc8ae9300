"""Trials by successive halving: every configuration gets a glance at all questions, fewer and fewer get the reader's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from eval.tune.bounds import Spent
from eval.tune.halving import Point, Rung, promoted
from eval.tune.pairs import Pair
from eval.tune.trials import Configuration, Glance, Pipeline, Trial, glance, trial
from rag.types import OnProgress, Progress, no_progress


@dataclass(frozen=True, slots=True)
class Contest:
    """Who takes part. `naive` and `current` go through every rung, whatever they score, to be compared with."""

    configurations: tuple[Configuration, ...]
    naive: Configuration
    current: Configuration
    rungs: tuple[Rung, ...]

    @property
    def fixed(self) -> tuple[Configuration, ...]:
        return tuple(dict.fromkeys((self.naive, self.current)))

    @property
    def rivals(self) -> tuple[Configuration, ...]:
        """Those that may drop out."""
        return tuple(tried for tried in self.configurations if tried not in self.fixed)


@dataclass(slots=True)
class Results:
    """Glances and trials by configuration and pair id, and `rung`: the last one that each configuration began."""

    glances: dict[Configuration, dict[str, Glance]] = field(default_factory=dict)
    trials: dict[Configuration, dict[str, Trial]] = field(default_factory=dict)
    rung: dict[Configuration, int] = field(default_factory=dict)
    finished: bool = False
    cancelled: bool = False

    @property
    def finalists(self) -> list[Configuration]:
        """Those of the last rung that began, the fixed ones among them, in order."""
        last = max(self.rung.values(), default=0)
        return sorted(tried for tried, rung in self.rung.items() if rung == last)

    def common(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs that the reader answered for every finalist, in order."""
        return [pair for pair in pairs
                if all(pair.id in self.trials.get(tried, {}) for tried in self.finalists)]


def search(pipeline: Pipeline, pairs: Sequence[Pair], contest: Contest, *, on_progress: OnProgress = no_progress,
           cancelled: Callable[[], bool] = lambda: False) -> Results:
    """Climbs the rungs. Question by question and not configuration by configuration, so that what there is when the bounds
    are spent, or when it is `cancelled`, compares all of a rung on equal questions.

    Raises:
        UpstreamError: the reader fails. What it had answered is remembered by the reader's store.
    """
    results = Results()
    active = contest.rivals
    done, total = 0, _looks(contest)
    try:
        for number, rung in enumerate(contest.rungs):
            if rung.configurations < len(contest.configurations):
                active = tuple(promoted(_points(active, results), count=min(rung.configurations, len(active))))
            taking_part = sorted({*active, *contest.fixed})
            results.rung.update(dict.fromkeys(taking_part, number))
            for pair in pairs[:rung.questions]:
                for tried in taking_part:
                    if cancelled():
                        results.cancelled = True
                        return results
                    on_progress(Progress("trials", done, total, unit="trials", note=f"round {number + 1} of {len(contest.rungs)}"))
                    done += _try(pipeline, tried, pair, results, reads=rung.reads)
    except Spent:
        return results
    on_progress(Progress("trials", total, total, unit="trials"))
    results.finished = True
    return results


def _try(pipeline: Pipeline, tried: Configuration, pair: Pair, results: Results, *, reads: bool) -> int:
    """One trial, unless it was made in an earlier rung. How many were made."""
    if reads:
        known = results.trials.setdefault(tried, {})
        if pair.id in known:
            return 0
        known[pair.id] = trial(pipeline, tried, pair)
    else:
        results.glances.setdefault(tried, {})[pair.id] = glance(pipeline, tried, pair)
    return 1


def _points(active: Sequence[Configuration], results: Results) -> dict[Configuration, Point]:
    """Where each stands: F1 against prompt tokens once it was read, answer-in-context before. Questions about which no text
    can hold the answer count as held by none."""
    def point(tried: Configuration) -> Point:
        seen: Mapping[str, Trial] = results.trials.get(tried, {})
        if seen:
            return Point(fmean(one.prompt_tokens for one in seen.values()), fmean(one.f1 for one in seen.values()))
        glances = results.glances[tried]
        return Point(fmean(one.prompt_tokens for one in glances.values()),
                     fmean(one.answer_in_context or 0.0 for one in glances.values()))

    return {tried: point(tried) for tried in active}


def _looks(contest: Contest) -> int:
    """Trials of all rungs, read or not: what progress counts up to."""
    total = before = 0
    fixed = len(contest.fixed)
    for rung in contest.rungs:
        size = min(rung.configurations, len(contest.rivals)) + fixed
        total += size * (rung.questions - (before if rung.reads else 0))
        before = rung.questions if rung.reads else before
    return total
