"""What each token buys, in a few sentences that a reader can check against the tables below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.report import groups, numbers
from eval.report.groups import Frontier, Series
from eval.report.records import Table

_SHARE = 0.95


@dataclass(frozen=True, slots=True)
class Headline:
    """`best`: the bounded system with the largest area under its frontier; `chosen`: the one set against the baseline.

    `sentences` stand on their own. `figures` are the few numbers worth a large letter: (number, what it is).
    """

    group: str
    best: str
    chosen: str
    against: str
    sentences: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]


def headline(summary: Table, *, against: str, chosen: str | None = None) -> Headline | None:
    """None where no system that a budget binds has a figure. Without a reader's answers, by answer in context.

    `chosen` defaults to the best system other than `against`.
    """
    front = _foremost(summary)
    if front is None:
        return None
    ranked = sorted((one for one in front.series if one.bound), key=lambda one: -_worth(one))
    others = [one for one in ranked if one.system != against]
    named = next((one for one in ranked if one.system == chosen), others[0] if others else ranked[0])
    baseline = next((one for one in ranked if one.system == against), None)
    told = [_leader(front, ranked)]
    if baseline is not None and baseline is not named:
        told.append(_tokens(front, named, baseline))
        told += _differences(summary, front, named.system, against)
    told += _ceilings(front)
    return Headline(group=front.group, best=ranked[0].system, chosen=named.system, against=against,
                    sentences=tuple(one for one in told if one), figures=_figures(summary, front, named, baseline))


def default_budget(summary: Table, system: str) -> int | None:
    """The least budget at which the system has 95 % of the best quality, else its middle one; None where none binds it."""
    front = _foremost(summary)
    series = None if front is None else next((one for one in front.series if one.system == system and one.bound), None)
    if front is None or series is None:
        every = groups.budgets(summary)
        return every[len(every) // 2] if every and system in groups.bound(summary) else None
    enough = [point.budget for point in series.points if point.y >= _SHARE * _best(front)]
    told = sorted(point.budget for point in series.points if point.budget is not None)
    return min((budget for budget in enough if budget is not None), default=told[len(told) // 2] if told else None)


def _foremost(summary: Table) -> Frontier | None:
    for group in groups.groups(summary)[:1]:
        for y in groups.Y_AXES:
            found = groups.frontier(summary, group, y=y)
            if found is not None:
                return found
    return None


def _best(front: Frontier) -> float:
    return max(point.y for one in front.series if one.bound for point in one.points)


def _worth(series: Series) -> float:
    return max(point.y for point in series.points) if series.area is None else series.area


def _leader(front: Frontier, ranked: Sequence[Series]) -> str:
    name = groups.Y_AXES[front.y][0].removesuffix(" %")
    first = ranked[0]
    if first.area is None or len(ranked) == 1:
        return f"{first.system} reaches {name} {numbers.number(_best(front))} ({_where(front)})."
    second = ranked[1]
    return (f"{first.system} has the largest area under its frontier: a mean {name} of {numbers.number(first.area)} over the "
            f"range of tokens, before {second.system} with {numbers.number(second.area)} ({_where(front)}).")


def _tokens(front: Frontier, named: Series, baseline: Series) -> str:
    name = groups.Y_AXES[front.y][0].removesuffix(" %")
    aim = f"95 % of the best {name}"
    mine, theirs = named.x_for_95, baseline.x_for_95
    if mine is None and theirs is None:
        return f"Neither {named.system} nor {baseline.system} reaches {aim} within the budgets that were run."
    if mine is None:
        return (f"{named.system} does not reach {aim} within the budgets that were run; "
                f"{baseline.system} does with {numbers.number(theirs, 0)} context tokens.")
    if theirs is None:
        return (f"{named.system} reaches {aim} with {numbers.number(mine, 0)} context tokens; {baseline.system} does not "
                f"reach it within the budgets that were run.")
    return (f"For {aim}, {named.system} needs {numbers.number(mine, 0)} context tokens and {baseline.system} "
            f"{numbers.number(theirs, 0)}: {numbers.number(mine / theirs, 0, times=100)} % of the tokens for the same {name}.")


def _differences(summary: Table, front: Frontier, system: str, against: str) -> list[str]:
    rows = [row for row in groups.differences(summary, front.group)
            if (row["system"], row["against"]) == (system, against) and row["f1"] is not None]
    if not rows:
        return []
    told = ", ".join(f"{numbers.number(row['f1'], sign='+')} {numbers.interval(row['f1_ci'], sign='+')} at {row['budget']}"
                     for row in rows)
    clear = sum(row["f1_ci"][0] > 0 or row["f1_ci"][1] < 0 for row in rows)
    return [f"Points of F1 against {against}, paired by question: {told} tokens. "
            f"The 95 % interval excludes 0 at {clear} of {numbers.count(len(rows), 'budget')}."]


def _ceilings(front: Frontier) -> list[str]:
    free = [f"{one.system} {numbers.number(one.points[-1].y)}" for one in front.series if not one.bound]
    return [f"Not bound by a budget: {', '.join(free)}."] if free else []


def _figures(summary: Table, front: Frontier, named: Series, baseline: Series | None) -> tuple[tuple[str, str], ...]:
    quality = groups.Y_AXES[front.y][0].removesuffix(" %")
    found = []
    for one in (named, baseline):
        if one is not None and one.x_for_95 is not None:
            found.append((numbers.number(one.x_for_95, 0), f"context tokens for 95 % of the best {quality}: {one.system}"))
    if len(found) == 2 and named.x_for_95 and baseline is not None and baseline.x_for_95:
        share = numbers.number(named.x_for_95 / baseline.x_for_95, 0, times=100)
        found.append((f"{share} %", f"of the tokens of {baseline.system}, for the same {quality}"))
    budget = default_budget(summary, named.system)
    for row in groups.differences(summary, front.group):
        if (row["system"], row["budget"]) == (named.system, budget) and row["f1"] is not None:
            found.append((numbers.number(row["f1"], sign="+"),
                          f"points of F1 {numbers.interval(row['f1_ci'], sign='+')} against {row['against']} "
                          f"at {budget} tokens, n = {row['n']:,}"))
    return tuple(dict.fromkeys(found))


def _where(front: Frontier) -> str:
    return front.group if front.group == groups.MACRO else f"data set {front.group}"
