"""What `thriftrag tune` is about to do, did and found, in words and a table. Answers for the user go to stdout, the rest to
stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rag.cli import edge, terminal
from rag.cli.words import duration, money, plural

if TYPE_CHECKING:
    from rich.table import Table

    from eval.tune.frontier import Row
    from eval.tune.pairs import Pair
    from eval.tune.trials import Configuration
    from eval.tune.tuning import Found, Plan


def plan(value: Plan) -> None:
    """Before the work: what will be done, and how much of it."""
    time = "time unknown: no call was timed yet" if value.seconds is None else f"about {duration(value.seconds)}"
    most = f"at most {plural(value.calls, 'reader call')}, {time}"
    if value.what == "pairs":
        told = f"Making {plural(value.questions, 'more pair')}: {most}."
    else:
        rounds = [f"{rung.configurations} on {plural(rung.questions, 'question')}" for rung in value.rungs if rung.reads]
        told = (f"Trying {plural(value.configurations, 'configuration')} on {plural(value.questions, 'question')}: all by whether "
                f"the context holds the answer; with the reader {', then '.join(rounds)}. {most[0].upper()}{most[1:]}.")
    print(told, file=sys.stderr, flush=True)


def counted(pairs: Sequence[Pair], file: Path) -> None:
    from eval.tune.generation import counts
    from eval.tune.vetting import REASONS

    told = counts(pairs)
    kept = told.pop("kept")
    print(f"{kept} of {plural(len(pairs), 'pair')} kept; they are in {terminal.one_line(str(file))}", file=sys.stderr)
    for reason, count in told.items():
        print(f"  {count} dropped: {terminal.one_line(REASONS.get(reason, reason))}", file=sys.stderr)


def pairs_made(file: Path, *, as_json: bool) -> None:
    from eval.tune.generation import counts
    from eval.tune.pairs import read

    told = counts(read(file))
    if as_json:
        terminal.print_json({"file": str(file), "pairs": told})
    else:
        print(f"{plural(told['kept'], 'pair')} in {terminal.one_line(str(file))}. Look at them, set \"keep\" to false for bad "
              "ones, then run tune again.")
    if not told["kept"]:
        raise typer.Exit(edge.FAILED)


def found(value: Found, applied: Path | None, collection: str) -> None:
    chosen = None if value.recommendation is None else value.recommendation.chosen
    final = [row for row in value.rows if row.final]
    if final:
        terminal.console(sys.stdout).print(_table(final, chosen))
        print("→ recommended   • on the frontier   the others are dominated: something is as good for no more tokens")
    dropped = len(value.rows) - len(final)
    if dropped:
        print(f"{plural(dropped, 'configuration')} dropped out earlier; --json has them all.")
    print()
    if value.recommendation is None:
        print("No settings can be recommended: the reader answered no question of all those compared, or none of them rightly. "
              "Raise --max-calls or --max-seconds, look at the pairs, or name another reader with --model.")
        return
    print(value.recommendation.sentence)
    against = value.recommendation.against_best
    low, high = against.f1_difference_ci
    if chosen != value.recommendation.best:
        print(f"Difference to the best, question by question: {against.f1_difference:+.1f} points of F1 [{low:+.1f}, {high:+.1f}].")
    for warning in value.recommendation.warnings:
        print(f"Careful: {warning}")
    print(f"Reader calls: {value.calls:,} made, {value.remembered:,} remembered.", file=sys.stderr)
    if applied is not None:
        print(f"Written to {terminal.one_line(str(applied))}; `thriftrag ask -c {collection}` uses it from now on.")
    else:
        print("Next: the same command with --apply, to use these settings from now on.")


def _table(rows: Sequence[Row], chosen: Configuration | None) -> Table:
    from rag.cli import tables

    table = tables.listing(("", "left"), ("configuration", "left"), ("prompt tokens", "right"), ("context", "right"),
                           ("F1 [95 % interval]", "right"), ("answer in context", "right"), ("cost", "right"), ("n", "right"))
    for row in rows:
        mark = "→" if row.configuration == chosen else "" if row.dominated else "•"
        quality = "" if row.f1 is None or row.f1_ci is None else f"{row.f1:.1f} [{row.f1_ci[0]:.1f}, {row.f1_ci[1]:.1f}]"
        held = "" if row.answer_in_context is None else f"{row.answer_in_context:.0%}"
        cost = "" if row.cost_usd is None else money(row.cost_usd)
        name = f"naive top-{row.configuration.candidates}" if row.role == "naive" else str(row.configuration)
        table.add_row(mark, f"{name}, current" if row.role == "current" else name, f"{row.prompt_tokens:,.0f}",
                      f"{row.context_tokens:,.0f}", quality, held, cost, f"{row.n:,}")
    return table
