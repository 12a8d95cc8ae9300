"""Rows of results to one table: means over questions, intervals, and how many questions each figure rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.results import Row
from eval.statistics import bootstrap_interval, mean, paired_difference

# Differences are taken to the honest simple baseline.
BASELINE = "topk"
_DIGITS = 6


def summarise(rows: Sequence[Row], *, systems: Mapping[str, bool], budgets: Sequence[int], seed: int) -> dict[str, object]:
    """`datasets`, `details` and `differences`, in the order of rows, systems and budgets.

    `systems` maps names to whether a budget binds them; those that none binds are told once for each, with equal figures.
    `em`, `f1`, `f1_ci` and their differences are in percent, every other share from 0 to 1; tokens, money and seconds are
    means per question. A figure with nothing to rest on is None, never NaN. A question that failed counts 0 in `em` and
    `f1` and is left out of the rest.
    """
    names = list(dict.fromkeys(str(row["dataset"]) for row in rows))
    groups = {(name, system, budget): _of(rows, name, system, budget if bound else None)
              for name in names for system, bound in systems.items() for budget in budgets}
    groups = {key: group for key, group in groups.items() if group}
    return {
        "datasets": [{"dataset": name, "systems": [
            {"system": system, "budget": budget, **_figures(group, seed)}
            for (dataset, system, budget), group in groups.items() if dataset == name]} for name in names],
        "details": [{"dataset": name, "system": system, "budget": budget, "bound": systems[system], **_details(group)}
                    for (name, system, budget), group in groups.items()],
        "differences": [
            {"dataset": name, "system": system, "against": BASELINE, "budget": budget,
             **_difference(group, groups[name, BASELINE, budget], seed)}
            for (name, system, budget), group in groups.items()
            if system != BASELINE and systems[system] and (name, BASELINE, budget) in groups],
    }


def _of(rows: Sequence[Row], dataset: str, system: str, budget: int | None) -> list[Row]:
    return [row for row in rows if (row["dataset"], row["system"], row["budget"]) == (dataset, system, budget)]


def _figures(group: Sequence[Row], seed: int) -> dict[str, object]:
    interval = bootstrap_interval(_numbers(group, "f1"), seed=seed)
    return {
        "n": len(group), "em": _percent(mean(_numbers(group, "em"))), "f1": _percent(mean(_numbers(group, "f1"))),
        "f1_ci": None if interval is None else [_percent(bound) for bound in interval],
        **{name: _rounded(mean(_numbers(group, name)))
           for name in ("answer_in_context", "evidence_recall", "context_tokens", "prompt_tokens", "cost_usd", "seconds")},
    }


def _details(group: Sequence[Row]) -> dict[str, object]:
    """On how many questions each figure rests, and the figures beyond the contract's."""
    declined = [row for row in group if row["verdict"] == "abstained"]
    return {
        "failed": sum(row["error"] is not None for row in group),
        **{f"n_{name}": len(_numbers(group, name)) for name in ("f1", "answer_in_context", "evidence_recall", "yes_no")},
        **{name: _rounded(mean(_numbers(group, name)))
           for name in ("contains", "yes_no", "completion_tokens", "cached_tokens", "naive_tokens")},
        "abstained": len(declined), "abstained_rightly": sum(row["unanswerable"] is True for row in declined),
        "unanswerable": sum(row["unanswerable"] is True for row in group),
    }


def _difference(group: Sequence[Row], baseline: Sequence[Row], seed: int) -> dict[str, object]:
    """F1 of the system minus that of the baseline, over the questions that both were asked."""
    other = {row["question"]: row["f1"] for row in baseline}
    pairs = [(mine, theirs) for row in group
             if isinstance(mine := row["f1"], float) and isinstance(theirs := other.get(row["question"]), float)]
    found = paired_difference([mine for mine, _ in pairs], [theirs for _, theirs in pairs], seed=seed)
    if found is None:
        return {"n": 0, "f1": None, "f1_ci": None}
    return {"n": len(pairs), "f1": _percent(found[0]), "f1_ci": [_percent(bound) for bound in found[1]]}


def _numbers(group: Sequence[Row], name: str) -> list[float]:
    return [float(value) for row in group if isinstance(value := row[name], (int, float))]


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 4)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
