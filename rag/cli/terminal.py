"""What reaches the terminal. Text from documents and models is data: it can neither steer the terminal nor be markup."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# C0 and C1 controls except tab and newline, and the marks that reorder the text around them.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SURROGATES = re.compile("[\ud800-\udfff]")
# Legal inside JSON strings, but not harmless on a terminal, or not encodable.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Into a pipe nothing is wrapped: a line stays a line for grep.
_UNWRAPPED = 10_000
# The stdout that `json_only` keeps for the one object.
_reserved: list[TextIO] = []


def clean(text: str) -> str:
    """Without control characters; tabs and newlines stay. Halves of surrogate pairs become U+FFFD."""
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))


def one_line(text: str, *, limit: int | None = None) -> str:
    """Cleaned, every run of white space one space, cut with an ellipsis after `limit` characters."""
    flat = " ".join(clean(text).split())
    return flat if limit is None or len(flat) <= limit else flat[:limit - 1].rstrip() + "…"


def interactive(stream: TextIO) -> bool:
    """Whether a person watches `stream` on a terminal that can redraw a line."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def console(stream: TextIO) -> Console:
    """A console that prints text as it is: no markup, no emoji names, no guessed highlights. Honours NO_COLOR."""
    from rich.console import Console

    wrapped = stream.isatty() or "COLUMNS" in os.environ
    return Console(file=stream, markup=False, emoji=False, highlight=False, width=None if wrapped else _UNWRAPPED)


@contextmanager
def json_only() -> Iterator[None]:
    """Inside, what anybody else prints goes to stderr: stdout is for `print_json` alone."""
    _reserved.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _reserved.pop()


def print_json(value: object) -> None:
    """One JSON object on stdout: a line of its own in a pipe, indented for a person."""
    stream = _reserved[-1] if _reserved else sys.stdout
    text = json.dumps(value, ensure_ascii=False, default=_plain, indent=2 if stream.isatty() else None)
    stream.write(_UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found.group()):04x}", text) + "\n")


def flush() -> None:
    """Sends on what `print_json` has written, for commands that go on after it."""
    (_reserved[-1] if _reserved else sys.stdout).flush()


def _plain(value: object) -> object:
    """Numpy scalars as numbers, our own values by their `to_dict`, the rest as text."""
    for method in ("to_dict", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)
