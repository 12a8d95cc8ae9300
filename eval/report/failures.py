"""Questions that failed, grouped by what went wrong."""

from __future__ import annotations

from dataclasses import dataclass

from eval.report.records import Result, Run

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Failure:
    """`n` rows of one system on one data set with the same error code; a first message and some question ids."""

    dataset: str
    system: str
    code: str
    n: int
    message: str
    questions: tuple[str, ...]


def failures(run: Run) -> list[Failure]:
    """The most frequent first; equal ones in the order of the rows."""
    grouped: dict[tuple[str, str, str], list[Result]] = {}
    for row in run.rows:
        if row.error is not None:
            grouped.setdefault((row.dataset, row.system, row.error.partition(": ")[0]), []).append(row)
    told = [Failure(*key, n=len(rows), message=(rows[0].error or "").partition(": ")[2],
                    questions=tuple(dict.fromkeys(row.question for row in rows))[:_EXAMPLES]) for key, rows in grouped.items()]
    return sorted(told, key=lambda one: -one.n)
