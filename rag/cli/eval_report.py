"""`thriftrag eval report` and `thriftrag eval diff`: what is in run folders already, told anew. No reader is loaded."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import edge, options, terminal
from rag.errors import InputError

if TYPE_CHECKING:
    from eval.diff import Difference, Pair

REPORT_EXAMPLES = options.examples(
    "thriftrag eval report runs/eval",
    "thriftrag eval report runs/eval --system thrift --against topk --budget 128   # wins and losses of your choice",
)
DIFF_EXAMPLES = options.examples(
    "thriftrag eval diff runs/before runs/after",
    "thriftrag eval diff runs/before runs/after --systems thrift --fail-below 1    # for continuous integration",
    "thriftrag eval diff runs/a runs/b --systems thrift@128=topk@256               # two systems, two budgets",
)


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of `thriftrag eval run`.")],
    system: Annotated[str | None, typer.Option(
        "--system", metavar="NAME",
        help="Whose wins and losses to show. Default: the one with the largest area under its frontier.")] = None,
    against: Annotated[str, typer.Option("--against", metavar="NAME", help="What to set it against.")] = "topk",
    budget: Annotated[str | None, typer.Option(
        "--budget", metavar="N", help="Budget of the wins and losses. Default: the least with 95 % of the best quality.")] = None,
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Sum up results.jsonl anew and write summary.json, summary.md, report.html and plots.

    Every row in the folder counts, whichever command made it. Nothing is asked and no model is loaded.
    """
    from eval.report import remake

    made = remake(folder, wins_for=system, against=against, budget=_budget(budget))
    if as_json:
        terminal.print_json(made.to_dict())
    else:
        sys.stdout.write("".join(f"{terminal.one_line(str(path))}\n" for path in (made.html, made.markdown, *made.plots)))
    if made.missing:
        print(f"No PNG files: {made.missing}", file=sys.stderr)


def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="Folder of the run before.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Folder of the run after.")],
    systems: Annotated[str, typer.Option(
        "--systems", metavar="A=B,...",
        help="What to compare: a system of both, or one of A with one of B, at budgets of their own with @N. Default: all "
             "that both have.")] = "",
    fail_below: Annotated[str | None, typer.Option(
        "--fail-below", metavar="POINTS",
        help="Exit 1 if F1 fell by more than that beyond its interval: on the macro mean, or on the only data set.")] = None,
    seed: Annotated[str, typer.Option("--seed", metavar="S", help="Seed of the confidence intervals.")] = "13",
    as_json: options.Json = False,
    verbose: options.Verbose = False,
) -> None:
    """Compare two runs question by question: quality, tokens, money, seconds, and what they were made with.

    Differences are B minus A, over the questions that both have, with 95 % intervals.
    """
    from eval.diff import compare
    from eval.report.change import as_markdown
    from eval.report.records import load

    points = _points(fail_below)
    found = compare(load(first), load(second), pairs=_pairs(systems), seed=_whole(seed, "seed"))
    if as_json:
        terminal.print_json(found.to_dict())
    else:
        sys.stdout.write(terminal.clean(as_markdown(found)))
    if points is not None and _fell(found, points):
        raise typer.Exit(edge.FAILED)


def _fell(found: Difference, points: float) -> bool:
    """Says on stderr what fell; a check that could check nothing is an error, not a pass."""
    if not found.judged():
        raise InputError("No question has an F1 in both runs, so --fail-below has nothing to judge.", field="fail_below",
                         hint="Let the reader answer in both runs, or leave --fail-below out.")
    fallen = found.fallen(points)
    for row in fallen:
        one = row.changes["f1"]
        where = terminal.one_line(f"{row.system} at {row.budget} on {row.dataset}")
        print(f"F1 of {where} fell by {-one.change:.1f} points "
              f"[{-one.ci[1]:.1f}, {-one.ci[0]:.1f}], more than {points:g}; n = {one.n:,}.", file=sys.stderr)
    return bool(fallen)


# A variant of a system has signs of equality in its name: `eval.systems`.
_SYSTEM = r"\s*(thrift:\w+=[^=+@]+(?:\+\w+=[^=+@]+)*?|[^=@]+?)\s*(?:@\s*(\d+)\s*)?"
_PAIR = re.compile(f"{_SYSTEM}(?:={_SYSTEM})?")


def _pairs(typed: str) -> tuple[Pair, ...]:
    """"thrift", "thrift=topk" (thrift of A, topk of B), "thrift@128=topk@256" and variants as "thrift=thrift:second_look=off",
    separated by commas."""
    return tuple(_pair(part.strip()) for part in typed.split(",") if part.strip())


def _pair(typed: str) -> Pair:
    from eval.diff import Pair

    found = _PAIR.fullmatch(typed)
    if found is None:
        raise _mistyped(typed)
    first, budget, second, other = found.groups()
    if second is None:
        second, other = first, budget
    if budget is None and other is None:
        return Pair(first, second)
    if budget is None or other is None:
        raise _mistyped(typed)
    return Pair(first, second, (int(budget), int(other)))


def _mistyped(typed: str) -> InputError:
    return InputError(f"--systems {typed!r} names no pair of systems.", field="systems",
                      hint="Use for instance --systems thrift, --systems thrift=topk or --systems thrift@128=topk@256.")


def _points(typed: str | None) -> float | None:
    if typed is None:
        return None
    try:
        points = float(typed)
    except ValueError:
        points = -1.0
    if not 0 <= points <= 100:
        raise InputError(f"--fail-below {typed!r} is not a number of points from 0 to 100.", field="fail_below",
                         hint="Use for instance --fail-below 1.")
    return points


def _budget(typed: str | None) -> int | None:
    return None if typed is None else _whole(typed, "budget")


def _whole(typed: str, name: str) -> int:
    if not typed.isdecimal():
        raise InputError(f"--{name} {typed!r} is not a whole number from 0.", hint=f"Use for instance --{name} 128.", field=name)
    return int(typed)
