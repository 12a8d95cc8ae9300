"""Inline SVG: frontier plots and whiskers. Everything that comes from data is escaped; colours come from the page's style."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from markupsafe import Markup, escape

from eval.report import numbers
from eval.report.groups import X_AXES, Y_AXES, Frontier, Point, Series
from eval.report.palette import Style
from eval.report.scales import Axis, linear_axis, log_axis, spread

WIDTH, HEIGHT = 620, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 488, 14, 352
_LABEL_GAP = 14.0
_SHAPES = {
    "circle": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "square": "M-3.6-3.6h7.2v7.2h-7.2z", "diamond": "M0-5L5 0L0 5L-5 0z",
    "triangle": "M0-4.8L4.6 3.6H-4.6z", "down": "M0 4.8L4.6-3.6H-4.6z",
    "cross": "M-4.4-1.5h2.9v-2.9h3v2.9h2.9v3h-2.9v2.9h-3v-2.9h-2.9z",
}


def tag(name: str, attributes: Mapping[str, object], *children: object) -> Markup:
    """An element. Values and children are escaped unless they are markup already."""
    told = Markup("").join(Markup(' {}="{}"').format(key, _safe(value)) for key, value in attributes.items())
    return Markup("<{0}{1}>{2}</{0}>").format(name, told, Markup("").join(_safe(child) for child in children))


def _safe(value: object) -> Markup:
    return value if isinstance(value, Markup) else escape(numbers.plain(str(value)))


def frontier_plot(front: Frontier, *, styles: Mapping[str, Style], classes: Mapping[str, str],
                  emphasised: Collection[str]) -> Markup:
    """The plot of one frontier: lines with whiskers, bands for the emphasised systems, hollow marks for dominated points,
    dotted lines across for systems that no budget binds, every line labelled at its right end.

    `classes` maps systems to the class that carries their colour.
    """
    lines = sorted((one for one in front.series if one.bound), key=lambda one: one.system in emphasised)
    levels = [one for one in front.series if not one.bound and (front.y, one.system) != ("answer_in_context", "closed_book")]
    x = log_axis([point.x for one in lines for point in one.points], start=_LEFT + 6, end=_RIGHT - 6)
    y = linear_axis([*_heights(lines, emphasised), *(one.points[0].y for one in levels)], start=_BOTTOM, end=_TOP)
    labels = spread([y.at(one.points[-1].y) for one in (*levels, *lines)], gap=_LABEL_GAP, low=_TOP, high=_BOTTOM)
    drawn = [_level(one, y, at, classes) for one, at in zip(levels, labels, strict=False)]
    drawn += [_line(one, x, y, style=styles[one.system], label_at=at, shown=classes[one.system], strong=one.system in emphasised,
                    front=front) for one, at in zip(lines, labels[len(levels):], strict=True)]
    what = f"{Y_AXES[front.y][0]} against {X_AXES[front.x][0]}, {front.group}"
    return tag("svg", {"class": "plot", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img",
                       "aria-label": _told(what, lines, levels)}, _axes(front, x, y), *drawn)


def whisker(value: tuple[float, float, float], scale: tuple[float, float]) -> Markup:
    """A point with its interval on the scale of all rows, and the 0 as a line. The cell has the figures."""
    low, high = scale
    at = Axis(low, high if high > low else low + 1, 4, 156, ())
    middle, left, right = (round(at.at(one), 1) for one in value)
    clear = value[1] > 0 or value[2] < 0
    return tag("svg", {"class": "whisker", "viewBox": "0 0 160 16", "aria-hidden": "true"},
               tag("path", {"class": "zero", "d": f"M{at.at(0):.1f} 0v16"}),
               tag("path", {"class": "reach", "d": f"M{left} 8H{right}M{left} 5v6M{right} 5v6"}),
               tag("circle", {"class": "solid" if clear else "hollow", "cx": middle, "cy": 8, "r": 3.4}))


def swatches(styles: Mapping[str, Style], classes: Mapping[str, str]) -> Markup:
    """Once in the page: a bit of each system's line with its mark, for `swatch` to show again and again."""
    return tag("svg", {"class": "unseen", "aria-hidden": "true"}, *(
        tag("symbol", {"id": f"line-{classes[name]}", "viewBox": "0 0 26 12"},
            tag("path", {"class": "line", "d": "M1 6H25", "stroke-dasharray": style.dash or "none"}),
            tag("path", {"class": "mark", "d": _SHAPES[style.marker], "transform": "translate(13 6)"}))
        for name, style in styles.items()))


def swatch(shown: str) -> Markup:
    """To stand before the name of the system with this class; takes its colour from around it."""
    return tag("svg", {"class": "swatch"}, tag("use", {"href": f"#line-{shown}"}))


def _heights(lines: Sequence[Series], emphasised: Collection[str]) -> list[float]:
    """What the plot has to have room for: every point, and the intervals of those that stand out."""
    return [height for one in lines for point in one.points
            for height in (point.y, *(point.ci or ()) * (one.system in emphasised))]


