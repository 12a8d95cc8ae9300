"""Reports and lists as tables. Names are never cut: a long one folds on a terminal and runs on in a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rag.cli.terminal import one_line
from rag.cli.words import plural, size
from rag.types import FileFailure, IngestReport

if TYPE_CHECKING:
    from eval.bench import Measurement
    from indexers.snapshot import DocumentInfo
    from rag.thriftrag import CollectionInfo

Justify = Literal["left", "right"]


def report(value: IngestReport, *, collection: str) -> RenderableType:
    """What one ingestion did, and what was left out with the way to get it in."""
    would = "to be " if value.dry_run else ""
    rows: list[tuple[str, str | Text]] = [
        ("collection", one_line(collection)),
        (f"{would}added", plural(value.added, "document") + (f" ({value.moved:,} moved)" if value.moved else "")),
        (f"{would}changed", plural(value.changed, "document")),
        ("unchanged", plural(value.unchanged, "document")),
        *([("removed", plural(value.removed, "document"))] if value.removed else []),
        ("chunks", f"{value.chunks:,} ({plural(value.tokens, 'token')})"),
        *([("encoded", _encoded(value))] if value.encoded or value.recalled else []),
        *([("skipped", f"{plural(len(value.skipped), 'file')} of no known kind")] if value.skipped else []),
        ("failed", Text(f"{len(value.failures):,}", style="bold red" if value.failures else "")),
        ("time", f"{value.seconds:.1f} s"),
    ]
    return Group(grid(rows), Text(""), failures(value.failures)) if value.failures else grid(rows)


def _encoded(value: IngestReport) -> str:
    """`1,024, 12 known from before; 6% padding instead of 36%`."""
    known = f", {value.recalled:,} known from before" if value.recalled else ""
    saved = f"; {value.padding:.0%} padding instead of {value.padding_unsorted:.0%}" if value.padding_unsorted else ""
    return f"{value.encoded:,}{known}{saved}"


def failures(values: Sequence[FileFailure]) -> Table:
    table = listing(("left out", "left"), ("because", "left"), ("fix", "left"))
    for failure in values:
        table.add_row(one_line(failure.source), one_line(failure.message), one_line(failure.hint))
    return table


def documents(values: Iterable[DocumentInfo]) -> Table:
    table = listing(("id", "left"), ("source", "left"), ("title", "left"), ("chunks", "right"), ("tokens", "right"),
                    ("added", "left"))
    for row in values:
        table.add_row(one_line(row.id), one_line(row.source), one_line(row.title, limit=60), f"{row.chunks:,}",
                      f"{row.tokens:,}", one_line(row.added))
    return table


def collections(values: Iterable[CollectionInfo]) -> Table:
    table = listing(("name", "left"), ("documents", "right"), ("chunks", "right"), ("tokens", "right"), ("size", "right"),
                    ("encoder", "left"), ("created", "left"))
    for row in values:
        table.add_row(one_line(row.name), f"{row.documents:,}", f"{row.chunks:,}", f"{row.tokens:,}", size(row.bytes),
                      one_line(row.encoder), one_line(row.created))
    return table


def models(rows: Iterable[Mapping[str, object]]) -> Table:
    table = listing(("model", "left"), ("role", "left"), ("state", "left"), ("used", "left"), ("download", "right"),
                    ("licence", "left"), ("description", "left"))
    styles = {"ready": "green", "corrupt": "bold red", "partial": "yellow"}
    for row in rows:
        state = str(row["state"])
        name, role, licence, description = (str(row[key]) for key in ("name", "role", "licence", "description"))
        download = row["download_bytes"]
        table.add_row(name, role, Text(state, style=styles.get(state, "dim")), "yes" if row["used"] else "",
                      size(download if isinstance(download, int) else 0), licence, description)
    return table


def settings(rows: Iterable[Mapping[str, object]]) -> Table:
    listed = list(rows)
    table = listing(("setting", "left"), ("value", "left"), ("from", "left"), ("meaning", "left"))
    # A variable's name is looked for as a word, so it is never broken; a path may be.
    table.columns[2].min_width = max((len(str(row["origin"])) for row in listed if os.sep not in str(row["origin"])), default=0)
    for row in listed:
        changed = row["origin"] != "default"
        table.add_row(str(row["name"]), Text(one_line(str(row["value"])), style="bold" if changed else ""),
                      Text(one_line(str(row["origin"])), style="cyan" if changed else "dim"), str(row["doc"]))
    return table


def measurements(rows: Iterable[Measurement]) -> Table:
    """Intervals have a column where there are any."""
    found = list(rows)
    with_intervals = any(row.interval for row in found)
    between: list[tuple[str, Justify]] = [("95 %", "left")] if with_intervals else []
    table = listing(("measured", "left"), ("value", "right"), *between, ("unit", "left"), ("n", "right"), ("ratio", "right"),
                    ("to", "left"))
    for row in found:
        interval = [f"{row.interval[0]:.4g} to {row.interval[1]:.4g}" if row.interval else ""] if with_intervals else []
        table.add_row(row.name, f"{row.value:,.4g}" if abs(row.value) < 1000 else f"{row.value:,.0f}", *interval, row.unit,
                      f"{row.n:,}", "" if row.ratio is None else f"{row.ratio:.2f}", row.ratio_to or "")
    return table


def facts(values: Mapping[str, object]) -> Table:
    """Names and values, one to a line."""
    return grid([(name, f"{value:,}" if isinstance(value, int) else one_line(str(value))) for name, value in values.items()])


def grid(rows: Sequence[tuple[str, str | Text]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    return table


def listing(*columns: tuple[str, Justify]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold", no_wrap=justify == "right")
    return table
