"""Two runs compared question by question: what changed from A to B, and whether chance alone could have done it.

A question counts where both runs have a value for it. Differences are B minus A, with 95 % intervals by the paired
bootstrap; over several data sets the macro mean, resampled within each (as `eval.summary` does within one run). Questions
are paired by id: where a data set has changed between the runs, what the runs were made with says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from eval.report.facts import differing
from eval.report.records import Result, Run
from eval.statistics import Interval, macro_means
from rag.errors import InputError

MACRO = "macro mean"
# What is compared, and what it is multiplied by: quality in points, tokens, dollars per 1,000 questions, seconds.
MEASURES = {"f1": 100.0, "answer_in_context": 100.0, "context_tokens": 1.0, "prompt_tokens": 1.0, "cost_usd": 1000.0,
            "seconds": 1.0}
_READ_ONLY = frozenset({"prompt_tokens", "cost_usd"})
_LARGEST = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """A system of A and a system of B; a budget only where it is named: else each is compared at equal budgets."""

    first: str
    second: str
    budgets: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        return self.first if self.first == self.second else f"{self.first} -> {self.second}"


@dataclass(frozen=True, slots=True)
class Change:
    """Means in A and in B over the same `n` questions, the change and its interval."""

    n: int
    before: float
    after: float
    change: float
    ci: Interval

    def to_dict(self) -> dict[str, object]:
        return {"n": self.n, "a": self.before, "b": self.after, "change": self.change, "ci": list(self.ci)}


@dataclass(frozen=True, slots=True)
class Flip:
    """One question whose F1 changed, in points; what was answered before and after."""

    dataset: str
    question: str
    change: float
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Compared:
    """One data set (or MACRO), pair of systems and budget. `changes` has the measures with a value on both sides; `better`,
    `worse` and `equal` count questions by F1."""

    dataset: str
    system: str
    budget: str
    changes: Mapping[str, Change]
    better: int
    worse: int
    equal: int


@dataclass(frozen=True, slots=True)
class Difference:
    """`rows`: the macro means first, then each data set. `made`: what differs in configuration and versions, as (name, value
    in A, value in B). `only`: how many rows of each run have no partner. `flips`: the largest changes, both ways."""

    first: str
    second: str
    rows: tuple[Compared, ...]
    flips: tuple[Flip, ...]
    made: tuple[tuple[str, str, str], ...]
    only: tuple[int, int]

    def fallen(self, points: float) -> list[Compared]:
        """Where F1 fell by more than `points` beyond its interval: the whole interval of the change lies below -points.

        Judged on the macro mean where a system and budget have one, so that one data set among many is no alarm.
        """
        return [row for row in self.judged() if row.changes["f1"].ci[1] < -points]

    def judged(self) -> list[Compared]:
        """The rows that `fallen` looks at; none where no question has an F1 in both runs."""
        told = [row for row in self.rows if "f1" in row.changes]
        pooled = {(row.system, row.budget) for row in told if row.dataset == MACRO}
        return [row for row in told if row.dataset == MACRO or (row.system, row.budget) not in pooled]

    def to_dict(self) -> dict[str, object]:
        return {
            "a": self.first, "b": self.second, "unpaired": {"a": self.only[0], "b": self.only[1]},
            "rows": [{"dataset": row.dataset, "system": row.system, "budget": row.budget,
                      "better": row.better, "worse": row.worse, "equal": row.equal,
                      **{name: one.to_dict() for name, one in row.changes.items()}} for row in self.rows],
            "flips": [{"dataset": one.dataset, "question": one.question, "change": one.change, "a": one.before, "b": one.after}
                      for one in self.flips],
            "made": [{"name": name, "a": before, "b": after} for name, before, after in self.made]}


def compare(first: Run, second: Run, *, pairs: Sequence[Pair] = (), seed: int = 13) -> Difference:
    """Without `pairs` every system that both runs have, at every budget that both have.

    Raises:
        InputError: the runs have no question in common, or a named system or budget is in one of them only.
    """
    chosen = pairs or [Pair(name, name) for name in dict.fromkeys(row.system for row in first.rows)
                       if any(row.system == name for row in second.rows)]
    for pair in pairs:
        _known(first, pair.first)
        _known(second, pair.second)
    matched = {(pair, place): found for pair in chosen for place, found in _matched(first, second, pair).items()}
    if not matched:
        raise InputError(f"{first.folder} and {second.folder} have no data set, system, budget and question in common.",
                         code="runs_disjoint", hint=_have(first, second))
    strata = sorted({dataset for _, (dataset, _) in matched})
    rows = _compared(matched, strata, seed)
    used = [{pair[side].key for found in matched.values() for pair in found} for side in (0, 1)]
    return Difference(str(first.folder), str(second.folder), tuple(rows), tuple(_flips(matched)), tuple(differing(first, second)),
                      (len(first.rows) - len(used[0]), len(second.rows) - len(used[1])))


Found = list[tuple[Result, Result]]
Place = tuple[str, str]


def _matched(first: Run, second: Run, pair: Pair) -> dict[Place, Found]:
    """Rows that meet, by data set and budget ("128", "128 -> 256", "-" where none binds)."""
    after: dict[Place, list[Result]] = {}
    for row in second.rows:
        if row.system == pair.second:
            after.setdefault((row.dataset, row.question), []).append(row)
    found: dict[Place, Found] = {}
    for row in first.rows:
        if row.system == pair.first:
            for other in after.get((row.dataset, row.question), ()):
                if _meet(row.budget, other.budget, pair.budgets):
                    found.setdefault((row.dataset, _budgets(row, other)), []).append((row, other))
    return found


def _meet(before: int | None, after: int | None, budgets: tuple[int, int] | None) -> bool:
    """A system that no budget binds meets the other at each of its budgets."""
    if budgets is None:
        return before == after or None in (before, after)
    return before in (budgets[0], None) and after in (budgets[1], None)


def _budgets(row: Result, other: Result) -> str:
    told = ["-" if one.budget is None else str(one.budget) for one in (row, other)]
    return told[0] if told[0] == told[1] else " -> ".join(told)


def _compared(matched: Mapping[tuple[Pair, Place], Found], strata: Sequence[str], seed: int) -> list[Compared]:
    """Macro means only over data sets that all have the measure: the same questions of each on both sides."""
    keys = dict.fromkeys((pair, budget) for pair, (_, budget) in matched)
    groups: dict[tuple[str, Pair, str], list[Found]] = {}
    for pair, budget in keys:
        parts = [matched.get((pair, (name, budget)), []) for name in strata]
        if len(strata) > 1 and all(parts):
            groups[MACRO, pair, budget] = parts
    for name in strata:
        groups |= {(name, pair, budget): [matched[pair, (name, budget)]] for pair, budget in keys
                   if (pair, (name, budget)) in matched}
    wanted = [(group, measure, valued) for group, found in groups.items() for measure in MEASURES
              if all(valued := [_values(one, measure) for one in found])]
    drawn = macro_means([[[after - before for before, after in one] for one in parts] for _, _, parts in wanted], seed=seed)
    changes: dict[tuple[str, Pair, str], dict[str, Change]] = {}
    for (group, measure, valued), estimate in zip(wanted, drawn, strict=True):
        if estimate is not None:
            changes.setdefault(group, {})[measure] = _change(valued, estimate, MEASURES[measure])
    return [Compared(name, pair.name, budget, changes.get((name, pair, budget), {}), *_outcomes(found))
            for (name, pair, budget), found in groups.items()]


def _values(found: Found, measure: str) -> list[tuple[float, float]]:
    told = []
    for pair in found:
        before, after = (_value(row, measure) for row in pair)
        if before is not None and after is not None:
            told.append((before, after))
    return told


def _value(row: Result, measure: str) -> float | None:
    """Tokens and money of a question that the reader was not asked, or that failed, are not what an answer costs."""
    return None if measure in _READ_ONLY and (not row.read or row.error is not None) else row.figures[measure]


def _change(parts: Sequence[Sequence[tuple[float, float]]], estimate: tuple[float, Interval], times: float) -> Change:
    before, after = (sum(sum(pair[side] for pair in part) / len(part) for part in parts) / len(parts) for side in (0, 1))
    change, (low, high) = estimate
    return Change(sum(map(len, parts)), times * before, times * after, times * change, (times * low, times * high))


def _outcomes(parts: Iterable[Found]) -> tuple[int, int, int]:
    told = Counter((after > before) - (after < before) for found in parts for before, after in _values(found, "f1"))
    return told[1], told[-1], told[0]


def _flips(matched: Mapping[tuple[Pair, Place], Found]) -> list[Flip]:
    """The questions whose mean F1 over everything compared changed most: up first, then down; equal ones by data set and id."""
    told: dict[Place, list[tuple[Result, Result]]] = {}
    for found in matched.values():
        for pair in found:
            if pair[0].figures["f1"] is not None and pair[1].figures["f1"] is not None:
                told.setdefault((pair[0].dataset, pair[0].question), []).append(pair)
    flips = [_flip(place, found) for place, found in told.items()]
    up = sorted((one for one in flips if one.change > 0), key=lambda one: (-one.change, one.dataset, one.question))
    down = sorted((one for one in flips if one.change < 0), key=lambda one: (one.change, one.dataset, one.question))
    return [*up[:_LARGEST], *down[:_LARGEST]]


def _flip(place: Place, found: Found) -> Flip:
    def by(pair: tuple[Result, Result]) -> float:
        return (pair[1].figures["f1"] or 0.0) - (pair[0].figures["f1"] or 0.0)

    mean = sum(map(by, found)) / len(found)
    # Of several systems and budgets, the answers where the change is largest in the direction of the mean.
    before, after = max(found, key=lambda pair: by(pair) if mean > 0 else -by(pair))
    return Flip(*place, round(100 * mean, 4), before.answer, after.answer)


def _known(run: Run, name: str) -> None:
    names = dict.fromkeys(row.system for row in run.rows)
    if name not in names:
        raise InputError(f"{run.folder} has no system {name!r}.", code="system_unknown", field="systems",
                         hint=f"It has {', '.join(names)}.")


def _have(first: Run, second: Run) -> str:
    told = [f"{run.folder} has {', '.join(dict.fromkeys(row.dataset for row in run.rows))} with "
            f"{', '.join(dict.fromkeys(row.system for row in run.rows))} at "
            f"{', '.join(map(str, sorted({row.budget for row in run.rows if row.budget is not None}))) or 'no budget'}"
            for run in (first, second)]
    return f"{'; '.join(told)}. Pair systems of different names with --systems A=B."
