"""Progress of long work on stderr: bars for a person at a terminal, else a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

from rag.cli import terminal
from rag.cli.words import amount, duration, rate, short_amount
from rag.types import OnProgress, Progress, Step

if TYPE_CHECKING:
    from rich.progress import TaskID

FIRST_LINE_S = 2.0
NEXT_LINE_S = 10.0
_BAR_CELLS = 10
_REST_CELLS = _BAR_CELLS + 11  # beside the texts: the bar, the time left and the gaps
# What is about to happen once a stage is over; a stage that is not here leaves the line as it was.
_AFTER = {"trigger": "searching", "rewrite": "searching", "retrieve": "selecting", "filter": "selecting",
          "select": "reading", "render": "reading", "generate": "checking"}


@contextmanager
def shown(stream: TextIO | None = None) -> Iterator[OnProgress]:
    """A callback that shows each tick on `stream` (stderr when None). Safe to call from any thread."""
    watched = sys.stderr if stream is None else stream
    if terminal.interactive(watched):
        with _bars(watched) as show:
            yield show
    else:
        yield PlainLines(lambda line: print(line, file=watched, flush=True))


class PlainLines:
    """At most one line in ten seconds, the first after two: logs stay readable and short work stays silent."""

    def __init__(self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._next = clock() + FIRST_LINE_S
        self._begun: dict[str, tuple[float, Progress]] = {}
        self._last: dict[str, Progress] = {}

    def __call__(self, tick: Progress) -> None:
        now = self._clock()
        if _begins(tick, self._last.get(tick.stage)):
            self._begun[tick.stage] = (now, tick)
        self._last[tick.stage] = tick
        start, first = self._begun[tick.stage]
        if now < self._next:
            return
        self._next = now + NEXT_LINE_S
        parts = [f"{tick.stage}: {amount(tick)}"]
        if tick.note:
            parts.append(terminal.one_line(tick.note, limit=60))
        # From less than a hundredth of the work, an estimate would be a guess.
        if tick.total and tick.done - first.done >= tick.total / 100:
            left = (now - start) / (tick.done - first.done) * (tick.total - tick.done)
            parts.append(f"{duration(left)} left")
        self._write(", ".join(parts))


def _begins(tick: Progress, last: Progress | None) -> bool:
    """Whether a stage begins with this tick, or begins again for the next file or step."""
    return last is None or tick.done < last.done or (tick.total, tick.unit) != (last.total, last.unit)


@contextmanager
def _bars(stream: TextIO) -> Iterator[OnProgress]:
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    def field(name: str, style: str = "") -> TextColumn:
        return TextColumn(f"{{task.fields[{name}]}}", style=style, markup=False)

    bar = BarColumn(bar_width=_BAR_CELLS, table_column=Column(no_wrap=True))
    columns = (TextColumn("{task.description}", markup=False), bar, field("amount"), field("rate", "dim"),
               TimeRemainingColumn(compact=True), field("note", "dim"))
    rows: dict[str, _Row] = {}
    with Bars(*columns, console=terminal.console(stream), transient=True) as bars:

        def show(tick: Progress) -> None:
            now = time.monotonic()
            row = rows.get(tick.stage)
            if row is None or _begins(tick, row.last):
                if row is not None:
                    bars.remove_task(row.task)
                task = bars.add_task(tick.stage, total=tick.total, amount=short_amount(tick), rate="", note="")
                row = _Row(task, begun=now, first=tick, last=tick, amount="", rate="")
            speed = (tick.done - row.first.done) / (now - row.begun) if now > row.begun else None
            row = replace(row, last=tick, amount=short_amount(tick), rate=rate(speed, tick.unit))
            rows[tick.stage] = row
            texts = ((r.last.stage, r.amount, r.rate) for r in rows.values())
            room = bars.console.width - _REST_CELLS - sum(max(map(len, column)) for column in zip(*texts, strict=True))
            bars.update(row.task, completed=tick.done, amount=row.amount, rate=row.rate,
                        note=terminal.one_line(tick.note, limit=room) if room > 1 else "")

        yield show


@dataclass(frozen=True, slots=True)
class _Row:
    """A bar, since when it measures, the ticks it has seen, and its texts."""

    task: TaskID
    begun: float
    first: Progress
    last: Progress
    amount: str
    rate: str


class Waiting:
    """A spinner on stderr that says what an answer is doing; silent where nobody watches. `stop` may be called twice."""

    def __init__(self, first: str, stream: TextIO | None = None) -> None:
        watched = sys.stderr if stream is None else stream
        self._status = None
        if terminal.interactive(watched):
            self._status = terminal.console(watched).status(first)
            self._status.start()

    def on_step(self, step: Step) -> None:
        if self._status is not None and step.stage in _AFTER:
            self._status.update(_AFTER[step.stage])

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


@contextmanager
def waiting(first: str) -> Iterator[Waiting]:
    spinner = Waiting(first)
    try:
        yield spinner
    finally:
        spinner.stop()
