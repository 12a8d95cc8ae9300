"""Every setting and server setting as Markdown tables, made from their definitions: `python -m api.reference`.

`docs/configuration.md` holds the output between two marks, and a test compares them: the page cannot go stale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from api.settings import PREFIX, ServerSettings
from rag import settings

BEGIN, END = "<!-- begin: python -m api.reference -->", "<!-- end -->"


def main(arguments: Sequence[str]) -> int:
    """Prints the tables, or writes them into the page that is named. Exit status 2 where the arguments are wrong."""
    if len(arguments) > 1:
        print(__doc__, file=sys.stderr)
        return 2
    if not arguments:
        print(tables())
        return 0
    page = Path(arguments[0])
    page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def renewed(page: str) -> str:
    """The page with the tables of this version between the marks. Raises ValueError: it has not both marks."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def tables() -> str:
    return "\n".join([
        "### Settings", "",
        "Those marked *q* may differ from one question to the next, and may stand in a collection's `settings.toml`.", "",
        *_table(("setting", "variable", "default", "takes", "meaning"), _settings()), "",
        "### Server settings", "", *_table(("setting", "variable", "default", "takes", "meaning"), _server())])


def _settings() -> Iterator[tuple[str, ...]]:
    for row in settings.described():
        marks = " *q*" if row.query else ""
        yield (f"`{row.name}`{marks}", f"`{settings.PREFIX}{row.name.upper()}`", _shown(row.default, secret=row.secret),
               _bounds(row.low, row.high) or ", ".join(row.choices), row.doc)


def _server() -> Iterator[tuple[str, ...]]:
    for name, field in ServerSettings.model_fields.items():
        told = {type(each).__name__.lower(): each for each in field.metadata}
        low, high = (next((getattr(told[kind], kind) for kind in kinds if kind in told), None)
                     for kinds in (("ge", "gt"), ("le", "lt")))
        takes = ("above " if "gt" in told else "") + _bounds(low, high)
        yield f"`{name}`", f"`{PREFIX}{name.upper()}`", _shown(field.default, secret=False), takes, field.description or ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _shown(value: object, *, secret: bool) -> str:
    if isinstance(value, Path):
        return "the system's folder for it"
    return "none" if value == "" or secret else f"`{value}`"


def _bounds(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    if high is None:
        return f"from {low:,g}"
    return f"{low:,g} to {high:,.0f}" if low is not None else f"up to {high:,.0f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
