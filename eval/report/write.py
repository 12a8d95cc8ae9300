"""Writes the report of a run folder: report.html, summary.md and plots/*.png. No reader is needed."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from eval.machine import machine, versions
from eval.report import groups, plots, records
from eval.report.headline import default_budget, headline
from eval.report.html import Asides, as_html
from eval.report.markdown import as_markdown
from eval.report.records import Key, Run
from eval.results import write_text
from eval.summary import summarise
from rag.errors import ConfigError, InputError, StorageError

PAGE, MARKDOWN, PLOTS = "report.html", "summary.md", "plots"
_SEED = 13


@dataclass(frozen=True, slots=True)
class Paths:
    """What was written. `missing` says why there are no plots, "" where there are."""

    html: Path
    markdown: Path
    plots: tuple[Path, ...]
    missing: str = ""

    def to_dict(self) -> dict[str, object]:
        return {"html": str(self.html), "markdown": str(self.markdown), "plots": [str(path) for path in self.plots],
                "missing": self.missing or None}


def write_report(folder: Path, *, only: Collection[Key] | None = None, wins_for: str | None = None, against: str = "topk",
                 budget: int | None = None) -> Paths:
    """The report from what is in the folder; `only` are the keys of the rows that its summary covers, None for all of them.
    `wins_for` is set against `against` at `budget`, question by question; by
    default the system with the largest area under its frontier, at the least budget that gives it 95 % of the best quality.

    Without matplotlib the plots of the page are there, and the PNG files are not.

    Raises:
        InputError: the folder holds no run, a line or file of it is broken, or a system or budget is not in it.
        StorageError: the folder cannot be written.
    """
    run = records.load(folder)
    if only is not None:
        kept = [place for place, row in enumerate(run.rows) if row.key in only]
        run = replace(run, rows=tuple(run.rows[i] for i in kept), records=tuple(run.records[i] for i in kept))
    if not run.summary:
        run = _summed(run)
    return _write(run, wins_for=wins_for, against=against, budget=budget)


def remake(folder: Path, *, wins_for: str | None = None, against: str = "topk", budget: int | None = None) -> Paths:
    """As `write_report`, from results.jsonl alone: every row that is there is summed up anew, whatever run it came from."""
    run = _summed(records.load(folder))
    write_text(folder / records.SUMMARY, json.dumps(run.summary, ensure_ascii=False, allow_nan=False, indent=2) + "\n")
    return _write(run, wins_for=wins_for, against=against, budget=budget)


def _write(run: Run, *, wins_for: str | None, against: str, budget: int | None) -> Paths:
    asides = _asides(run, wins_for=wins_for, against=against, budget=budget)
    page = run.folder / PAGE
    write_text(page, as_html(run, asides=asides))
    drawn: tuple[Path, ...] = ()
    missing = ""
    try:
        drawn = plots.draw(run, run.folder / PLOTS, emphasised={asides.chosen, asides.against})
    except ConfigError as error:
        missing = str(error)
    except OSError as error:
        raise StorageError(f"{run.folder / PLOTS} cannot be written: {error.strerror or error}.",
                           hint="Check the folder and the disk.") from error
    linked = [path.relative_to(run.folder).as_posix() for path in drawn]
    write_text(run.folder / MARKDOWN, as_markdown(run.summary, plots=linked, against=asides.against, chosen=wins_for))
    return Paths(page, run.folder / MARKDOWN, drawn, missing)


def _asides(run: Run, *, wins_for: str | None, against: str, budget: int | None) -> Asides:
    names, budgets = groups.systems(run.summary), groups.budgets(run.summary)
    for name in (wins_for, against if wins_for is not None else None):
        if name is not None and name not in names:
            raise InputError(f"{run.folder} has no system {name!r}.", code="system_unknown", field="system",
                             hint=f"It has {', '.join(names)}.")
    if budget is not None and budget not in budgets:
        raise InputError(f"{run.folder} has no budget {budget}.", code="budget_unknown", field="budget",
                         hint=f"It has {', '.join(map(str, budgets))}.")
    if against not in names:
        against = names[0]
    found = headline(run.summary, against=against, chosen=wins_for)
    chosen = wins_for or (found.chosen if found else next((name for name in names if name != against), against))
    return Asides(chosen, against, budget if budget is not None else default_budget(run.summary, chosen))


def _summed(run: Run) -> Run:
    """With a summary of all rows: systems in the order of the last plan, those that it lacks after them, by name."""
    before = run.summary.get("plan") or {}
    planned = [str(name) for name in before.get("systems") or ()]
    here = {row.system: row.budget is not None for row in run.rows}
    systems = {name: here[name] for name in [*(one for one in planned if one in here), *sorted(set(here) - set(planned))]}
    bound = {row.budget for row in run.rows if row.budget is not None}
    budgets = sorted(bound) or [int(one) for one in before.get("budgets") or (0,)]
    seed = before.get("seed")
    try:
        figures = summarise(run.records, systems=systems, budgets=budgets, seed=seed if isinstance(seed, int) else _SEED)
    except KeyError as error:
        raise InputError(f"A row of {run.folder / records.RESULTS} has no field {error}.", code="run_invalid",
                         hint="It was written by another version: run `thriftrag eval run` into another folder.") from error
    plan = {**before, "systems": list(systems), "budgets": budgets}
    return replace(run, summary={
        **figures, "plan": plan, "run": run.summary.get("run") or run.record.get("run") or {},
        "machine": run.summary.get("machine") or machine(), "versions": run.summary.get("versions") or versions()})
