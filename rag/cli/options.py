"""Options that several commands share, and how examples are laid out in their help."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from rag.cli import complete
from rag.settings import Settings


def default(name: str, *, zero: str = "0") -> str:
    """The sentence of an option's help that says what holds without it; `zero` is what a 0 stands for."""
    value = next(field.default for field in fields(Settings) if field.name == name)
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"Default: {zero if shown == '0' else shown} (setting {name})."


def examples(*lines: str) -> str:
    """The end of a command's help. `\\b` keeps the parser from joining the lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


DEFAULT_COLLECTION = "Default: the one called `default` (setting collection)."
Collection = Annotated[str | None, typer.Option(
    "--collection", "-c", metavar="NAME", autocompletion=complete.collections,
    help=f"Collection to use. {DEFAULT_COLLECTION}")]
Home = Annotated[Path | None, typer.Option(
    "--home", metavar="DIR", help="Where collections live. Default: THRIFTRAG_HOME, else your user data folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of text.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens to stderr, and show where an error arose.")]
