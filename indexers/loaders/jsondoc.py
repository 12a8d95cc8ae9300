"""JSON: an array of records like JSON Lines becomes a document each; anything else becomes one document of readable lines.

Each line names its place, so that it can be read alone: `server.port: 8080`. The keys of the outermost object that hold
more than a value are headings; an object in an array is one line, like a table's row, or a heading of its own where objects
of the array hold prose. Empty values are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from indexers.loaders.jsonl import Entry, refuse_constant
from indexers.loaders.outline import Page, Parsed
from indexers.loaders.reading import damaged, decode
from rag.settings import Settings

# Deeper nesting than any person writes; the recursion below stays far from Python's limit.
_MAX_DEPTH = 100
# A longer text is prose: it gets paragraphs, and is split at sentence ends.
_PROSE_CHARS = 300
_NAMES = ("title", "name", "label", "heading", "key", "id")

Leaf = tuple[str, str]          # path and value


def parse(data: bytes, *, name: str, settings: Settings) -> Parsed:
    """Title: the outermost object's "title" or "name".

    Raises:
        UnsupportedFile: not JSON, or nested too deeply.
    """
    return written(value_of(data))


def value_of(data: bytes) -> object:
    """
    Raises:
        UnsupportedFile: not JSON, or nested too deeply.
    """
    try:
        value = json.loads(decode(data), parse_constant=refuse_constant)
    except RecursionError as error:
        raise damaged("JSON file", "it is nested too deeply") from error
    except ValueError as error:
        raise damaged("JSON file", str(error)) from error
    if _deeper_than(value, _MAX_DEPTH):
        raise damaged("JSON file", f"it is nested in more than {_MAX_DEPTH} levels")
    return value


def are_records(value: object) -> bool:
    """Whether it is an array of objects that all have a "text"."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and isinstance(item.get("text"), str)
                                                           for item in value)


def entries(value: object, source: str) -> Iterator[Entry]:
    """The records of such an array, counted from 1."""
    for number, item in enumerate(cast(Sequence[Mapping[str, object]], value), start=1):
        yield f"{source}:{number}", lambda item=item: (item, json.dumps(item, sort_keys=True).encode())  # type: ignore[misc]


def written(value: object) -> Parsed:
    """One document of all that the value holds."""
    page = Page()
    title = ""
    if isinstance(value, dict):
        title = next((value[key] for key in _NAMES[:2] if isinstance(value.get(key), str)), "")
        _write(page, [leaf for key, item in value.items() if _is_plain(item) for leaf in _leaves(item, key)])
        for key, item in value.items():
            if not _is_plain(item) and any(_leaves(item, "")):
                page.heading(1, key)
                _write_value(page, item, level=2)
    else:
        _write_value(page, value, level=1)
    return page.parsed(title, media_type="application/json")


def _write_value(page: Page, value: object, *, level: int) -> None:
    if not isinstance(value, list) or _is_plain(value):
        _write(page, list(_leaves(value, "")))
        return
    held = [(item, leaves) for item in value if (leaves := list(_leaves(item, "")))]
    if any(_is_prose(text) for _, leaves in held for _, text in leaves):
        for number, (item, leaves) in enumerate(held, start=1):
            page.heading(level, _name_of(item) or f"{number}")
            _write(page, leaves)
    else:
        page.rows(["; ".join(map(_line, leaves)) for _, leaves in held])


def _write(page: Page, leaves: Sequence[Leaf]) -> None:
    lines: list[str] = []
    for leaf in leaves:
        if _is_prose(leaf[1]):
            page.rows(lines)
            lines = []
            page.paragraph(_line(leaf))
        else:
            lines.append(_line(leaf))
    page.rows(lines)


def _line(leaf: Leaf) -> str:
    path, text = leaf
    words = text.strip() if _is_prose(text) else " ".join(text.split())
    return f"{path}: {words}" if path else words


def _is_prose(text: str) -> bool:
    return len(text) > _PROSE_CHARS


def _leaves(value: object, path: str) -> Iterator[Leaf]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and not _is_plain(value):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{path}[{number}]")
    elif isinstance(value, list):
        text = ", ".join(_shown(item) for item in value if item is not None)
        if text:
            yield path, text
    elif value is not None and value != "":
        yield path, _shown(value)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    return json.dumps(value)


def _is_plain(value: object) -> bool:
    """One value, or a list of such."""
    return not isinstance(value, dict | list) or (
        isinstance(value, list) and not any(isinstance(item, dict | list) for item in value))


def _name_of(value: object) -> str:
    if not isinstance(value, dict):
        return ""
    return next((_shown(value[key]) for key in _NAMES if isinstance(value.get(key), str | int) and value[key]), "")


def _deeper_than(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for item in level if isinstance(item, dict | list)
                 for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True
