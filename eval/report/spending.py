"""Where the tokens and the seconds of an answer go: means over the rows that have them, per data set, system and budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eval.report.groups import MACRO
from eval.report.records import Result, Run

TOKEN_PARTS = ("context", "rest of the prompt", "completion")
TOTAL = "total"

_Parts = Callable[[Result], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Spent:
    """Means per question over `n` rows, in the order in which they should be told; their sum is `total`."""

    group: str
    system: str
    budget: int | None
    n: int
    parts: tuple[tuple[str, float], ...]

    @property
    def total(self) -> float:
        return sum(value for _, value in self.parts)


def tokens(run: Run) -> list[Spent]:
    """Of the questions that the reader answered: context, the rest of all prompts (instructions, question), completion."""
    return _by_group(run, [row for row in run.rows if row.read and row.error is None], _tokens)


def seconds(run: Run) -> list[Spent]:
    """By stage, of the questions that were timed alone; what no stage accounts for is told as "other"."""
    rows = [row for row in run.rows if row.stages and row.figures["seconds"] is not None]
    return _by_group(run, rows, _stages)


def _tokens(row: Result) -> dict[str, float]:
    context, prompt = row.figures["context_tokens"] or 0.0, row.figures["prompt_tokens"] or 0.0
    return dict(zip(TOKEN_PARTS, (context, max(0.0, prompt - context), row.figures["completion_tokens"] or 0.0), strict=True))


def _stages(row: Result) -> dict[str, float]:
    stages = {name: value for name, value in row.stages.items() if name != TOTAL}
    return stages | {"other": max(0.0, (row.figures["seconds"] or 0.0) - sum(stages.values()))}


def _by_group(run: Run, rows: Sequence[Result], parts_of: _Parts) -> list[Spent]:
    """The macro mean first where there is more than one data set: means of the data sets' means, of those all have."""
    grouped: dict[tuple[str, str, int | None], list[Result]] = {}
    for row in rows:
        grouped.setdefault((row.dataset, row.system, row.budget), []).append(row)
    single = [_mean(*key, [parts_of(row) for row in group]) for key, group in grouped.items()]
    datasets = {row.dataset for row in run.rows}
    if len(datasets) < 2:
        return single
    pooled: dict[tuple[str, int | None], list[Spent]] = {}
    for one in single:
        pooled.setdefault((one.system, one.budget), []).append(one)
    macro = [_mean(MACRO, *key, [dict(one.parts) for one in group], n=sum(one.n for one in group))
             for key, group in pooled.items() if len(group) == len(datasets)]
    return macro + single


def _mean(group: str, system: str, budget: int | None, parts: Sequence[dict[str, float]], *, n: int | None = None) -> Spent:
    names = list(dict.fromkeys(name for one in parts for name in one))
    if "other" in names:
        names.append(names.pop(names.index("other")))
    means = tuple((name, sum(one.get(name, 0.0) for one in parts) / len(parts)) for name in names)
    return Spent(group, system, budget, len(parts) if n is None else n, means)
