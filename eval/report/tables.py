"""The tables of a report, once for the page and for Markdown: cells with a text, a lighter note and a value to sort by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from eval.report import groups, numbers
from eval.report.records import Table


@dataclass(frozen=True, slots=True)
class Column:
    """`hint` says what the figures of the column are."""

    title: str
    hint: str = ""
    align: Literal["left", "right"] = "right"


@dataclass(frozen=True, slots=True)
class Cell:
    """`sort` is what a table sorts by: None for cells without a figure, which come last. `whisker`: (value, low, high)."""

    text: str
    note: str = ""
    sort: float | str | None = None
    whisker: tuple[float, float, float] | None = None
    parts: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """`budget` is None for what no budget binds."""

    system: str
    budget: int | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table about one group. The first two columns are system and budget, `columns` the others. `scale`: the ends of all
    whiskers or the longest bar."""

    group: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    scale: tuple[float, float] = (0.0, 1.0)
    legend: tuple[str, ...] = ()


def results(summary: Table, group: str) -> Sheet:
    """The main table: quality, tokens, money, seconds. Columns without any figure are left out, here as everywhere."""
    return _told(summary, group, _RESULTS)


def further(summary: Table, group: str) -> Sheet:
    """Further metrics of answers and contexts, how the reader declined, and whether what it cited holds."""
    return _told(summary, group, _FURTHER)


def _told(summary: Table, group: str, columns: Sequence[tuple[Column, Callable[[Table], Cell]]]) -> Sheet:
    return _without_empty(Sheet(group, tuple(column for column, _ in columns), tuple(
        Row(row["system"], row["budget"], tuple(make(row) for _, make in columns)) for row in groups.rows(summary, group))))


def differences(summary: Table, group: str) -> Sheet:
    """Against the baseline; a whisker each, all on one scale that holds 0."""
    told = groups.differences(summary, group)
    rows = tuple(Row(row["system"], row["budget"], (
        _count(row["n"]), _change(row, "f1", 1.0), _change(row, "answer_in_context", 100.0))) for row in told)
    ends = [end for row in rows for cell in row.cells if cell.whisker for end in cell.whisker]
    against = ", ".join(dict.fromkeys(str(row["against"]) for row in told))
    columns = (Column("n", "Questions that both were asked and the reader answered"),
               Column("Δ F1", f"Points of F1 minus those of {against}, with its 95 % interval", "left"),
               Column("Δ answer in context", f"Percentage points minus those of {against}, over all questions", "left"))
    return _without_empty(Sheet(group, columns, rows, scale=(min([0.0, *ends]), max([0.0, *ends]))))


def frontier_table(summary: Table, group: str) -> Sheet:
    """Area under the frontier over context tokens, and tokens for 95 % of the best, for systems that a budget binds."""
    found = {(one.x, one.y): one for one in groups.frontiers(summary) if one.group == group}
    names = [name for name in groups.systems(summary) if name in groups.bound(summary)]
    columns: list[Column] = []
    makers: list[Callable[[str], Cell]] = []
    for (x, y), front in found.items():
        if x not in _COSTS:
            continue
        title, what = groups.Y_AXES[y][0], _COSTS[x]
        series = {one.system: one for one in front.series}
        if x == "context_tokens":
            columns.append(Column(f"area: {title}", f"Mean {title} over the logarithm of {what}, by the best budget so far"))
            makers.append(partial(_area, series))
        columns.append(Column(f"{what} for 95 % of best {title.removesuffix(' %')}",
                              "Least at which the system reaches 95 % of the best of any; - where it never does"))
        makers.append(partial(_least, series, digits=0 if x == "context_tokens" else None))
    return Sheet(group, tuple(columns), tuple(Row(name, None, tuple(make(name) for make in makers)) for name in names))


def types(summary: Table, group: str) -> Sheet:
    """F1 and answer in context by type of question; empty where a data set has one type only."""
    told = [row for row in summary.get("types", ()) if row["dataset"] == group]
    names = list(dict.fromkeys(str(row["type"]) for row in told))
    if len(names) < 2:
        return Sheet(group, (), ())
    bound = groups.bound(summary)
    cells: dict[tuple[str, int | None], dict[str, Cell]] = {}
    for row in told:
        key = (str(row["system"]), row["budget"] if row["system"] in bound else None)
        cells.setdefault(key, {})[str(row["type"])] = Cell(
            numbers.number(row["f1"]), sort=row["f1"],
            note=f"{numbers.number(row['answer_in_context'], 0, times=100)} · n {_rated(row)}{row['n']:,}")
    columns = tuple(Column(numbers.plain(name), "F1 %; beside it answer in context % and n") for name in names)
    return Sheet(group, columns, tuple(
        Row(system, budget, tuple(found.get(name, _BLANK) for name in names)) for (system, budget), found in cells.items()))


