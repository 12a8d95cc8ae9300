"""`ask --trace-plot`: the way to a context as a picture, utility against tokens. Needs matplotlib, the extra `plots`.

Most sets are worth little, and the good ones differ by little: where that is so, a second plot shows the top of the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import InputError
from rag.types import Point, SearchPath

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")
_INK, _SOFT, _GRID = "#1e2226", "#5a6169", "#e8eaec"
_TOP = 0.12                 # share of the range of utilities that the second plot shows
_ENOUGH = 6                 # sets in there that make it worth drawing
_LINE = 76                  # characters of a title


def checked(path: Path | None) -> Path | None:
    """`path` if a picture can be drawn there. Asked before the question is, which may cost money.

    Raises:
        InputError: the format is unknown, the folder is missing, or matplotlib is.
    """
    if path is None:
        return None
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"--trace-plot cannot draw {path.name!r}.", field="trace_plot",
                         hint=f"End the name in {', '.join(FORMATS)}.")
    if not path.absolute().parent.is_dir():
        raise InputError(f"--trace-plot: there is no folder {str(path.absolute().parent)!r}.", field="trace_plot",
                         hint="Make it, or name another.")
    if find_spec("matplotlib") is None:
        raise InputError("--trace-plot needs matplotlib, which is not installed.", field="trace_plot",
                         hint="Install it with `pip install 'thriftrag[plots]'`, or leave --trace-plot out.")
    return path


def save(path: Path, way: SearchPath, *, selector: str, question: str) -> None:
    """Writes the picture in the format that the name ends in. Raises OSError if the disk refuses."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from eval.report import palette

    colour = palette.styles([selector])[selector].light
    style = {"font.family": "sans-serif", "font.size": 9.0, "text.color": _INK, "axes.edgecolor": "#b4bac1",
             "axes.labelcolor": _SOFT, "xtick.color": _SOFT, "ytick.color": _SOFT, "svg.hashsalt": "thriftrag",
             "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}
    with rc_context(style):     # type: ignore[arg-type]  # names are checked by matplotlib
        low, high = _heights(way)
        top = high - _TOP * (high - low)
        close = sum(y >= top for _, y in way.asked) >= _ENOUGH
        figure = Figure(figsize=(11.2 if close else 7.6, 4.8), layout="constrained")
        every, *near = figure.subplots(1, 1 + close, squeeze=False)[0]
        _draw(every, way, colour, low=low, high=high)
        for axes in near:
            _draw(axes, way, colour, low=top, high=high)
            axes.set_ylabel("")
            axes.set_title("The best of them", loc="left", fontsize=9, color=_SOFT)
        every.set_title(_said(way, selector), loc="left", fontsize=9, color=_SOFT)
        figure.suptitle(_short(question), x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        handles, labels = every.get_legend_handles_labels()
        # Below the picture: inside, it would hide sets. What matters most comes first.
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=5 if close else 3, frameon=False, fontsize=8.5)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def _draw(axes: Axes, way: SearchPath, colour: str, *, low: float, high: float) -> None:
    best = records(way.asked)
    margin = 0.06 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(0, _width(way))
    if way.asked:
        size = max(5.0, min(22.0, 4000 / len(way.asked)))
        axes.scatter([x for x, _ in way.asked], [y for _, y in way.asked], s=size, color=_SOFT, alpha=0.22, linewidths=0, zorder=2,
                     label="set asked about", rasterized=len(way.asked) > 2000)
    axes.axvline(way.budget, color=_INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1)
    axes.text(way.budget, 0.99, f" budget {way.budget}", transform=axes.get_xaxis_transform(), fontsize=8, va="top", ha="left",
              color=_INK)
    if way.growth:
        _line(axes, [(0, 0.0), *way.growth], colour, label="grown piece by piece")
    else:
        _line(axes, best, colour, label="best so far")
    marked = [(way.greedy, "s", "#b97700", "greedy", 13.0), (way.next_best, "D", "#0067b0", "next best", 8.0),
              (way.chosen, "o", colour, "chosen", 8.0)]
    for point, marker, ink, label, width in marked:
        if point is not None:
            filled = label == "chosen"
            axes.plot(*point, marker=marker, markersize=width, linestyle="none", markerfacecolor=ink if filled else "none",
                      markeredgecolor="white" if filled else ink, markeredgewidth=1.0 if filled else 1.6,
                      zorder=6 if filled else 7, label=f"{label}: {point[1]:.3f} at {point[0]} tokens")
    axes.set_xlabel("tokens")
    axes.set_ylabel("utility")
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def records(asked: Sequence[Point]) -> list[Point]:
    """The sets that were the best when they were asked about, in that order."""
    found: list[Point] = []
    for point in asked:
        if not found or point[1] > found[-1][1]:
            found.append(point)
    return found


def _line(axes: Axes, points: Sequence[Point], colour: str, *, label: str) -> None:
    axes.plot([x for x, _ in points], [y for _, y in points], color=colour, linewidth=1.6, marker="o", markersize=3.2, zorder=4,
              label=label)


def _named(way: SearchPath) -> list[Point]:
    return [point for point in (*way.growth, way.chosen, way.next_best, way.greedy) if point is not None]


def _heights(way: SearchPath) -> tuple[float, float]:
    """The least and the greatest utility, never equal."""
    found = [y for _, y in (*way.asked, *_named(way))] or [0.0]
    low, high = min(found), max(found)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _width(way: SearchPath) -> float:
    """Tokens to the right end: room for the budget and its name, and for sets that are over it, up to twice as far."""
    most = max((x for x, _ in (*way.asked, *_named(way))), default=1)
    return 1.12 * max(1, way.budget, min(most, 2 * way.budget))


def _said(way: SearchPath, selector: str) -> str:
    parts = [selector, f"{len(way.asked):,} sets asked about" if way.asked else "no set was asked about"]
    if way.unlisted:
        parts.append(f"{way.unlisted:,} more not drawn")
    return "  ·  ".join(parts)


def _short(question: str) -> str:
    flat = " ".join(question.split())
    return flat if len(flat) <= _LINE else f"{flat[:_LINE - 1].rstrip()}…"
