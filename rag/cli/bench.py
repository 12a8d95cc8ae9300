"""`thriftrag bench`: performance figures with the machine they were measured on."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import complete, edge, interrupt, options, progress, session, terminal
from rag.errors import InputError

if TYPE_CHECKING:
    from eval.bench import Bench, Measurement
    from eval.bench_all import Outcome
    from rag.types import Progress

EXAMPLES = options.examples(
    "thriftrag bench                                   # which benches there are",
    "thriftrag bench ingest                            # passages a second, files to snapshot, against peers",
    "thriftrag bench dense --sizes 10000,100000,1000000 --plots plots/",
    "thriftrag bench retrieval --data squad2_dev --data hotpotqa --weights candidate.safetensors --json",
    "thriftrag bench all --out bench-today/            # every bench; the same command goes on where it stopped",
)
ALL = "all"
# Where things lie and what belongs to nobody's figures.
_NO_MATTER = frozenset({"home", "models", "collection"})


def bench(
    name: Annotated[str | None, typer.Argument(metavar="NAME", autocompletion=complete.benches,
                                               help="What to measure, or `all`. Without it: the list.")] = None,
    data: Annotated[list[Path] | None, typer.Option(
        "--data", metavar="DIR", help="Data set folder to take texts from; may be repeated. Default: the shipped sample.")] = None,
    sizes: Annotated[str | None, typer.Option(
        "--sizes", metavar="N,M", help="How many vectors, chunks or passages. Default: the bench's own.")] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="S", help="Seed of everything random.")] = 13,
    plots: Annotated[Path | None, typer.Option(
        "--plots", metavar="DIR", help="Draw what is better looked at as PNG files in DIR (needs matplotlib).")] = None,
    out: Annotated[Path | None, typer.Option(
        "--out", metavar="DIR", help="With `all`: where bench.json and bench.md go; what is finished there is kept.")] = None,
    again: Annotated[bool, typer.Option("--again", help="With `all`: measure also what is finished.")] = False,
    weights: Annotated[Path | None, typer.Option(
        "--weights", metavar="FILE", help="Weights to measure: term weights with `retrieval` and `sparse`, a cross-encoder with "
                                          "`relevance`. Default: the shipped.")] = None,
    limit: Annotated[int | None, typer.Option(
        "--limit", metavar="N", min=1, help="Questions of each data set at most, in benches that ask some.")] = None,
    teacher: Annotated[Path | None, typer.Option(
        "--teacher", metavar="DIR", help="With `retrieval`: folder of SPLADE-tiny, to compare with (extra torch).")] = None,
    reader: Annotated[str | None, typer.Option(
        "--reader", metavar="NAME", autocompletion=complete.models,
        help="With `rewriting`: a reader that is asked for queries. Slow.")] = None,
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
    if plots is not None:
        _require_matplotlib()
    further = {"weights": weights, "limit": limit, "teacher": teacher, "reader": reader}
    if name == ALL:
        _refuse_further(name, further, frozenset())
        _all(out, data=data or [], sizes=sizes, seed=seed, plots=plots, again=again, as_json=as_json, home=home, verbose=verbose)
        return
    if out is not None or again:
        raise InputError("--out and --again belong to `bench all`.", field="out", hint="Leave them out, or run every bench.")
    measure = _load(name)
    _refuse_further(name, further, benches.takes(name))
    settings = session.settings(home=home, verbose=verbose)

    def work() -> list[Measurement]:
        with tempfile.TemporaryDirectory(prefix="thriftrag-bench-") as scratch, progress.shown() as on_progress:
            given = benches.Options(settings=dataclasses.replace(settings, home=Path(scratch) / "home"), scratch=Path(scratch),
                                    data=tuple(data or ()), sizes=_sizes(sizes), seed=seed, plots=plots, weights=weights,
                                    limit=limit, teacher=teacher, reader=reader, home=settings.home)
            try:
                return measure(given, on_progress=on_progress)
            except ImportError as error:
                raise _missing(name, error) from error

    rows = interrupt.complete(work)
    if as_json:
        from eval.machine import machine, versions

        terminal.print_json({"bench": name, "machine": machine(), "versions": versions(), "seed": seed,
                             "results": [row.to_dict() for row in rows]})
        return
    from rag.cli import tables

    terminal.console(sys.stdout).print(tables.measurements(rows))


def _all(out: Path | None, *, data: list[Path], sizes: str | None, seed: int, plots: Path | None, again: bool, as_json: bool,
         home: Path | None, verbose: bool) -> None:
    """Every bench, each in a process of its own. Exits 3 if some failed, 1 if all did."""
    from eval import bench as benches
    from eval import bench_all

    if out is None:
        raise InputError("`bench all` needs a folder for its figures.", field="out", hint="Use for instance --out bench-today.")
    settings = session.settings(home=home, verbose=verbose)
    names = benches.names()
    asked = {"data": [str(folder.resolve()) for folder in data], "sizes": list(_sizes(sizes)), "seed": seed,
             "settings": {str(row["name"]): row["value"] for row in settings.rows()
                          if row["origin"] != "default" and row["name"] not in _NO_MATTER}}

    def work(cancelled: Callable[[], bool]) -> Outcome:
        def measured(name: str) -> Mapping[str, object] | None:
            arguments = bench_all.command(name, data=data, sizes=sizes, seed=seed, plots=plots, home=home)
            return bench_all.in_own_process(arguments, cancelled=cancelled)

        return bench_all.run_all(names, out, measure=measured, options=asked, again=again, on_progress=_next,
                                 summaries={name: benches.summary(name) for name in names})

    kept = f"The benches that were finished are in {out}; run the same command again to go on."
    done = interrupt.run(work, kept=kept, finishing="Stopping the bench in hand; press Ctrl-C again to leave at once.").result
    if done.stopped:
        raise edge.Stopped(kept)
    if as_json:
        terminal.print_json(done.report)
    else:
        sys.stdout.write(terminal.clean((out / bench_all.TABLE).read_text(encoding="utf-8")))
    print(f"{len(done.ran)} benches ran, {len(done.kept)} were finished already. Figures: {out}", file=sys.stderr)
    if done.failed:
        print(f"Failed, and tried again by the same command: {', '.join(done.failed)}.", file=sys.stderr)
        raise typer.Exit(edge.FAILED if len(done.failed) == len(names) else edge.PARTIAL)


def _refuse_further(name: str, given: Mapping[str, object], taken: frozenset[str]) -> None:
    wrong = next((option for option, value in given.items() if value is not None and option not in taken), None)
    if wrong is not None:
        raise InputError(f"The bench {name!r} has no use for --{wrong}.", field=wrong, hint="Leave it out, or name another bench.")


def _next(tick: Progress) -> None:
    """A line for each bench: the bench's own bars follow it."""
    if tick.note:
        print(f"Bench {tick.done + 1} of {tick.total}: {tick.note}", file=sys.stderr)


def _load(name: str) -> Bench:
    from eval import bench as benches

    try:
        return benches.load(name)
    except ImportError as error:
        raise _missing(name, error) from error


def _missing(name: str, error: ImportError) -> InputError:
    """The error for a package that is not there; a broken import of ours stays what it is."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "rag", "eval", "indexers", "retrievers", "optimizers", "api"):
        raise error
    return InputError(f"The bench {name!r} needs the package {package!r}, which is not installed.", code="package_missing",
                      hint="pip install 'thriftrag[all]' (and 'thriftrag[peers]' for the programs that we are compared with).")


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
