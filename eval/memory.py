"""How much memory this process and its children hold while something runs."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType

_PERIOD_S = 0.5


def resident_bytes() -> int:
    """Of this process and all below it; 0 where the system does not say. Pages of mapped files count while they are held,
    pages that processes share count once for each."""
    own, total = os.getpid(), 0
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = (int(fields[1]), int(fields[21]))
            except (OSError, IndexError, ValueError):
                continue
    for process, (_, pages) in parents.items():
        above: int | None = process
        while above is not None and above != own:
            above = parents[above][0] if above in parents and parents[above][0] != above else None
        if above == own:
            total += pages * os.sysconf("SC_PAGE_SIZE")
    return total


class Sampler:
    """Notes resident memory twice a second, in a thread of its own, between entering and leaving."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def after(self, share: float) -> list[int]:
        """Bytes at every point but the first `share` of them; never empty."""
        values = [value for _, value in self._points]
        return values[min(int(share * len(values)), len(values) - 1):]

    def plot(self, path: Path, *, title: str) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.subplots()
        axes.plot([at - self._points[0][0] for at, _ in self._points], [value / 1e6 for _, value in self._points])
        axes.set(title=title, xlabel="seconds", ylabel="MB", ylim=(0, None))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)

    def _run(self) -> None:
        while True:
            self._points.append((time.monotonic(), resident_bytes()))
            if self._over.wait(_PERIOD_S):
                return