def _axes(front: Frontier, x: Axis, y: Axis) -> Markup:
    parts = [tag("path", {"class": "grid", "d": "".join(f"M{_LEFT} {y.at(tick):.1f}H{_RIGHT}" for tick, _ in y.ticks)}),
             tag("path", {"class": "tick", "d": "".join(f"M{x.at(tick):.1f} {_BOTTOM}v5" for tick, _ in x.ticks)})]
    parts += [tag("text", {"class": "axis end", "x": _LEFT - 7, "y": f"{y.at(tick) + 4:.1f}"}, text) for tick, text in y.ticks]
    parts += [tag("text", {"class": "axis middle", "x": f"{x.at(tick):.1f}", "y": _BOTTOM + 19}, text) for tick, text in x.ticks]
    parts.append(tag("text", {"class": "axis middle title", "x": (_LEFT + _RIGHT) // 2, "y": HEIGHT - 8},
                     f"{X_AXES[front.x][0]} (logarithmic)"))
    return tag("g", {"aria-hidden": "true"}, *parts)


def _level(one: Series, y: Axis, label_at: float, classes: Mapping[str, str]) -> Markup:
    at = y.at(one.points[0].y)
    return tag("g", {"class": f"series level {classes[one.system]}", "data-system": one.system},
               tag("title", {}, f"{one.system}: {numbers.number(one.points[0].y)}, n = {one.points[0].n:,}"),
               tag("path", {"class": "line", "d": f"M{_LEFT} {at:.1f}H{_RIGHT}", "stroke-dasharray": "1 4"}),
               _label(one.system, at, label_at))


def _line(one: Series, x: Axis, y: Axis, *, style: Style, label_at: float, shown: str, strong: bool, front: Frontier) -> Markup:
    places = [(x.at(point.x), y.at(point.y)) for point in one.points]
    parts = [_band(one.points, x, y) if strong else _whiskers(one.points, x, y),
             tag("path", {"class": "line", "d": "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places),
                          "stroke-dasharray": style.dash or "none"})]
    parts += [tag("path", {"class": "mark hollow" if point.dominated else "mark", "d": _SHAPES[style.marker],
                           "transform": f"translate({a:.1f} {b:.1f})"}, tag("title", {}, _point(one.system, point, front)))
              for point, (a, b) in zip(one.points, places, strict=True)]
    # The label stands in the margin; a line leads there from the last point.
    end, height = places[-1]
    parts.append(tag("path", {"class": "lead", "d": f"M{end + 6:.1f} {height:.1f}L{_RIGHT} {height:.1f}"}))
    parts.append(_label(one.system, height, label_at))
    return tag("g", {"class": f"series {shown}{' strong' if strong else ''}", "data-system": one.system}, *parts)


def _band(points: Sequence[Point], x: Axis, y: Axis) -> Markup:
    told = [(x.at(point.x), *map(y.at, point.ci)) for point in points if point.ci]
    if len(told) < 2:
        return _whiskers(points, x, y)
    edge = [f"{at:.1f} {low:.1f}" for at, low, _ in told] + [f"{at:.1f} {high:.1f}" for at, _, high in reversed(told)]
    return tag("path", {"class": "band", "d": f"M{'L'.join(edge)}Z"})


def _whiskers(points: Sequence[Point], x: Axis, y: Axis) -> Markup:
    return tag("path", {"class": "reach", "d": "".join(
        f"M{x.at(point.x):.1f} {y.at(max(point.ci[0], y.low)):.1f}V{y.at(min(point.ci[1], y.high)):.1f}"
        for point in points if point.ci)})


def _label(system: str, height: float, label_at: float) -> Markup:
    bend = f"M{_RIGHT} {height:.1f}L{_RIGHT + 10} {label_at:.1f}"
    return Markup("").join([tag("path", {"class": "lead", "d": bend}),
                            tag("text", {"class": "name", "x": _RIGHT + 13, "y": f"{label_at + 4:.1f}"}, _short(system))])


def _short(system: str) -> str:
    return system if len(system) <= 17 else f"{system[:16]}…"


def _point(system: str, point: Point, front: Frontier) -> str:
    x = numbers.number(point.x, 0) if front.x.endswith("tokens") else numbers.significant(point.x)
    ci = f" {numbers.interval(point.ci)}" if point.ci else ""
    return f"{system} {point.budget}: {numbers.number(point.y)}{ci} at {x}, n = {point.n:,}{', dominated' * point.dominated}"


def _told(what: str, lines: Sequence[Series], levels: Sequence[Series]) -> str:
    """What a screen reader says for the plot: where each line begins and ends. The tables have every figure."""
    ranges = [f"{one.system} from {numbers.number(one.points[0].y)} to {numbers.number(one.points[-1].y)}" for one in lines]
    across = [f"{one.system} {numbers.number(one.points[0].y)}" for one in levels]
    return f"{what}. {'; '.join([*ranges, *across])}."
