"""A summary as Markdown: the tables of the page, the macro mean first, beside the plots as PNG files."""

from __future__ import annotations

from collections.abc import Sequence

from eval.report import groups, numbers, tables
from eval.report.facts import facts_of, rerun_of
from eval.report.headline import headline
from eval.report.records import Table
from eval.report.tables import Cell, Sheet

_NOTE = """Means per question; 95 % intervals by the bootstrap in brackets. A budget of "-" binds nothing. `n`: questions run,
`n F1`: those of them that the reader answered and that have a right answer; answer in context rests on all that have answers
other than yes and no. A question that failed counts as wrong. `summary.json` has the n of each figure."""


def as_markdown(summary: Table, *, plots: Sequence[str] = (), against: str = "topk", chosen: str | None = None) -> str:
    """Headline, then for each group its plots and tables, then what the figures were made with.

    `plots` are paths as they should be linked; `eval.report.plots.name_of` tells which belong to which group.
    """
    lines = ["# Evaluation", "", text(groups.about(summary)), ""]
    found = headline(summary, against=against, chosen=chosen)
    if found is not None:
        lines += [*(f"- {text(sentence)}" for sentence in found.sentences), ""]
    for group in groups.groups(summary):
        lines += [f"## {text(group)}", "", *_images(plots, group), *_section(summary, group)]
    lines += [_NOTE, "", *_rest(plots, groups.groups(summary)), *_agreement(summary)]
    facts = [(name, value) for _, values in facts_of(summary, {}) for name, value in values]
    command = numbers.plain(" ".join(rerun_of(summary, {}, "DIR").split()))
    lines += ["## Made with", "", "```", command, "```", "", *table(("what", "value"), facts), ""]
    return "\n".join(lines)


def _section(summary: Table, group: str) -> list[str]:
    sheet = tables.results(summary, group)
    header = ("system", "budget", *(column.title for column in sheet.columns))
    rows = [(row.system, "-" if row.budget is None else row.budget, *map(_cell, row.cells)) for row in sheet.rows]
    lines = [*table(header, rows), ""]
    failed = sum(int(row["failed"]) for row in groups.rows(summary, group))
    if failed:
        lines += [f"{failed} answers failed; `results.jsonl` has the errors.", ""]
    frontier = tables.frontier_table(summary, group)
    if frontier.columns:
        lines += ["Frontier: area under it, and the least cost of 95 % of the best quality (- where a system never has that).", "",
                  *table(("system", *(column.title for column in frontier.columns)),
                          [(row.system, *map(_cell, row.cells)) for row in frontier.rows]), ""]
    for place, title in enumerate(("F1", "answer in context")):
        lines += _differences(tables.differences(summary, group), place, title, summary)
    return lines


def _differences(sheet: Sheet, place: int, title: str, summary: Table) -> list[str]:
    """One row for each system, one column for each budget."""
    cells = {(row.system, row.budget): row.cells[1:][place] for row in sheet.rows if len(row.cells) > 1 + place}
    if all(cell.sort is None for cell in cells.values()):
        return []
    against = ", ".join(dict.fromkeys(str(row["against"]) for row in groups.differences(summary, sheet.group)))
    budgets = list(dict.fromkeys(budget for _, budget in cells))
    rows = [(system, *(_cell(cells.get((system, budget), Cell("-"))) for budget in budgets))
            for system in dict.fromkeys(system for system, _ in cells)]
    return [f"Points of {title} minus those of {text(against)}, paired by question, by budget.", "",
            *table(("system", *budgets), rows), ""]


def _agreement(summary: Table) -> list[str]:
    told = summary.get("agreement", ())
    if not told:
        return []
    rows = [(row["dataset"], row["n"], *(numbers.number(row[name], times=100) for name in ("judge", "em", "f1")),
             *(numbers.number(row[name], 2) for name in ("kappa_em", "kappa_f1", "spearman_f1"))) for row in told]
    return ["## Does the judge agree?", "", *table(("data set", "n", "judge %", "EM %", "F1 %", "kappa with EM", "kappa with F1",
                                                      "rank correlation with F1"), rows), ""]


def _images(plots: Sequence[str], group: str) -> list[str]:
    from eval.report.plots import stem_of

    return [line for path in plots if f"/frontier-{stem_of(group)}-" in f"/{path}"
            for line in (f"![{text(group)}: quality against cost]({path})", "")]


def _rest(plots: Sequence[str], names: Sequence[str]) -> list[str]:
    known = {line for group in names for line in _images(plots, group)}
    paths = [path for path in plots if not any(f"({path})" in line for line in known)]
    return [line for path in paths for line in (f"![{path.rpartition('/')[2].removesuffix('.png')}]({path})", "")]


def _cell(cell: Cell) -> str:
    return f"{cell.text} {cell.note}".strip()


def text(value: object) -> str:
    """One line that stays in its cell; names, settings and answers are data, so no tag in them works."""
    flat = " ".join(numbers.plain(str(value)).split())
    return flat.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table. Cells are data: what is in them neither ends a cell nor is markup."""
    cells = [[text(cell) for cell in row] for row in (header, *rows)]
    return [f"| {' | '.join(row)} |" for row in [cells[0], ["---"] * len(header), *cells[1:]]]
