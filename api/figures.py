"""Figures of several workers as one: each writes its own beside its lock every second, and whoever is scraped adds up those of all
that live. Counters, histograms and gauges are summed; a circuit's states then count workers.

What a worker that died had counted is lost, as at a restart; Prometheus takes that for a counter that was reset.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from api.presence import Presence

EVERY_S = 1.0
_SUFFIX = ".figures"
# When a series began: a time, which no sum makes sense of.
_BEGAN = "_created"
Row = list[Any]         # name, what it is, its kind, and its samples as name, labels and value


def rows_of(registry: CollectorRegistry) -> list[Row]:
    """Every family of a registry, as JSON."""
    return [[family.name, family.documentation, family.type,
             [[sample.name, sample.labels, sample.value] for sample in family.samples if not sample.name.endswith(_BEGAN)]]
            for family in registry.collect()]


def text_of(several: Iterable[list[Row]]) -> bytes:
    """The sum of several, in the text format of Prometheus."""
    return generate_latest(_Sum(several))


class _Sum:
    def __init__(self, several: Iterable[list[Row]]) -> None:
        self._several = several

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for rows in self._several:
            for name, documentation, kind, samples in rows:
                families.setdefault(name, Metric(name, documentation, kind))
                found = sums.setdefault(name, {})
                for sample, labels, value in samples:
                    place = (sample, tuple(labels.items()))
                    found[place] = found.get(place, 0.0) + value
        for name, family in families.items():
            family.samples = [Sample(sample, dict(labels), value) for (sample, labels), value in sums[name].items()]
            yield family


class Shared:
    """Writes the figures of this process down for the others until it is closed, and reads theirs."""

    def __init__(self, presence: Presence, own: Callable[[], list[Row]], *, every_s: float = EVERY_S) -> None:
        self._presence = presence
        self._own = own
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="figures", daemon=True)
        self._thread.start()

    def text(self) -> bytes:
        """The sum over this process and every other that serves the home. Blocks on the disk."""
        return text_of([self._own(), *self._others()])

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._path(self._presence.id).unlink(missing_ok=True)

    def _others(self) -> Iterator[list[Row]]:
        for owner in self._presence.alive():
            if owner != self._presence.id:
                try:
                    yield json.loads(self._path(owner).read_text(encoding="utf-8"))
                except FileNotFoundError:
                    continue        # it has only begun

    def _keep(self) -> None:
        path = self._path(self._presence.id)
        aside = path.with_suffix(".part")
        while not self._over.is_set():
            try:
                aside.write_text(json.dumps(self._own()), encoding="utf-8")
                os.replace(aside, path)     # nobody reads half of it; and nobody needs it after a crash, so it is not synced
            except OSError:
                pass                        # a full disk costs figures, no answers
            self._over.wait(self._every_s)
        aside.unlink(missing_ok=True)

    def _path(self, owner: str) -> Path:
        return self._presence.folder / f"{owner}{_SUFFIX}"
