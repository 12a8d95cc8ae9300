"""Performance figures by name: every one that the documentation states comes from `thriftrag bench NAME`.

A bench is a module here with a docstring, whose first line says what it measures, and `run`; modules whose names begin with an
underscore are parts of one. Values are compared within one run, as ratios, because machines are noisy and differ.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from rag.errors import InputError
from rag.settings import Settings
from rag.types import OnProgress


@dataclass(frozen=True, slots=True)
class Measurement:
    """One figure. `ratio`: value over that of the row named in `ratio_to`; both None without one."""

    name: str
    value: float
    unit: str
    n: int                      # how many times it was taken, or over how many items
    ratio: float | None = None
    ratio_to: str | None = None
    interval: tuple[float, float] | None = None     # 95 %, where one was estimated

    def to_dict(self) -> dict[str, object]:
        """Without `interval` where there is none."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "interval" or self.interval is not None}


@dataclass(frozen=True, slots=True)
class Options:
    """What a run may use. `data`: dataset folders; `sizes`: how many vectors, chunks or passages, smallest first."""

    settings: Settings
    scratch: Path               # an empty folder that is removed afterwards
    data: tuple[Path, ...] = ()
    sizes: tuple[int, ...] = ()  # empty: the bench's own
    seed: int = 13
    plots: Path | None = None   # a folder for PNG files; None draws nothing
    # For benches that name them in `TAKES`, a frozenset of names in their module:
    weights: Path | None = None  # a file of term weights; None: those of the embedder's folder, or shipped
    limit: int | None = None    # questions of each data set
    teacher: Path | None = None  # folder of SPLADE-tiny
    reader: str | None = None   # name of a reader to ask
    home: Path | None = None    # where to remember what is costly, below `home / evaluation`; None: nowhere


class Bench(Protocol):
    def __call__(self, options: Options, *, on_progress: OnProgress) -> list[Measurement]:
        """The figures, in the order to show them."""


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def summary(name: str) -> str:
    """What a bench measures, in a line."""
    said = importlib.import_module(f"eval.bench.{name}").__doc__ or ""
    return " ".join(said.split("\n\n")[0].split())


def takes(name: str) -> frozenset[str]:
    """The options beyond those of every bench that this one looks at."""
    return cast("frozenset[str]", getattr(importlib.import_module(f"eval.bench.{name}"), "TAKES", frozenset()))


def load(name: str) -> Bench:
    """Raises InputError for a name that is no bench."""
    if name not in names():
        raise InputError(f"There is no bench {name!r}.", field="name", hint=f"Use one of {', '.join(names())}.")
    return cast(Bench, importlib.import_module(f"eval.bench.{name}").run)


def ratio_to(rows: list[Measurement], name: str, *, of: str) -> float:
    """Value of the row `of` over that of the row `name`."""
    values = {row.name: row.value for row in rows}
    return values[of] / values[name]
