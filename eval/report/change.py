"""The comparison of two runs as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from eval.diff import Change, Compared, Difference
from eval.report import numbers
from eval.report.markdown import table, text

_NOTE = """B minus A over the questions that both have, each with its 95 % interval by the paired bootstrap; "*" where that
excludes 0. F1 and answer in context in points, money in dollars per 1,000 questions. Better and worse count questions by F1."""
_TITLES = {"f1": "F1", "answer_in_context": "answer in context", "context_tokens": "context tokens",
           "prompt_tokens": "prompt tokens", "cost_usd": "USD per 1,000", "seconds": "seconds"}
_LONGEST = 80


def as_markdown(found: Difference) -> str:
    """What changed, which questions flipped, and what differs between the runs."""
    names = [name for name in _TITLES if any(name in row.changes for row in found.rows)]
    header = ("data set", "system", "budget", "n F1", "better", "worse", *(_TITLES[name] for name in names))
    lines = ["# What changed", "", f"A is {text(found.first)}, B is {text(found.second)}.", "",
             *table(header, [_row(row, names) for row in found.rows]), "", _NOTE, ""]
    if any(found.only):
        lines += [f"Rows without a partner: {found.only[0]:,} of A, {found.only[1]:,} of B.", ""]
    if found.flips:
        rows = [(one.dataset, one.question, numbers.number(one.change, 0, sign="+"), _short(one.before), _short(one.after))
                for one in found.flips]
        lines += ["## Largest changes of single questions", "", "Mean change of F1 over all that was compared.", "",
                  *table(("data set", "question", "F1", "answer in A", "answer in B"), rows), ""]
    lines += ["## Made with", ""]
    if not found.made:
        return "\n".join([*lines, "Nothing that was recorded differs.", ""])
    return "\n".join([*lines, *table(("what", "A", "B"), found.made), ""])


def _row(row: Compared, names: Sequence[str]) -> list[object]:
    f1 = row.changes.get("f1")
    return [row.dataset, row.system, row.budget, f1.n if f1 else 0, row.better, row.worse,
            *(_change(name, row.changes.get(name)) for name in names)]


def _change(name: str, one: Change | None) -> str:
    if one is None:
        return numbers.NONE
    digits = {"f1": 1, "answer_in_context": 1, "context_tokens": 1, "prompt_tokens": 1, "cost_usd": 4, "seconds": 3}[name]
    clear = "*" if one.ci[0] > 0 or one.ci[1] < 0 else ""
    return (f"{numbers.number(one.before, digits)} -> {numbers.number(one.after, digits)}: "
            f"{numbers.number(one.change, digits, sign='+')} {numbers.interval(one.ci, digits, sign='+')}{clear}")


def _short(text: str | None) -> str:
    flat = " ".join((text or "").split())
    return (flat if len(flat) <= _LONGEST else f"{flat[:_LONGEST - 1]}…") or numbers.NONE
