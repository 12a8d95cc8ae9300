"""The plots of the page as PNG files, drawn by matplotlib (extra `plots`): one file for each group and axis of cost, with F1
and answer in context side by side, and one for where the tokens and the seconds go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.report import groups, palette, spending
from eval.report.groups import X_AXES, Y_AXES, Frontier, Series
from eval.report.palette import Style
from eval.report.records import Run
from eval.report.scales import label, log_ticks, spread
from eval.report.spending import Spent
from rag.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle": "^", "down": "v", "cross": "P"}
_INK, _SOFT, _GRID = "#1e2226", "#5a6169", "#e8eaec"
_PARTS = ("#33506e", "#8ba6c1", "#d9a441", "#6d7f4f", "#b58aa5", "#b9c4cf", "#7a5c3e", "#4f8f8b", "#c7b18a", "#9a9fa5")
_STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _SOFT, "axes.labelcolor": _INK,
    "xtick.color": _SOFT, "ytick.color": _SOFT, "text.color": _INK, "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.titleweight": "bold", "figure.facecolor": "white"}
# Bars beyond this make a picture that nobody can read.
_MOST_BARS = 60
_DPI = 120


def draw(run: Run, folder: Path, *, emphasised: Collection[str]) -> tuple[Path, ...]:
    """Writes the files into `folder`, made if need be, and gives their paths in the order in which a report shows them.

    Raises:
        ConfigError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    rc_context, made = _matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    with rc_context(_STYLE):
        return _drawn(run, folder, made, emphasised)


def _drawn(run: Run, folder: Path, made: type[Figure], emphasised: Collection[str]) -> tuple[Path, ...]:
    styles = palette.styles(groups.systems(run.summary))
    found = []
    for (group, x), pair in groupby(_worth_a_file(groups.frontiers(run.summary)), key=lambda one: (one.group, one.x)):
        path = folder / f"frontier-{stem_of(group)}-{x.replace('_', '-')}.png"
        _save(_frontiers(made, list(pair), styles, emphasised), path)
        found.append(path)
    first = groups.groups(run.summary)[0]
    for name, told in (("tokens", spending.tokens(run)), ("stages", spending.seconds(run))):
        mine = [one for one in told if one.group == first]
        if mine:
            path = folder / f"{name}.png"
            _save(_bars(made, _fitting(mine), name), path)
            found.append(path)
    return tuple(found)


def stem_of(group: str) -> str:
    """The group's part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-") or "data"


def _worth_a_file(fronts: Sequence[Frontier]) -> list[Frontier]:
    """Prompt tokens are left to the page where money tells the same."""
    priced = {one.group for one in fronts if one.x == "cost_usd"}
    return [one for one in fronts if one.x != "prompt_tokens" or one.group not in priced]


def _matplotlib() -> tuple[Any, type[Figure]]:
    """Its settings and its figure, without pyplot, which would keep every figure and could want a display."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure as Made
    except ImportError as error:
        raise ConfigError("Plots need matplotlib, which is not installed.", hint="pip install 'thriftrag[plots]'",
                          field="plots") from error
    return rc_context, Made


