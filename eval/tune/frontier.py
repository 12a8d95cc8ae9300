"""What the trials found: quality against tokens for every configuration, which are dominated, and which one to use.

Rule: of the configurations that were read on all the questions, the one with the fewest prompt tokens whose mean F1 is at
least `keep` times that of the best. It is a point estimate; beside it stands the paired interval of its difference to the
best, which says whether so many questions can tell. The best of many is flattered by chance, so the rule errs towards
spending more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

import numpy as np

from eval.statistics import Interval, bootstrap_interval, mean, paired_difference, resampled_means
from eval.tune.halving import Point, non_dominated
from eval.tune.pairs import Pair
from eval.tune.search import Contest, Results
from eval.tune.trials import Configuration

# Under this, a bootstrap interval itself is not to be trusted.
FEWEST = 30
_MOST_NEEDED = 100_000


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration. `f1` and `f1_ci` in percent over the `n` questions that were read, None before any was; tokens and
    money are means per question. `role`: naive, current or empty. `final`: among those compared in the end."""

    configuration: Configuration
    role: str
    n: int
    f1: float | None
    f1_ci: tuple[float, float] | None
    answer_in_context: float | None
    n_answer_in_context: int
    context_tokens: float
    prompt_tokens: float
    completion_tokens: float | None
    cost_usd: float | None
    final: bool
    dominated: bool

    def to_dict(self) -> dict[str, object]:
        row = asdict(self)
        return {**row.pop("configuration"), **row}


