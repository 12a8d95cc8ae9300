"""Looking at generated pairs one by one on the terminal: keep, drop, edit, or leave the rest for later."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from rag.cli import terminal

if TYPE_CHECKING:
    from eval.tune.pairs import Pair

_CHOICES = "[k]eep  [d]rop  [e]dit  [q]uit"
_SEEN = "reviewed"


def review(pairs: Sequence[Pair], *, save: Callable[[Sequence[Pair]], None]) -> list[Pair]:
    """Asks about each kept pair that was not looked at before, on stderr, and saves after every answer. The pairs as they
    are then; quitting leaves the rest kept, and a later review begins there.

    Raises:
        typer.Abort: Ctrl-C or the end of stdin. What was answered before is saved.
    """
    found = list(pairs)
    waiting = [place for place, pair in enumerate(found) if pair.keep and _SEEN not in pair.facts]
    for number, place in enumerate(waiting, start=1):
        _show(found[place], number=number, count=len(waiting))
        answered = _asked(found[place])
        if answered is None:
            break
        found[place] = replace(answered, facts={**answered.facts, _SEEN: 1})
        save(found)
    return found


def _show(pair: Pair, *, number: int, count: int) -> None:
    answers = "; ".join(pair.answers) or "(to be declined)"
    for line in (f"\n{number} of {count}  {pair.source}", f"  Q: {pair.question}", f"  A: {answers}", f"     {pair.quote}"):
        if line.strip():
            print(terminal.clean(line), file=sys.stderr)


def _asked(pair: Pair) -> Pair | None:
    """The pair after the answer; None to quit."""
    while True:
        answer = typer.prompt(_CHOICES, default="k", show_default=False, err=True).strip().lower()
        if answer in ("k", "keep"):
            return pair
        if answer in ("d", "drop"):
            return replace(pair, keep=False, reason="dropped")
        if answer in ("e", "edit"):
            return _edited(pair)
        if answer in ("q", "quit"):
            return None
        print(f"{terminal.one_line(answer, limit=20)!r} is none of these.", file=sys.stderr)


def _edited(pair: Pair) -> Pair:
    """An empty line leaves a text as it is."""
    question = typer.prompt("  Q", default=pair.question, show_default=False, err=True).strip()
    answer = typer.prompt("  A", default="", show_default=False, err=True).strip()
    return replace(pair, question=question, answers=(answer,) if answer else pair.answers)
