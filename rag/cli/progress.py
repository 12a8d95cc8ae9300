"""Progress of long work on stderr: bars for a person at a terminal, else a plain line now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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
_GAPS = 5
# What is about to happen once a stage is over; a stage that is not here leaves the line as it was.
_AFTER = {"trigger": "searching", "rewrite": "searching", "retrieve": "selecting", "filter": "selecting",
          "select": "reading", "render": "reading", "generate": "checking"}


@contextmanager
def shown(stream: TextIO | None = None) -> Iterator[OnProgress]:
    """A callback that shows each tick on `stream` (stderr when None). Safe to call from any thread."""
    watched = sys.stderr if stream is None else stream
    lock = threading.Lock()

    def one_at_a_time(show: OnProgress) -> OnProgress:
        def tick(progress: Progress) -> None:
            with lock:
                show(progress)

        return tick

    if terminal.interactive(watched):
        with _bars(watched) as show:
            yield one_at_a_time(show)
    else:
        yield one_at_a_time(PlainLines(lambda line: print(line, file=watched, flush=True)))


class PlainLines:
    """At most one line in ten seconds, the first after two: logs stay readable and short work stays silent.

    A line tells of every stage under way, the one that moved last at the end.
    """

    def __init__(self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._next = clock() + FIRST_LINE_S
        self._stages: dict[str, _Stage] = {}

    def __call__(self, tick: Progress) -> None:
        now = self._clock()
        before = self._stages.pop(tick.stage, None)
        if before is None or _begins(tick, before.last):
            before = _Stage(now, first=tick, last=tick)
        self._stages[tick.stage] = replace(before, last=tick)
        if now < self._next:
            return
        self._next = now + NEXT_LINE_S
        told = [stage for stage in self._stages.values() if stage.last is tick or not stage.over]
        self._write("; ".join(stage.line(now) for stage in told))


@dataclass(frozen=True, slots=True)
class _Stage:
    """One stage: since when it is measured, with what it began, and where it is."""

    begun: float
    first: Progress
    last: Progress

    @property
    def over(self) -> bool:
        return bool(self.last.total) and self.last.done >= (self.last.total or 0)

    def line(self, now: float) -> str:
        """For instance `encode: 1,024 of 5,000 chunks (20%), 3 min 05 s left`."""
        left = self.left(now)
        parts = (amount(self.last), terminal.one_line(self.last.note, limit=60), f"{left} left" if left else "")
        return f"{self.last.stage}: {', '.join(part for part in parts if part)}"

    def rate(self, now: float) -> str:
        return rate((self.last.done - self.first.done) / (now - self.begun) if now > self.begun else None, self.last.unit)

    def left(self, now: float) -> str:
        """The time left at the pace so far; empty when it would be a guess from less than a hundredth of the work."""
        made, total = self.last.done - self.first.done, self.last.total
        if not total or self.over or made < total / 100:
            return ""
        return duration((now - self.begun) / made * (total - self.last.done))


def _begins(tick: Progress, last: Progress | None) -> bool:
    """Whether a stage begins with this tick, or begins again for the next file or step."""
    return last is None or tick.done < last.done or (tick.total, tick.unit) != (last.total, last.unit)


@contextmanager
def _bars(stream: TextIO) -> Iterator[OnProgress]:
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    def field(name: str, style: str = "") -> TextColumn:
        return TextColumn(f"{{task.fields[{name}]}}", style=style, markup=False)

    bar = BarColumn(bar_width=_BAR_CELLS, table_column=Column(no_wrap=True))
    tasks: dict[str, TaskID] = {}
    stages: dict[str, _Stage] = {}
    with Bars(TextColumn("{task.description}", markup=False), bar, field("amount"), field("rate", "dim"), field("left"),
              field("note", "dim"), console=terminal.console(stream), transient=True) as bars:

        def show(tick: Progress) -> None:
            now = time.monotonic()
            stage = stages.get(tick.stage)
            if stage is None or _begins(tick, stage.last):
                if stage is not None:
                    bars.remove_task(tasks[tick.stage])
                tasks[tick.stage] = bars.add_task(tick.stage, total=tick.total, amount="", rate="", left="", note="")
                stage = _Stage(now, first=tick, last=tick)
            stages[tick.stage] = replace(stage, last=tick)
            # All of them: files wait while their chunks are encoded, and their pace must say so.
            for name, row in _rows(stages, now, width=bars.console.width).items():
                bars.update(tasks[name], completed=stages[name].last.done, amount=row.amount, rate=row.rate, left=row.left,
                            note=row.note)

        yield show


@dataclass(frozen=True, slots=True)
class _Row:
    """The texts beside one bar."""

    amount: str
    rate: str
    left: str
    note: str = ""


def _rows(stages: Mapping[str, _Stage], now: float, *, width: int) -> dict[str, _Row]:
    """The texts of each stage; notes get the cells that the other columns leave."""
    rows = {name: _Row(short_amount(stage.last), stage.rate(now), stage.left(now)) for name, stage in stages.items()}
    columns = zip(*((name, row.amount, row.rate, row.left) for name, row in rows.items()), strict=True)
    room = width - _BAR_CELLS - _GAPS - sum(max(map(len, column)) for column in columns)
    if room < 2:
        return rows
    return {name: replace(row, note=terminal.one_line(stages[name].last.note, limit=room)) for name, row in rows.items()}


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
