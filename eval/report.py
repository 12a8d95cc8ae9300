"""A summary as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_HEADER = ("system", "budget", "n", "EM %", "F1 % [95 % interval]", "answer in context %", "evidence recall %",
           "context tokens", "prompt tokens", "USD", "seconds")
_NOTE = """Means per question. A budget of "-" binds nothing. Answer in context rests on the questions that have answers
other than yes and no, evidence recall on those with known gold passages; `summary.json` has each n. A question that failed
counts as wrong."""

# Rows on their way to JSON: what they hold is fixed by `summarise`.
Table = Mapping[str, Any]


def as_markdown(summary: Table) -> str:
    """One table for each data set, the differences, and what it was made with."""
    lines = ["# Evaluation", ""]
    for dataset in summary["datasets"]:
        details = [row for row in summary["details"] if row["dataset"] == dataset["dataset"]]
        pairs = _told_once(zip(dataset["systems"], details, strict=True))
        lines += [f"## {dataset['dataset']}", "", *_table(_HEADER, [_row(*pair) for pair in pairs]), ""]
        failed = sum(detail["failed"] for _, detail in pairs)
        if failed:
            lines += [f"{failed} answers failed; `results.jsonl` has the errors.", ""]
    lines += [_NOTE, ""]
    if summary["differences"]:
        header = ("data set", "system", "against", "budget", "n", "points of F1 [95 % interval]")
        rows = [(row["dataset"], row["system"], row["against"], row["budget"], row["n"], _f1(row, sign="+"))
                for row in summary["differences"]]
        lines += ["## Differences in F1, paired by question", "", *_table(header, rows), ""]
    facts = [(name, _value(value)) for part in ("run", "plan", "machine", "versions")
             for name, value in summary[part].items()]
    return "\n".join([*lines, "## Made with", "", *_table(("what", "value"), facts), ""])


def _told_once(pairs: Iterable[tuple[Table, Table]]) -> list[tuple[Table, Table]]:
    """A system that no budget binds has the same figures for each: one row will do."""
    first: dict[tuple[str, int | None], tuple[Table, Table]] = {}
    for row, detail in pairs:
        first.setdefault((row["system"], row["budget"] if detail["bound"] else None), (row, detail))
    return list(first.values())


def _row(row: Table, detail: Table) -> list[object]:
    return [row["system"], row["budget"] if detail["bound"] else "-", row["n"], _number(row["em"], 1), _f1(row),
            _number(row["answer_in_context"], 1, times=100), _number(row["evidence_recall"], 1, times=100),
            _number(row["context_tokens"], 0), _number(row["prompt_tokens"], 0), _number(row["cost_usd"], 6),
            _number(row["seconds"], 2)]


def _f1(row: Table, *, sign: str = "") -> str:
    if row["f1"] is None:
        return "-"
    low, high = row["f1_ci"]
    return f"{row['f1']:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _value(value: object) -> object:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _number(value: float | None, digits: int, *, times: float = 1) -> str:
    return "-" if value is None else f"{times * value:.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [list(header), ["---"] * len(header), *cells]]
