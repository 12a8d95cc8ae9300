"""`thriftrag bench`: performance figures with the machine they were measured on."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import complete, interrupt, options, progress, session, terminal
from rag.errors import InputError

if TYPE_CHECKING:
    from eval.bench import Measurement

EXAMPLES = options.examples(
    "thriftrag bench                                   # which benches there are",
    "thriftrag bench ingest                            # passages a second, files to snapshot, against peers",
    "thriftrag bench dense --sizes 10000,100000,1000000 --plots plots/",
)


def bench(
    name: Annotated[str | None, typer.Argument(metavar="NAME", autocompletion=complete.benches,
                                               help="What to measure. Without it: the list.")] = None,
    data: Annotated[list[Path] | None, typer.Option(
        "--data", metavar="DIR", help="Data set folder to take texts from; may be repeated. Default: the shipped sample.")] = None,
    sizes: Annotated[str | None, typer.Option(
        "--sizes", metavar="N,M", help="How many vectors, chunks or passages. Default: the bench's own.")] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Seed of everything random.")] = 13,
    plots: Annotated[Path | None, typer.Option(
        "--plots", metavar="DIR", help="Draw what is better looked at as PNG files in DIR (needs matplotlib).")] = None,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Measure one part of ThriftRAG beside a baseline or peer, in one run on this machine.

    Compare the ratios: seconds differ between machines and moments. Nothing is written to your collections.
    """
    from eval import bench as benches

    if name is None:
        _list()
        return
    measure = benches.load(name)
    settings = session.settings(home=home, verbose=verbose)
    if plots is not None:
        _require_matplotlib()

    def work() -> list[Measurement]:
        with tempfile.TemporaryDirectory(prefix="thriftrag-bench-") as scratch, progress.shown() as on_progress:
            given = benches.Options(settings=dataclasses.replace(settings, home=Path(scratch) / "home"), scratch=Path(scratch),
                                    data=tuple(data or ()), sizes=_sizes(sizes), seed=seed, plots=plots)
            return measure(given, on_progress=on_progress)

    rows = interrupt.complete(work)
    if as_json:
        from eval.machine import machine, versions

        terminal.print_json({"bench": name, "machine": machine(), "versions": versions(), "seed": seed,
                             "results": [row.to_dict() for row in rows]})
        return
    from rag.cli import tables

    terminal.console(sys.stdout).print(tables.measurements(rows))


def _list() -> None:
    from eval import bench as benches
    from rag.cli import tables

    terminal.console(sys.stdout).print(tables.grid([(name, benches.summary(name)) for name in benches.names()]))


def _sizes(typed: str | None) -> tuple[int, ...]:
    try:
        found = tuple(sorted(int(part) for part in (typed or "").split(",") if part.strip()))
    except ValueError:
        raise InputError(f"--sizes {typed!r} is not a list of numbers.", field="sizes",
                         hint="Use for instance --sizes 10000,100000.") from None
    if found and found[0] < 1:
        raise InputError(f"--sizes {typed!r} has a size below 1.", field="sizes", hint="Use for instance --sizes 10000,100000.")
    return found


def _require_matplotlib() -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise InputError("--plots needs matplotlib, which is not installed.", field="plots",
                         hint="pip install 'thriftrag[plots]', or leave out --plots.")
