"""What a field may hold, when two values are the same, and what a field is called: shared by every reader of a filter.

Kinds never mix: `s` strings, `n` numbers, `b` booleans. 1 equals 1.0, but neither "1" nor True. Strings compare by code point, so
ISO dates ("2024-05-01") compare as dates do. To mean the same in memory and in any index, values are brought to a plain form:
integers outside 64 bits become the nearest double, a lone surrogate becomes "?", and of a string longer than `LONGEST`
characters the first `LONGEST` and a digest of the whole count: equality stays exact, order is by those characters.
None and NaN are no value at all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Literal

from rag.types import FieldValue, Scalar

Value = str | int | float | bool
Kind = Literal["s", "n", "b"]
Plain = tuple[Kind, str | int | float]
Fields = Mapping[str, FieldValue]

BUILT_IN = ("id", "source", "title", "language", "media_type", "added")
METADATA = "metadata."
LONGEST = 1000
LONGEST_NAME = 256


def field_key(name: str) -> str:
    """The one spelling of a field: built-in names as they are, anything else under `metadata.`."""
    return name if name in BUILT_IN or name.startswith(METADATA) else METADATA + name


def nameable(name: str) -> bool:
    """Whether a filter can ask for a field of this name; metadata may hold others, which are kept and shown but not searched."""
    return name not in ("", METADATA) and len(field_key(name)) <= LONGEST_NAME and encodable(name)


def encodable(text: str) -> bool:
    """No lone surrogates."""
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def plain(value: Scalar) -> Plain | None:
    """Kind and comparable form of one value; None where there is nothing to compare."""
    if isinstance(value, bool):
        return "b", int(value)
    if isinstance(value, str):
        return "s", _text(value)
    if isinstance(value, int):
        return "n", value if -(1 << 63) <= value < 1 << 63 else _double(value)
    if value is None or math.isnan(value):
        return None
    return "n", value


def amount(value: Value) -> str | int | float:
    """The comparable form alone, of a value that a filter holds: such a one is never None nor NaN."""
    found = plain(value)
    assert found is not None, "filters are checked when they are made"
    return found[1]


def plains(value: FieldValue) -> Iterator[Plain]:
    """The same for a value or each item of a list, in order; nothing for what is absent."""
    for item in value if isinstance(value, tuple | list) else (value,):
        found = plain(item)
        if found is not None:
            yield found


def _text(value: str) -> str:
    if not value.isascii():
        value = value.encode("utf-8", "replace").decode("utf-8")
    if len(value) <= LONGEST:
        return value
    return value[:LONGEST] + hashlib.sha256(value.encode("utf-8")).hexdigest()


def _double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
