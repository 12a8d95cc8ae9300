"""The choice of a context for people: every candidate with its scores and its fate, and the next best set.

A wide terminal gets a table, a narrow one three lines for each candidate: a table that folds its columns is hard to read. What
was not computed has no column. Rows and values are those of the trace's JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rag.cli.terminal import one_line

Row = Mapping[str, object]

_WORDS = 56                 # characters of a line that a table leaves to sources and reasons, or it is none
_ORIGINS = ("dense", "sparse", "bm25", "cluster")


def choice(facts: Row) -> list[RenderableType]:
    """What the step `select` of a trace says about candidates: none where it says nothing."""
    rows = [row for row in _sequence(facts.get("considered")) if isinstance(row, Mapping)]
    parts: list[RenderableType] = [Considered(rows)] if rows else []
    degraded, other = facts.get("degraded"), facts.get("next_best")
    if degraded:
        parts.append(Text.assemble(("Degraded: ", "bold yellow"), one_line(str(degraded))))
    if isinstance(other, Mapping):
        parts.append(_next_best(other, chosen=facts.get("utility")))
    return [*parts, Text("")] if degraded or isinstance(other, Mapping) else parts


@dataclass(frozen=True, slots=True)
class Considered:
    """The candidates by rank, those that were kept stand out."""

    rows: Sequence[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("considered", style="bold")
        values = [_values(row) for row in self.rows]
        columns = _columns(self.rows)
        numbers = sum(3 + max(len(name), *(len(row.get(name, "")) for row in values)) for name in columns)
        yield self._table(columns) if options.max_width >= numbers + _WORDS else self._lines(columns)

    def _table(self, columns: Sequence[str]) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("kept", overflow="fold")
        table.add_column("source", overflow="fold")
        table.add_column("why", overflow="fold")
        for row in self.rows:
            values = _values(row)
            table.add_row(*(values.get(name, "") for name in columns), _kept(row), _told(row, "source"), _told(row, "why"),
                          style="" if row.get("kept") else "dim")
        return table

    def _lines(self, columns: Sequence[str]) -> Group:
        parts: list[RenderableType] = []
        for row in self.rows:
            kept = bool(row.get("kept"))
            values = _values(row)
            numbers = "  ".join(f"{name} {values[name]}" for name in columns[1:] if values.get(name))
            parts.append(Text.assemble((f"{_told(row, 'rank'):>3}  ", "bold"), (_told(row, "source"), "cyan" if kept else ""), "  ",
                                       _kept(row), style="" if kept else "dim"))
            parts += [Padding(Text(text, style="dim"), (0, 0, 0, 5)) for text in (numbers, _told(row, "why")) if text]
        return Group(*parts, Text(""))


def _columns(rows: Sequence[Row]) -> list[str]:
    """Names of the numbers that any of the rows has, in the order of the path: found, judged, paid, gained."""
    present = {name for row in rows for name in _values(row)}
    origins = [*(name for name in _ORIGINS if name in present), *sorted(_origins(rows) - set(_ORIGINS))]
    relevance = () if "dense" in origins else ("relevance",)    # which is the same cosine
    return [name for name in ("rank", *origins, "score", *relevance, "chance", "tokens", "adds") if name in present]


def _origins(rows: Iterable[Row]) -> set[str]:
    return {one_line(str(name)) for row in rows if isinstance(origins := row.get("origins"), Mapping) for name in origins}


def _values(row: Row) -> dict[str, str]:
    """The numbers of a row by the name of their column."""
    found = {"rank": _told(row, "rank"), "tokens": _told(row, "tokens"), "score": _decimals(row.get("score"), 4),
             "relevance": _decimals(row.get("relevance"), 3), "chance": _decimals(row.get("chance"), 3),
             "adds": _decimals(row.get("marginal"), 4, sign="+")}
    origins = row.get("origins")
    scores = {one_line(str(name)): value for name, value in origins.items()} if isinstance(origins, Mapping) else {}
    found |= {name: _decimals(value, 3) for name, value in scores.items()}
    return {name: text for name, text in found.items() if text}


def _kept(row: Row) -> Text:
    """`sentences 1 (+0.21), 3 (+0.05) of 5`, counted from 1; `all 5 sentences`; or a dash."""
    chosen, adds = _sequence(row.get("kept_sentences")), _sequence(row.get("sentence_marginals"))
    if not row.get("kept"):
        return Text("–")
    count = _told(row, "sentences")
    noun = "sentence" if len(chosen) == 1 else "sentences"
    if len(chosen) == row.get("sentences") and len(chosen) < 2:
        return Text(f"all {count} {noun}", style="green")
    told = [_numbered(index) + (f" ({_decimals(value, 3, sign='+')})" if isinstance(value, (int, float)) else "")
            for index, value in zip(chosen, [*adds, *[None] * (len(chosen) - len(adds))], strict=False)]
    if len(chosen) == row.get("sentences"):
        return Text(f"all {count} {noun}" + (f": {', '.join(told)}" if adds else ""), style="green")
    return Text(f"{noun} {', '.join(told)} of {count}", style="green")


def _next_best(other: Row, *, chosen: object) -> Text:
    """`next best  utility 0.8123 (0.0311 less), 118 tokens: with sentence 2 of 4 notes.md, without ...`."""
    utility = other.get("utility")
    text = Text.assemble(("next best  ", "bold"), f"utility {_decimals(utility, 4)}")
    if isinstance(utility, (int, float)) and isinstance(chosen, (int, float)):
        text.append(f" ({abs(utility - chosen):.4f} {'less' if utility <= chosen else 'more'})")
    text.append(f", {_told(other, 'tokens')} tokens")
    for key, sign, style in (("added", "+", "green"), ("removed", "-", "red")):
        for part in _sequence(other.get(key)):
            if isinstance(part, Mapping):
                sentences = _sequence(part.get("sentences"))
                noun = "sentence" if len(sentences) == 1 else "sentences"
                text.append(f"\n  {sign} ", style=style)
                text.append(f"{_told(part, 'rank')}  {_told(part, 'source')}  {noun} {', '.join(map(_numbered, sentences))}")
    return text


def _numbered(index: object) -> str:
    return str(index + 1) if isinstance(index, int) else ""


def _told(row: Row, name: str) -> str:
    return one_line(str(row.get(name, "")))


def _decimals(value: object, places: int, *, sign: str = "") -> str:
    return f"{value:{sign}.{places}f}" if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


def _sequence(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()