@dataclass(frozen=True, slots=True)
class Compared:
    """One configuration against another on the same questions. Shares as fractions, the difference in points of F1."""

    quality: float | None
    quality_ci: Interval | None
    tokens: float | None
    f1_difference: float
    f1_difference_ci: Interval


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`chosen` by the rule, and how it compares with the `best` and with the `naive` fill on the same `n` questions."""

    chosen: Configuration
    best: Configuration
    n: int
    keep: float
    naive_k: int
    against_best: Compared
    against_naive: Compared
    warnings: tuple[str, ...]

    @property
    def sentence(self) -> str:
        naive = self.against_naive
        beside = (f"{_share(naive.quality, naive.quality_ci)} of the quality of naive top-{self.naive_k} at "
                  f"{_share(naive.tokens, None)} of its tokens")
        if self.chosen == self.best:
            return f"{str(self.chosen).capitalize()} has the best quality of all that was tried, {beside} (n = {self.n})."
        best = self.against_best
        return (f"{str(self.chosen).capitalize()} keeps {_share(best.quality, best.quality_ci)} of the quality of {self.best} at "
                f"{_share(best.tokens, None)} of its tokens, and {beside} (n = {self.n}).")

    def to_dict(self) -> dict[str, object]:
        return {"settings": self.chosen.settings, "best": self.best.settings, "n": self.n, "keep": self.keep,
                "against_best": asdict(self.against_best), "against_naive": asdict(self.against_naive),
                "sentence": self.sentence, "warnings": list(self.warnings)}


def rows(contest: Contest, results: Results, pairs: Sequence[Pair], *, seed: int) -> tuple[Row, ...]:
    """Every configuration that was tried, finalists first, by prompt tokens. Finalists are dominated by finalists only."""
    common = [pair.id for pair in results.common(pairs)]
    finalists = [tried for tried in results.finalists if common]
    points = {tried: _point(results, tried, common) for tried in finalists}
    front = set(non_dominated(points))
    found = []
    for tried, glances in results.glances.items():
        final = tried in finalists
        read = [results.trials.get(tried, {})[key] for key in (common if final else results.trials.get(tried, {}))]
        scores = [one.f1 for one in read]
        interval = bootstrap_interval(scores, seed=seed)
        told = [one.answer_in_context for one in glances.values() if one.answer_in_context is not None]
        quality = mean(scores)
        found.append(Row(
            configuration=tried, role=_role(contest, tried), n=len(read), f1=None if quality is None else round(100 * quality, 4),
            f1_ci=None if interval is None else (round(100 * interval[0], 4), round(100 * interval[1], 4)),
            answer_in_context=mean(told), n_answer_in_context=len(told),
            context_tokens=fmean(one.context_tokens for one in glances.values()),
            prompt_tokens=points[tried].cost if final else fmean(one.prompt_tokens for one in glances.values()),
            completion_tokens=mean([one.completion_tokens for one in read]), cost_usd=mean([one.cost_usd for one in read]),
            final=final, dominated=final and tried not in front))
    return tuple(sorted(found, key=lambda row: (not row.final, row.prompt_tokens, row.configuration)))


def recommend(contest: Contest, results: Results, pairs: Sequence[Pair], *, keep: float, naive_k: int,
              seed: int) -> Recommendation | None:
    """By the rule above; None where the reader answered no question for all finalists, or none of them rightly."""
    common = [pair.id for pair in results.common(pairs)]
    rivals = [tried for tried in results.finalists if tried in contest.configurations]
    if not common or not rivals:
        return None
    points = {tried: _point(results, tried, common) for tried in rivals}
    best = max(rivals, key=lambda tried: (points[tried].quality, -points[tried].cost))
    if points[best].quality == 0:
        return None
    least = keep * points[best].quality
    enough = [tried for tried in rivals if points[tried].quality >= least - 1e-12]
    chosen = min(enough, key=lambda tried: (points[tried].cost, -points[tried].quality, tried))
    against = {other: _compared(results, chosen, other, common, seed=seed) for other in (best, contest.naive)}
    return Recommendation(
        chosen=chosen, best=best, n=len(common), keep=keep, naive_k=naive_k, against_best=against[best],
        against_naive=against[contest.naive],
        warnings=tuple(_warnings(against[best], best=points[best].quality, n=len(common), keep=keep, results=results)))


def _compared(results: Results, one: Configuration, other: Configuration, common: Sequence[str], *, seed: int) -> Compared:
    mine, theirs = ([results.trials[tried][key].f1 for key in common] for tried in (one, other))
    spent, would = _point(results, one, common).cost, _point(results, other, common).cost
    difference = paired_difference(mine, theirs, seed=seed)
    assert difference is not None, "there are questions in common"
    value, (low, high) = difference
    return Compared(
        quality=fmean(mine) / fmean(theirs) if any(theirs) else None, quality_ci=ratio_interval(mine, theirs, seed=seed),
        tokens=spent / would if would else None, f1_difference=round(100 * value, 4),
        f1_difference_ci=(round(100 * low, 4), round(100 * high, 4)))


def ratio_interval(first: Sequence[float], second: Sequence[float], *, seed: int, level: float = 0.95) -> Interval | None:
    """Percentile bootstrap of mean(first) / mean(second), pairs drawn together. None where a mean of second may be 0."""
    if not len(first):
        return None
    above, below = resampled_means(np.asarray([first, second], dtype=np.float64).T, seed=seed).T
    if (below == 0).mean() > (1 - level) / 2:
        return None
    ratios = above[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _point(results: Results, tried: Configuration, common: Sequence[str]) -> Point:
    read = [results.trials[tried][key] for key in common]
    return Point(fmean(one.prompt_tokens for one in read), fmean(one.f1 for one in read))


def _role(contest: Contest, tried: Configuration) -> str:
    return "naive" if tried == contest.naive else "current" if tried == contest.current else ""


def _warnings(against: Compared, *, best: float, n: int, keep: float, results: Results) -> list[str]:
    told = []
    if n < FEWEST:
        told.append(f"{n} questions are too few to trust any of these figures: use --questions {FEWEST} or more, or add your own.")
    loss, allowed = -against.f1_difference_ci[0], 100 * (1 - keep) * best
    if loss > allowed + 1e-9:
        # Intervals shrink with the root of n: how many questions put the lower end at what is allowed.
        half, room = against.f1_difference + loss, allowed + against.f1_difference
        needed = math.ceil(n * (half / room) ** 2 / 10) * 10 if room > 0 else _MOST_NEEDED
        more = f" That would take about {needed:,} questions." if n < needed < _MOST_NEEDED else ""
        told.append(f"On {n} questions a loss of up to {loss:.1f} points of F1 (best: {100 * best:.1f}) cannot be ruled out.{more}")
    if not results.finished:
        told.append("The search ended before its last round was through: the bounds on calls or seconds were reached.")
    return told


def _share(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "an unknown share"
    between = "" if interval is None else f" [{100 * interval[0]:.0f}–{100 * interval[1]:.0f}]"
    return f"{100 * value:.0f} %{between}"
