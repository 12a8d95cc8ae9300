"""The summary looked at by group: the macro mean first, where there is more than one data set, then each data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from eval.report import numbers
from eval.report.records import Table

MACRO = "macro mean"
# Axes in the order in which they are told, with their names and what their figures are multiplied by.
X_AXES = {"context_tokens": ("context tokens", 1.0), "prompt_tokens": ("prompt tokens", 1.0),
          "cost_usd": ("US dollars per 1,000 questions", 1000.0), "seconds": ("seconds per question", 1.0)}
Y_AXES = {"f1": ("F1 %", 1.0), "answer_in_context": ("answer in context %", 100.0)}


@dataclass(frozen=True, slots=True)
class Point:
    """One budget of one system; `x`, `y` and `ci` in the units of the axes' names."""

    budget: int | None
    x: float
    y: float
    ci: tuple[float, float] | None
    n: int
    dominated: bool


@dataclass(frozen=True, slots=True)
class Series:
    """`area` in the unit of y, `x_for_95` in that of x; None where they have no meaning."""

    system: str
    bound: bool
    points: tuple[Point, ...]
    area: float | None
    x_for_95: float | None


@dataclass(frozen=True, slots=True)
class Frontier:
    """Quality against cost for one group. Systems without any figure are left out; points are in the order of x."""

    group: str
    x: str
    y: str
    series: tuple[Series, ...]


def groups(summary: Table) -> list[str]:
    """Names of the groups, the macro mean first."""
    names = [str(one["dataset"]) for one in summary["datasets"]]
    return [MACRO, *names] if summary.get("macro") else names


def frontiers(summary: Table) -> list[Frontier]:
    """Those with a figure to draw, group by group, then by x and y in the order of the axes.

    What costs nothing has no place on a logarithmic axis: without a price there is no frontier over money.
    """
    found = {(str(one["dataset"]), str(one["x"]), str(one["y"])): one for one in summary.get("frontiers", ())}
    made = (_frontier(found[group, x, y]) for group in groups(summary) for x in X_AXES for y in Y_AXES
            if (group, x, y) in found)
    return [one for one in made if any(series.bound for series in one.series)]


def frontier(summary: Table, group: str, *, x: str = "context_tokens", y: str = "f1") -> Frontier | None:
    return next((one for one in frontiers(summary) if (one.group, one.x, one.y) == (group, x, y)), None)


def rows(summary: Table, group: str) -> Iterator[Table]:
    """Figures and details of every system and budget of a group as one; what no budget binds is told once, budget None."""
    told = set()
    for row in summary["macro"] if group == MACRO else _single(summary, group):
        budget = row["budget"] if row["bound"] else None
        if (row["system"], budget) not in told:
            told.add((row["system"], budget))
            yield {**row, "budget": budget}


def differences(summary: Table, group: str) -> list[Table]:
    return [row for row in summary.get("differences", ()) if row["dataset"] == group]


def systems(summary: Table) -> list[str]:
    """Every system, in the order of the summary."""
    return list(dict.fromkeys(str(row["system"]) for row in summary["details"]))


def bound(summary: Table) -> set[str]:
    """The systems that a budget binds."""
    return {str(row["system"]) for row in summary["details"] if row["bound"]}


def budgets(summary: Table) -> list[int]:
    return sorted({int(row["budget"]) for row in summary["details"] if row["budget"] is not None})


def asked(summary: Table) -> tuple[int, int]:
    """Over all data sets: questions, and those that the reader was asked. The most that any system has."""
    most: dict[str, tuple[int, int]] = {}
    for name in (one["dataset"] for one in summary["datasets"]):
        told = [(int(row["n"]), int(row.get("read") or 0)) for row in rows(summary, name)]
        most[name] = (max((n for n, _ in told), default=0), max((read for _, read in told), default=0))
    return sum(n for n, _ in most.values()), sum(read for _, read in most.values())


def about(summary: Table) -> str:
    """One line on what the figures rest on."""
    n, read = asked(summary)
    parts = [numbers.count(len(summary["datasets"]), "data set"), numbers.count(len(systems(summary)), "system"),
             f"budgets of {', '.join(f'{budget:,}' for budget in budgets(summary))} context tokens",
             f"n = {numbers.count(n, 'question')}"]
    reader = summary.get("run", {}).get("reader")
    who = f"the reader {reader}" if reader else "the reader"
    whole = "all of them" if read == n else f"{read:,} of them, the stated sample" if read else "none of them"
    return f"{', '.join(parts)}; {who} answered {whole}."


def _single(summary: Table, group: str) -> Iterator[Table]:
    figures = next((one["systems"] for one in summary["datasets"] if one["dataset"] == group), ())
    details = {(row["system"], row["budget"]): row for row in summary["details"] if row["dataset"] == group}
    for row in figures:
        yield {**details.get((row["system"], row["budget"]), {"bound": True}), **row}


def _frontier(told: Table) -> Frontier:
    _, times_x = X_AXES[told["x"]]
    _, times_y = Y_AXES[told["y"]]
    series = (_series(one, times_x, times_y) for one in told["systems"])
    return Frontier(str(told["dataset"]), str(told["x"]), str(told["y"]), tuple(one for one in series if one.points))


def _series(told: Table, times_x: float, times_y: float) -> Series:
    return Series(str(told["system"]), bool(told["bound"]), _points(told["points"], times_x, times_y, bound=bool(told["bound"])),
                  _times(told["area"], times_y), _times(told["x_for_95"], times_x))


def _points(told: Sequence[Table], times_x: float, times_y: float, *, bound: bool) -> tuple[Point, ...]:
    """What no budget binds is a line across the plot: its height is enough."""
    points = [Point(budget=one["budget"], x=(one["x"] or 0) * times_x, y=one["y"] * times_y, n=int(one["n"]),
                    ci=None if one["y_ci"] is None else (one["y_ci"][0] * times_y, one["y_ci"][1] * times_y),
                    dominated=bool(one["dominated"]))
              for one in told if one["y"] is not None and (not bound or (one["x"] or 0) > 0)]
    return tuple(sorted(points, key=lambda point: (point.x, point.budget or 0)))


def _times(value: float | None, times: float) -> float | None:
    return None if value is None else value * times