def _save(figure: Figure, path: Path) -> None:
    """With the 128 colours that matter: a quarter of the size, for pictures that are kept beside documents. Without date and
    version, so that the same figures give the same file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba()))
    drawn.convert("RGB").quantize(128).save(path, format="PNG", optimize=True)


def _frontiers(made: type[Figure], fronts: Sequence[Frontier], styles: Mapping[str, Style],
               emphasised: Collection[str]) -> Figure:
    # Margins are set, not found: names in the right one make a layout engine slow.
    figure = made(figsize=(6.4 * len(fronts), 4.4), dpi=_DPI)
    figure.subplots_adjust(left=0.07 / len(fronts), right=1 - 0.2 / len(fronts), wspace=0.36, top=0.93, bottom=0.11)
    for front, plot in zip(fronts, figure.subplots(1, len(fronts), squeeze=False)[0], strict=True):
        _frontier(front, plot, styles, emphasised)
    return figure


def _frontier(front: Frontier, plot: Axes, styles: Mapping[str, Style], emphasised: Collection[str]) -> None:
    lines = sorted((one for one in front.series if one.bound), key=lambda one: one.system in emphasised)
    levels = [one for one in front.series if not one.bound and (front.y, one.system) != ("answer_in_context", "closed_book")]
    xs = [point.x for one in lines for point in one.points]
    plot.set_xscale("log")
    room = (max(xs) / min(xs)) ** 0.04 if max(xs) > min(xs) else 1.5
    plot.set_xlim(min(xs) / room, max(xs) * room)
    for one in levels:
        plot.axhline(one.points[0].y, color=styles[one.system].light, linestyle=(0, (1, 2.5)), linewidth=1.2)
    for one in lines:
        _line(one, plot, styles[one.system], strong=one.system in emphasised)
    heights = [height for one in lines for point in one.points
               for height in (point.y, *(point.ci or ()) * (one.system in emphasised))]
    heights += [one.points[0].y for one in levels]
    margin = 0.04 * (max(heights) - min(heights)) or 1.0
    plot.set_ylim(max(0.0, min(heights) - margin) if min(heights) >= 0 else None, max(heights) + margin)
    ticks = log_ticks(*plot.get_xlim())
    plot.set_xticks(ticks, [label(tick) for tick in ticks])
    plot.set_xticks([], minor=True)
    plot.grid(axis="y", color=_GRID, linewidth=0.8)
    plot.set_axisbelow(True)
    plot.set_xlabel(f"{X_AXES[front.x][0]} (logarithmic)")
    title = Y_AXES[front.y][0]
    plot.set_title(f"{title[:1].upper()}{title[1:]}, {front.group}, {_n(point.n for one in front.series for point in one.points)}")
    _labels([*levels, *lines], plot, styles, emphasised)


def _line(one: Series, plot: Axes, style: Style, *, strong: bool) -> None:
    xs, ys = [point.x for point in one.points], [point.y for point in one.points]
    dash = (0, tuple(float(part) / 1.4 for part in style.dash.split())) if style.dash else "-"
    plot.plot(xs, ys, color=style.light, linestyle=dash, linewidth=2.2 if strong else 1.1, zorder=4 if strong else 3)
    told = [point for point in one.points if point.ci]
    if strong and len(told) > 1:
        plot.fill_between([point.x for point in told], [point.ci[0] for point in told if point.ci],
                          [point.ci[1] for point in told if point.ci], color=style.light, alpha=0.13, linewidth=0)
    elif told:
        plot.vlines([point.x for point in told], [point.ci[0] for point in told if point.ci],
                    [point.ci[1] for point in told if point.ci], color=style.light, alpha=0.22, linewidth=0.8)
    for point in one.points:
        plot.plot(point.x, point.y, marker=_MARKERS[style.marker], color=style.light, markersize=5.2 if strong else 4.4,
                  markerfacecolor="white" if point.dominated else style.light, zorder=5)


def _labels(told: Sequence[Series], plot: Axes, styles: Mapping[str, Style], emphasised: Collection[str]) -> None:
    """Names at the right, clear of each other, each with a line to where its own ends."""
    low, high = plot.get_ylim()
    ends = [one.points[-1].y if one.bound else one.points[0].y for one in told]
    places = spread(ends, gap=(high - low) * 0.041, low=low, high=high)
    for one, end, place in zip(told, ends, places, strict=True):
        colour = styles[one.system].light
        at, named = (end - low) / (high - low), (place - low) / (high - low)
        if one.bound:
            plot.plot([one.points[-1].x, plot.get_xlim()[1]], [end, end], color=colour, linewidth=0.6, alpha=0.5)
        plot.plot([1, 1.03], [at, named], transform=plot.transAxes, color=colour, linewidth=0.6, alpha=0.5, clip_on=False)
        plot.text(1.035, named, one.system, transform=plot.transAxes, va="center", fontsize=8, color=colour,
                  fontweight="bold" if one.system in emphasised else "normal")


def _fitting(told: Sequence[Spent]) -> list[Spent]:
    """All, or where they are too many those of the middle budget and of the systems that none binds."""
    if len(told) <= _MOST_BARS:
        return list(told)
    budgets = sorted({one.budget for one in told if one.budget is not None})
    return [one for one in told if one.budget in (None, budgets[len(budgets) // 2])]


def _bars(made: type[Figure], told: Sequence[Spent], name: str) -> Figure:
    figure = made(figsize=(9.0, 1.2 + 0.19 * len(told)), dpi=_DPI, layout="constrained")
    plot = figure.subplots()
    names = [f"{one.system} {'' if one.budget is None else one.budget}".strip() for one in told]
    left = [0.0] * len(told)
    for place, part in enumerate(_in_order(name for one in told for name, _ in one.parts)):
        widths = [dict(one.parts).get(part, 0.0) for one in told]
        plot.barh(range(len(told)), widths, left=left, height=0.72, color=_PARTS[place % len(_PARTS)], label=part,
                  edgecolor="white", linewidth=0.4)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    plot.set_yticks(range(len(told)), names, fontsize=8)
    plot.invert_yaxis()
    plot.margins(y=0.01)
    plot.grid(axis="x", color=_GRID, linewidth=0.8)
    plot.set_axisbelow(True)
    unit = "Tokens per question that the reader answered" if name == "tokens" else "Seconds per question, timed alone"
    plot.set_title(f"{unit}, {told[0].group}, {_n(one.n for one in told)}")
    plot.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    return figure


def _n(told: Iterable[int]) -> str:
    counts = set(told)
    return f"n = {max(counts):,}" if len(counts) == 1 else f"n = {min(counts):,} to {max(counts):,}"


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