# The costs of which the frontier table tells the least that is enough.
_COSTS = {"context_tokens": "context tokens", "cost_usd": "USD per 1,000", "seconds": "seconds"}
_BLANK = Cell(numbers.NONE)


def _rated(row: Table) -> str:
    """How many of the n questions F1 rests on, where the summary tells and it is not all."""
    rated = row.get("n_f1")
    return "" if rated is None or rated == row["n"] else f"{rated:,} of "


def _count(value: float | None) -> Cell:
    return Cell(numbers.number(value, 0), sort=value)


def _figure(name: str, digits: int = 1, *, times: float = 1.0, ci: str = "") -> Callable[[Table], Cell]:
    def make(row: Table) -> Cell:
        return Cell(numbers.number(row.get(name), digits, times=times), sort=row.get(name),
                    note=numbers.interval(row.get(ci), digits, times=times) if ci else "")
    return make


def _money(row: Table) -> Cell:
    value = row.get("cost_usd")
    return Cell(numbers.significant(None if value is None else 1000 * value), sort=value)


def _seconds(row: Table) -> Cell:
    n = row.get("n_seconds")
    return Cell(numbers.significant(row.get("seconds")), sort=row.get("seconds"), note=f"n {n:,}" if n else "")


def _area(series: Mapping[str, groups.Series], name: str) -> Cell:
    value = series[name].area if name in series else None
    return Cell(numbers.number(value), sort=value)


def _least(series: Mapping[str, groups.Series], name: str, *, digits: int | None) -> Cell:
    value = series[name].x_for_95 if name in series else None
    return Cell(numbers.significant(value) if digits is None else numbers.number(value, digits), sort=value)


def _change(row: Mapping[str, object], name: str, times: float) -> Cell:
    value, bounds = row.get(name), row.get(f"{name}_ci")
    if not isinstance(value, (int, float)) or not isinstance(bounds, Sequence):
        return _BLANK
    return Cell(numbers.number(value, times=times, sign="+"), note=numbers.interval(bounds, times=times, sign="+"),
                sort=value, whisker=(value * times, bounds[0] * times, bounds[1] * times))


def _without_empty(sheet: Sheet) -> Sheet:
    kept = [place for place in range(len(sheet.columns)) if any(row.cells[place].text != numbers.NONE for row in sheet.rows)]
    return Sheet(sheet.group, tuple(sheet.columns[place] for place in kept), tuple(
        Row(row.system, row.budget, tuple(row.cells[place] for place in kept)) for row in sheet.rows), sheet.scale, sheet.legend)


_RESULTS: tuple[tuple[Column, Callable[[Table], Cell]], ...] = (
    (Column("n", "Questions run"), _figure("n", 0)),
    (Column("n F1", "Questions whose answer by the reader is rated"), _figure("n_f1", 0)),
    (Column("EM %", "Exact match"), _figure("em")),
    (Column("F1 %", "Token F1 with its 95 % interval"), _figure("f1", ci="f1_ci")),
    (Column("answer in context %", "Share of contexts that hold an accepted answer, over all questions, with its 95 % interval"),
     _figure("answer_in_context", times=100, ci="answer_in_context_ci")),
    (Column("evidence recall %", "Share of the gold passages that were shown"), _figure("evidence_recall", times=100)),
    (Column("context tokens"), _figure("context_tokens", 0)),
    (Column("prompt tokens"), _figure("prompt_tokens", 0)),
    (Column("USD per 1,000", "US dollars per 1,000 questions"), _money),
    (Column("seconds", "Per question, of those timed alone"), _seconds),
)

_FURTHER: tuple[tuple[Column, Callable[[Table], Cell]], ...] = (
    (Column("ROUGE-L %", "Longest common subsequence with the best accepted answer"), _figure("rouge_l", times=100)),
    (Column("contains %", "Share of answers that contain an accepted one"), _figure("contains", times=100)),
    (Column("yes/no %", "Share of yes/no questions answered right"), _figure("yes_no", times=100)),
    (Column("judge %", "Grade by the judge"), _figure("judge", times=100)),
    (Column("evidence precision %", "Share of the shown passages that are gold"), _figure("evidence_precision", times=100)),
    (Column("near-duplicates %", "Share of shown passages that nearly repeat another"), _figure("near_duplicates", times=100)),
    (Column("declined", "Answers \"I don't know\""), _figure("abstained", 0)),
    (Column("unanswerable", "Questions put to the reader that should be declined"), _figure("unanswerable", 0)),
    (Column("declining: precision %", "Of the declined, the share that should be"), _figure("abstention_precision", times=100)),
    (Column("declining: recall %", "Of those that should be, the share that was declined"),
     _figure("abstention_recall", times=100)),
    (Column("answers that cite %", "Share of answers with a citation"), _figure("cited", times=100)),
    (Column("quote in source %", "Citations whose quote stands in the source"), _figure("citation_quote", times=100)),
    (Column("quote supports %", "Citations whose quote bears the answer"), _figure("citation_support", times=100)),
)
