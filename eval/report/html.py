"""The report as one page that needs nothing else: style, plots and a little script are part of it.

Questions, answers and contexts are data that others wrote: the template engine escapes every value, and the page's own
policy lets no script run but ours and nothing be fetched.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from eval.report import groups, headline, numbers, palette, spending, svg, tables, traces
from eval.report.facts import facts, rerun
from eval.report.failures import failures
from eval.report.highlight import pieces
from eval.report.records import Run, Table
from eval.report.spending import Spent
from eval.report.tables import Cell, Column, Sheet

Sheeted = Callable[[Table, str], Sheet]


@dataclass(frozen=True, slots=True)
class Asides:
    """What the page sets beside the tables: the system chosen for wins and losses, the baseline and their budget."""

    chosen: str
    against: str
    budget: int | None


def as_html(run: Run, *, asides: Asides) -> str:
    """The whole page.

    Raises:
        InputError: the store of contexts is damaged.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("eval.report", "page"), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, finalize=_shown)
    environment.filters |= {"number": numbers.number, "interval": numbers.interval, "count": numbers.count}
    page = environment.get_template("page.html")
    return page.render(**_view(run, asides))


def _shown(value: object) -> object:
    """Every value on its way into the page; markup of ours is already free of what `plain` removes."""
    return numbers.plain(value) if type(value) is str else value


def _view(run: Run, asides: Asides) -> dict[str, object]:
    summary = run.summary
    names = groups.systems(summary)
    styles = palette.styles(names)
    classes = {name: f"s{place}" for place, name in enumerate(names)}
    told = groups.groups(summary)
    script, style = _resource("page.js"), _resource("page.css")
    fronts = groups.frontiers(summary)
    compared = traces.compare(run, asides.chosen, against=asides.against, budget=asides.budget)
    return {
        "title": "What each token buys", "style": style, "script": script, "palette": _palette(styles, classes),
        "script_hash": b64encode(sha256(script.encode()).digest()).decode(),
        "headline": headline.headline(summary, against=asides.against, chosen=asides.chosen), "about": groups.about(summary),
        "groups": told, "systems": names, "budgets": groups.budgets(summary), "macro": groups.MACRO,
        "classes": classes, "swatches": {name: svg.swatch(shown) for name, shown in classes.items()},
        "symbols": svg.swatches(styles, classes),
        "axes": [(x, groups.X_AXES[x][0]) for x in groups.X_AXES if any(one.x == x for one in fronts)],
        "free": not any(one.x == "cost_usd" for one in fronts),
        "plots": [(one, svg.frontier_plot(one, styles=styles, classes=classes, emphasised={asides.chosen, asides.against}))
                  for one in fronts],
        "frontier_tables": _sheets(tables.frontier_table, summary, told), "results": _sheets(tables.results, summary, told),
        "differences": _sheets(tables.differences, summary, told), "types": _sheets(tables.types, summary, told),
        "tokens": _spent(spending.tokens(run), told, "tokens"), "seconds": _spent(spending.seconds(run), told, "seconds"),
        "further": _sheets(tables.further, summary, told), "compared": compared, "pieces": pieces,
        "agreements": summary.get("agreement", ()), "failures": failures(run), "facts": facts(run), "rerun": rerun(run),
        "whisker": svg.whisker, "bar": _bar,
    }


def _resource(name: str) -> str:
    return files("eval.report").joinpath("page", name).read_text(encoding="utf-8")


def _palette(styles: Mapping[str, palette.Style], classes: Mapping[str, str]) -> str:
    """Colours by class, for light and dark; names of systems are not in it, so nothing in it comes from data."""
    light = "".join(f".{classes[name]}{{--c:{style.light}}}" for name, style in styles.items())
    dark = "".join(f".{classes[name]}{{--c:{style.dark}}}" for name, style in styles.items())
    return f"{light}@media(prefers-color-scheme:dark){{{dark}}}"


def _sheets(make: Sheeted, summary: Table, names: Iterable[str]) -> list[Sheet]:
    return [sheet for sheet in (make(summary, name) for name in names) if sheet.rows and sheet.columns]


def _spent(told: Sequence[Spent], names: Sequence[str], what: str) -> list[Sheet]:
    """A table for each group with a stacked bar and its numbers in every row."""
    return [_bars(group, [one for one in told if one.group == group], what) for group in names
            if any(one.group == group for one in told)]


def _bars(group: str, told: Sequence[Spent], what: str) -> Sheet:
    parts = list(dict.fromkeys(name for one in told for name, _ in one.parts))
    digits = 0 if what == "tokens" else 3
    rows = tuple(tables.Row(one.system, one.budget, (
        Cell(f"{one.n:,}", sort=one.n), Cell(numbers.number(one.total, digits), sort=one.total, parts=one.parts),
        *(_part(one, name, digits) for name in parts))) for one in told)
    columns = (Column("n"), Column(f"{what} in all", align="left"), *(Column(name) for name in parts))
    return Sheet(group, columns, rows, scale=(0.0, max((one.total for one in told), default=0.0) or 1.0), legend=tuple(parts))


def _part(one: Spent, name: str, digits: int) -> Cell:
    value = dict(one.parts).get(name)
    return Cell(numbers.number(value, digits), sort=value)


def _bar(cell: Cell, sheet: Sheet) -> list[tuple[int, str, float]]:
    """Segments of a stacked bar: place in the legend, what it is, share of the longest bar in percent."""
    told = dict(cell.parts)
    return [(place, name, 100 * told[name] / sheet.scale[1]) for place, name in enumerate(sheet.legend) if told.get(name)]
