"""What a run was made with, and the command that makes it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from eval.report.records import Run, Table

_FLAGS = (("systems", "--systems"), ("budgets", "--budgets"), ("limit", "--limit"), ("sample", "--sample"), ("timed", "--timed"),
          ("seed", "--seed"))
_PARTS = ("plan", "run", "machine", "versions")


def facts(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    return facts_of(run.summary, run.record)


def rerun(run: Run) -> str:
    return rerun_of(run.summary, run.record, str(run.folder))


def facts_of(summary: Table, record: Table) -> list[tuple[str, list[tuple[str, str]]]]:
    """Names and values by part; the digests of the data sets tell whether two runs had the same questions and documents."""
    parts = {name: _part(summary, record, name) for name in _PARTS}
    parts["data sets, by digest"] = record.get("datasets") or {}
    return [(name, [(key, _text(value)) for key, value in values.items()]) for name, values in parts.items() if values]


def differing(first: Run, second: Run) -> list[tuple[str, str, str]]:
    """(name, value in the first run, value in the second) of every recorded fact that differs; "-" where one does not record it.

    Data sets count where both runs have them.
    """
    told = []
    for part in _PARTS:
        before, after = (_part(run.summary, run.record, part) for run in (first, second))
        told += [(f"{part}: {name}", _text(before.get(name)), _text(after.get(name))) for name in dict.fromkeys([*before, *after])
                 if before.get(name) != after.get(name)]
    old, new = (run.record.get("datasets") or {} for run in (first, second))
    return told + [(f"data set {name}: digest", _text(old[name]), _text(new[name])) for name in old
                   if name in new and old[name] != new[name]]


def rerun_of(summary: Table, record: Table, out: str) -> str:
    """As the run recorded it (`plan.command`); put together from the plan where it did not, with the folders left open."""
    plan = summary.get("plan") or {}
    names = list(record.get("datasets") or [one["dataset"] for one in summary.get("datasets", ())])
    recorded = plan.get("command")
    if isinstance(recorded, str) and recorded:
        return recorded
    words = ["thriftrag", "eval", "run", *map(str, plan.get("folders") or [f"PATH/{name}" for name in names])]
    for name, flag in _FLAGS:
        value = plan.get(name)
        if value is not None:
            words += [flag, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    words += ["--answerable"] if plan.get("answerable") else []
    return shlex.join([*words, "--out", str(plan.get("out") or out)])


def _part(summary: Table, record: Table, name: str) -> Table:
    found = summary.get(name) or {}
    return {**(record.get("run") or {}), **found} if name == "run" else found


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return str(value)
