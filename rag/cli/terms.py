"""Why a hit was found: its score at each origin, and what each term of the query adds, as a table with bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rag.cli.tables import grid
from rag.cli.terminal import one_line
from rag.types import Hit, TermMatch

_BAR_CELLS = 16
_INDENT = (0, 0, 0, 5)
_ORIGINS = {"dense": ("by meaning", "cosine"), "bm25": ("by words", "BM25"), "sparse": ("by terms", "sum")}
_FROM = {"passage": "passage", "expansion": "added", "both": "partly added"}


def explained(hit: Hit, *, most: float) -> RenderableType:
    """The lines below a hit. `most`: the weight that fills a bar."""
    lines = [(name, f"{scale} {hit.origins[origin]:.4g}") for origin, (name, scale) in _ORIGINS.items() if origin in hit.origins]
    parts: list[RenderableType] = [grid(lines)] if lines else []
    if hit.explain is not None:
        parts += table([match.to_dict() for match in hit.explain], most=most)
    return Padding(Group(*parts), _INDENT, expand=False)


def most_of(matches: Sequence[TermMatch]) -> float:
    """The greatest weight of a term in a passage, 0 for none."""
    return max((match.weight for match in matches), default=0.0)


def table(matches: Sequence[Mapping[str, object]], *, most: float) -> list[RenderableType]:
    """The terms that match, in the order given, and a line with those that do not. `matches`: as `TermMatch.to_dict` has them."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in ("term", "in the query", "in the passage", "", "adds", "from"):
        shown.add_column(name, justify="right" if name in ("in the query", "", "adds") else "left", overflow="fold")
    for match in matches:
        weight = _number(match.get("weight"))
        if weight > 0:
            filled = max(1, min(_BAR_CELLS, round(_BAR_CELLS * weight / most))) if most > 0 else 0
            source = _FROM.get(str(match.get("from")), "")
            shown.add_row(one_line(str(match.get("term", ""))), f"{_number(match.get('query_weight')):.2f}",
                          Text("━" * filled, style="green" if source == "passage" else "yellow"), f"{weight:.2f}",
                          f"{_number(match.get('contribution')):.2f}", source)
    missing = [one_line(str(match.get("term", ""))) for match in matches if _number(match.get("weight")) <= 0]
    parts: list[RenderableType] = [shown] if shown.row_count else []
    return [*parts, Text(f"not in it: {', '.join(missing)}", style="dim")] if missing else parts


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
