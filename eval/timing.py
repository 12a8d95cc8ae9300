"""Wall times of the benches, and how their rows are set against each other and drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from eval.bench import Measurement

T = TypeVar("T")


def seconds(work: Callable[[], object]) -> float:
    since = time.perf_counter()
    work()
    return time.perf_counter() - since


def p50(times: Sequence[float]) -> float:
    """Median in milliseconds of times in seconds."""
    return 1e3 * float(np.median(times))


def p95(times: Sequence[float]) -> float:
    return 1e3 * float(np.quantile(times, 0.95))


class Timed(Generic[T]):
    """Passes items on and adds up how long they took to come."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self.seconds = 0.0

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        since = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - since


def interleaved(ways: Mapping[str, Callable[[T], object]], items: Sequence[T], *, warming: int,
                fewer: Mapping[str, int] | None = None) -> dict[str, list[float]]:
    """Seconds of each way for each item. Every item goes to each way in turn, so that whatever else the machine does meets all of
    them; the first `warming` items go to all once before that. `fewer`: ways that get only so many items, and warm up on one."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for warm in (True, False):
        for number, item in enumerate(items[:warming] if warm else items):
            for way, ask in ways.items():
                most = (fewer or {}).get(way)
                if most is None or number < (1 if warm else most):
                    taken = seconds(partial(ask, item))
                    if not warm:
                        times[way].append(taken)
    return times


def against(rows: Sequence[Measurement], bases: Sequence[str]) -> list[Measurement]:
    """Rows named "way, rest", each with its ratio to the row of the same rest whose way is one of `bases`."""
    by_name = {row.name: row for row in rows}
    found = []
    for row in rows:
        way, _, rest = row.name.partition(", ")
        base = next((by_name[f"{name}, {rest}"] for name in bases if f"{name}, {rest}" in by_name), None)
        found.append(row if base is None or way in bases else replace(row, ratio=row.value / base.value, ratio_to=base.name))
    return found


def plot_by_size(rows: Sequence[Measurement], path: Path, *, what: str, lines: Mapping[str, str], title: str) -> None:
    """Rows named "way, SIZE `what`: name", drawn as milliseconds over sizes. `lines`: names that are drawn, with what is put
    behind the way in the legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        start, _, name = row.name.partition(f" {what}: ")
        way, _, size = start.partition(", ")
        if name in lines:
            points.setdefault(f"{way}{lines[name]}", []).append((int(size.replace(",", "")), row.value))
    for label, found in points.items():
        axes.plot(*zip(*found, strict=True), marker="o", label=label)
    axes.set(xscale="log", yscale="log", xlabel=what, ylabel="ms", title=title)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
