"""Rows of results to one table: means over questions, intervals, and how many questions each figure rests on.

Every interval is at 95 % by the percentile bootstrap; those of macro means resample within each data set, and those of
differences resample pairs. `em`, `f1`, their intervals and their differences are in percent, every other share from 0 to 1;
tokens, money and seconds are means per question (`eval.figures` says which rows each rests on). A figure with nothing to
rest on is None, never NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from eval.agreement import agreements
from eval.figures import FIGURES, Columns, Estimate, Group, counts, estimates, group, rounded, stages, told
from eval.frontier import Point, curves
from eval.results import Row
from eval.statistics import mean

# Differences are taken to the honest simple baseline.
BASELINE = "topk"
MACRO = "macro mean"
# The figures of `datasets`: a published contract.
_PUBLISHED = ("em", "answer_in_context", "evidence_recall", "context_tokens", "prompt_tokens", "cost_usd", "seconds")
_QUALITIES = ("f1", "answer_in_context")
_COSTS = ("context_tokens", "prompt_tokens", "cost_usd", "seconds")
# Of the counts, those that are shares: averaged over data sets, where the others are summed.
_AVERAGED = frozenset({"abstention_precision", "abstention_recall", "cited"})

# Data set or MACRO, system, and budget; None for systems that no budget binds.
Place = tuple[str, str, int | None]
Estimates = Mapping[str, Estimate]
Table = list[dict[str, object]]


def summarise(rows: Sequence[Row], *, systems: Mapping[str, bool], budgets: Sequence[int], seed: int) -> dict[str, object]:
    """`datasets`, `details`, `macro`, `differences`, `frontiers` and `types`; `agreement` where a judge graded answers.

    `systems` maps names to whether a budget binds them; those that none binds are told under each, with equal figures.
    Rows may come in any order: they give the same figures in each. Data sets are told in the order of their first rows,
    systems and budgets in the order given, and rows of others are left out.
    """
    keys = [(system, budget) for system, bound in systems.items() for budget in (budgets if bound else (None,))]
    asked = frozenset(keys)
    rows = [row for row in rows if (row["system"], row["budget"]) in asked]
    names = list(dict.fromkeys(str(row["dataset"]) for row in rows))
    made = _grouped(rows, ("dataset", "system", "budget"))
    groups = {place: made[place] for name in names for key in keys if (place := (name, *key)) in made}
    found = estimates({place: [one.columns] for place, one in groups.items()}, names=FIGURES, seed=seed)
    # In an order of their own: a data set's place decides what is drawn for it.
    strata = sorted(names) if len(names) > 1 else []
    # Only what every data set has: means over different data sets cannot be compared.
    pooled = {(MACRO, *key): [groups[name, *key] for name in strata] for key in keys
              if strata and all((name, *key) in groups for name in strata)}
    macro = estimates({place: [one.columns for one in some] for place, some in pooled.items()}, names=FIGURES, seed=seed)
    judged = agreements(rows)
    return {
        "datasets": [{"dataset": name, "systems": [
            {"system": place[1], "budget": budget, **_published(groups[place], found[place])}
            for place, budget in _listed(groups, systems, budgets) if place[0] == name]} for name in names],
        "details": [{"dataset": place[0], **_details(place, budget, [groups[place]], found[place], systems)}
                    for place, budget in _listed(groups, systems, budgets)],
        "macro": [_details(place, budget, pooled[place], macro[place], systems)
                  for place, budget in _listed(pooled, systems, budgets)],
        "differences": _differences(groups, strata, systems, seed),
        "frontiers": [row for name in names for row in _frontiers(name, found, systems)] + _frontiers(MACRO, macro, systems),
        "types": _types(rows, names, systems, budgets, seed),
        **({"agreement": judged} if judged else {}),
    }


def _grouped(rows: Iterable[Row], by: Sequence[str]) -> dict[tuple[object, ...], Group]:
    parts: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        parts.setdefault(tuple(row[name] for name in by), []).append(row)
    return {key: group(some) for key, some in parts.items()}


def _listed(placed: Iterable[Place], systems: Mapping[str, bool],
            budgets: Sequence[int]) -> Iterator[tuple[Place, int | None]]:
    """Places with the budgets under which a table tells them."""
    for place in placed:
        for budget in ((place[2],) if systems[place[1]] else budgets):
            yield place, budget


def _published(one: Group, found: Estimates) -> dict[str, object]:
    figures = {name: rounded(name, found[name].mean) for name in _PUBLISHED}
    return {"n": len(one.rows), "em": figures["em"], **told("f1", found["f1"]), **figures}


def _details(place: Place, budget: int | None, parts: Sequence[Group], found: Estimates,
             systems: Mapping[str, bool]) -> dict[str, object]:
    """Every figure with its interval and n. Of several data sets: counts are sums, shares and seconds means of theirs."""
    counted = [counts(one) for one in parts]
    timed = [stages(one) for one in parts if one.columns["seconds"]]
    return {
        "system": place[1], "budget": budget, "bound": systems[place[1]], "datasets": len(parts),
        "n": sum(len(one.rows) for one in parts),
        **{name: _pooled(name, [each[name] for each in counted]) for name in counted[0]},
        **{key: value for name in FIGURES
           for key, value in {f"n_{name}": found[name].n, **told(name, found[name])}.items()},
        "stages": {name: rounded("seconds", mean([each.get(name, 0.0) for each in timed]))
                   for name in dict.fromkeys(name for each in timed for name in each)},
    }


def _pooled(name: str, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return rounded(name, mean(known)) if name in _AVERAGED else sum(known)


def _differences(groups: Mapping[Place, Group], strata: Sequence[str], systems: Mapping[str, bool], seed: int) -> Table:
    """Of every bounded system to the baseline at the same budget, over the questions that both have a value for."""
    pairs: dict[Place, Columns] = {
        place: {name: _paired(one, groups[other], name) for name in _QUALITIES} for place, one in groups.items()
        if place[1] != BASELINE and systems[place[1]] and (other := (place[0], BASELINE, place[2])) in groups}
    keys = [key for key in dict.fromkeys(place[1:] for place in pairs) if strata and all((name, *key) in pairs for name in strata)]
    found = estimates({place: [columns] for place, columns in pairs.items()}, names=_QUALITIES, seed=seed)
    found |= estimates({(MACRO, *key): [pairs[name, *key] for name in strata] for key in keys},
                       names=_QUALITIES, seed=seed)
    return [{"dataset": dataset, "system": system, "against": BASELINE, "budget": budget, "n": some["f1"].n,
             **told("f1", some["f1"]), "n_answer_in_context": some["answer_in_context"].n,
             **told("answer_in_context", some["answer_in_context"])}
            for (dataset, system, budget), some in found.items()]


def _paired(mine: Group, baseline: Group, name: str) -> list[float]:
    theirs = baseline.by_question(name)
    return [value - theirs[question] for question, value in mine.by_question(name).items() if question in theirs]


def _frontiers(dataset: str, found: Mapping[Place, Estimates], systems: Mapping[str, bool]) -> Table:
    """One for each cost and quality, where anything cost anything."""
    told_here = {place: some for place, some in found.items() if place[0] == dataset}
    tables: Table = []
    for x in _COSTS:
        for y in _QUALITIES:
            points: dict[str, list[Point]] = {system: [] for system in systems}
            for (_, system, budget), some in told_here.items():
                points[system] += _point(budget, some[x], some[y], x=x, y=y)
            if any(point.x > 0 for system, bound in systems.items() if bound for point in points[system]):
                tables.append({"dataset": dataset, "x": x, "y": y,
                               "systems": [curve.to_dict() for curve in curves(points, bound=systems)]})
    return tables


def _point(budget: int | None, cost: Estimate, quality: Estimate, *, x: str, y: str) -> list[Point]:
    """In the units of the summary; none where either is not known."""
    along, up = rounded(x, cost.mean), rounded(y, quality.mean)
    if along is None or up is None or quality.ci is None:
        return []
    low, high = (rounded(y, bound) or 0.0 for bound in quality.ci)
    return [Point(budget, along, up, (low, high), quality.n)]


def _types(rows: Sequence[Row], names: Sequence[str], systems: Mapping[str, bool], budgets: Sequence[int], seed: int) -> Table:
    """In the order of data sets and types, then systems and budgets."""
    made = _grouped(rows, ("dataset", "type", "system", "budget"))
    kinds = sorted({(str(row["dataset"]), str(row["type"])) for row in rows}, key=lambda kind: (names.index(kind[0]), kind[1]))
    found = estimates({key: [one.columns] for key, one in made.items()}, names=_QUALITIES, seed=seed)
    return [{"dataset": name, "type": kind, "system": system, "budget": budget, "n": len(made[key].rows),
             **told("f1", found[key]["f1"]),
             "answer_in_context": rounded("answer_in_context", found[key]["answer_in_context"].mean)}
            for name, kind in kinds for system, bound in systems.items() for budget in budgets
            if (key := (name, kind, system, budget if bound else None)) in made]
