"""Filterable fields as Qdrant payload, and filters as Qdrant conditions, with the meaning that `rag.filters.matches` defines.

Kinds never mix in a filter, so each has a part of the payload to itself and an index that knows all of its values:

    {"row": 7, "generation": 3, "string": {"source": "a.md", "metadata.tags": ["x", "y"]}, "integer": {"metadata.year": 2020}}

Numbers that are whole are `integer`, all others `number`; booleans are 0 and 1, because the embedded shard takes true in a
condition for 1. What no document has cannot match: conditions on such a field are
decided here and never sent. Qdrant has no order of strings; a range of them becomes the rows that the store says it matches.
Where a condition cannot be said exactly, it says a little too much, never too little: the reader checks every result.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator

from indexers.fields import rows_of
from indexers.qdrant_points import Condition
from rag.filters import And, Equals, Exists, Fields, Filter, In, Not, Or, Range
from rag.filters.values import amount, field_key

KINDS = ("string", "integer", "number", "boolean")

# A condition, or what is known of it without asking.
Verdict = Condition | bool
Place = tuple[str, str | int | float]
# Rows whose documents a range of strings matches; None where they are too many to name.
RowsOf = Callable[[Range], Collection[int] | None]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1
# Whole numbers up to here are doubles as they are.
_EXACT = 1 << 53


def payload(fields: Fields) -> dict[str, object]:
    """What the points of a document carry besides their row."""
    parts: dict[str, dict[str, list[object]]] = {}
    for key, kind, value in rows_of(fields):
        part, stored = _place(kind, value)
        parts.setdefault(part, {}).setdefault(_name(key), []).append(stored)
    return {part: {name: values[0] if len(values) == 1 else values for name, values in named.items()}
            for part, named in parts.items()}


def paths(carried: Condition) -> dict[str, str]:
    """The path of every field in a payload, as conditions and indexes write it, with the kind of index it takes."""
    found: dict[str, str] = {}
    for kind in KINDS:
        named = carried.get(kind)
        if isinstance(named, dict):
            found.update((_path(kind, name), "integer" if kind == "boolean" else kind) for name in named)
    return found


def field_path(kind: str, field: str) -> str:
    return _path(kind, _name(field_key(field)))


def condition(where: Filter, *, known: Collection[str], rows: RowsOf) -> Verdict:
    """What to send for `where`: True to send nothing, False where nothing can match. `known`: paths that some point has."""
    return _Translation(known, rows).of(where, widen=True)


def filtered(verdict: Condition) -> Condition:
    """A condition where a whole filter is wanted."""
    return verdict if verdict.keys() <= {"must", "should", "must_not"} else {"must": [verdict]}


class _Translation:
    """`widen`: an inexact condition may hold for more documents than it should; under a `Not`, for fewer."""

    def __init__(self, known: Collection[str], rows: RowsOf) -> None:
        self._known = known
        self._rows = rows

    def of(self, where: Filter, *, widen: bool) -> Verdict:
        match where:
            case And(parts=parts):
                return _every(self.of(part, widen=widen) for part in parts)
            case Or(parts=parts):
                return _either(self.of(part, widen=widen) for part in parts)
            case Not(part=part):
                verdict = self.of(part, widen=not widen)
                return not verdict if isinstance(verdict, bool) else {"must_not": [verdict]}
            case Equals(field=field, value=value, kind=kind):
                return self._any_of(field, [_place(kind, amount(value))])
            case In(field=field, values=values, kinds=kinds):
                return self._any_of(field, [_place(kind, amount(value)) for kind, value in zip(kinds, values, strict=True)])
            case Exists(field=field):
                return _either(self._there(field_path(kind, field)) for kind in KINDS)
            case Range(kind="s"):
                return self._string_range(where, widen=widen)
            case Range(field=field):
                return _either([self._on(field_path("integer", field), _integer_bounds(where, widen=widen)),
                                self._on(field_path("number", field), _double_bounds(where))])

    def _any_of(self, field: str, places: Iterable[Place]) -> Verdict:
        by_kind: dict[str, list[str | int | float]] = {}
        for kind, value in places:
            by_kind.setdefault(kind, []).append(value)
        return _either(verdict for kind, values in by_kind.items()
                       for verdict in self._matches(field_path(kind, field), kind, values))

    def _matches(self, path: str, kind: str, values: list[str | int | float]) -> list[Verdict]:
        if path not in self._known:
            return [False]
        if kind == "number":
            return [{"key": path, "range": {"gte": value, "lte": value}} for value in values]
        if len(values) == 1:
            return [{"key": path, "match": {"value": values[0]}}]
        return [{"key": path, "match": {"any": values}}]

    def _there(self, path: str) -> Verdict:
        return path in self._known and {"must_not": [{"is_empty": {"key": path}}]}

    def _on(self, path: str, bounds: dict[str, float] | None) -> Verdict:
        """`bounds`: None where no value lies within; empty where every value does."""
        if path not in self._known or bounds is None:
            return False
        return {"key": path, "range": bounds} if bounds else self._there(path)

    def _string_range(self, where: Range, *, widen: bool) -> Verdict:
        path = field_path("string", where.field)
        if path not in self._known:
            return False
        rows = self._rows(where)
        if rows is None:
            return self._there(path) if widen else False
        return {"has_id": sorted(rows)} if rows else False


def _place(kind: str, value: str | int | float) -> Place:
    """The part of the payload that holds a plain value, and how it is written there."""
    if kind == "s":
        return "string", value
    if kind == "b":
        return "boolean", int(value)
    number = float(value) if isinstance(value, float) else int(value)
    if isinstance(number, int) or (number.is_integer() and _LEAST <= number <= _MOST):
        return "integer", int(number)
    # JSON has no infinity: the largest double stands for it.
    return "number", max(-sys.float_info.max, min(sys.float_info.max, number))


def _name(key: str) -> str:
    """A field's name in the payload. Paths cannot hold a quotation mark, not even escaped."""
    return key.replace("%", "%25").replace('"', "%22").replace("\\", "%5C")


def _path(kind: str, name: str) -> str:
    return f"{kind}.{name}" if _BARE.fullmatch(name) else f'{kind}."{name}"'


def _integer_bounds(where: Range, *, widen: bool) -> dict[str, float] | None:
    """The same range for whole numbers, both ends included. Beyond 2**53, where Qdrant's doubles have gaps, `widen` says
    which way an end that falls into one moves."""
    low, high = _LEAST, _MOST
    for name, bound in _bounds(where):
        match name:
            case "gt":
                low = math.floor(bound) + 1
            case "gte":
                low = math.ceil(bound)
            case "lt":
                high = math.ceil(bound) - 1
            case "lte":
                high = math.floor(bound)
    if low > min(high, _MOST) or high < _LEAST:
        return None     # no integer of 64 bits lies within, and Qdrant would take a bound beyond them for the last one
    bounds = {}
    if low > _LEAST:
        bounds["gte"] = _outward(low, -math.inf if widen else math.inf)
    if high < _MOST:
        bounds["lte"] = _outward(high, math.inf if widen else -math.inf)
    return bounds


def _bounds(where: Range) -> Iterator[tuple[str, int | float]]:
    for name, bound in (("gt", where.gt), ("gte", where.gte), ("lt", where.lt), ("lte", where.lte)):
        if isinstance(bound, int | float):
            found = amount(bound)
            assert not isinstance(found, str), "a number stays one"
            yield name, found


def _outward(bound: int, towards: float) -> float:
    return float(bound) if abs(bound) < _EXACT else math.nextafter(float(bound), towards)


def _double_bounds(where: Range) -> dict[str, float]:
    """The same range for doubles: a bound between two of them moves to the one that leaves the same doubles inside."""
    bounds = {}
    for name, bound in _bounds(where):
        nearest = float(bound)
        if nearest < bound:
            name = "gt" if name in ("gt", "gte") else "lte"
        elif nearest > bound:
            name = "gte" if name in ("gt", "gte") else "lt"
        bounds[name] = nearest
    return bounds


def _every(verdicts: Iterable[Verdict]) -> Verdict:
    return _joined(verdicts, "must", decides=False)


def _either(verdicts: Iterable[Verdict]) -> Verdict:
    return _joined(verdicts, "should", decides=True)


def _joined(verdicts: Iterable[Verdict], how: str, *, decides: bool) -> Verdict:
    open_ones: list[Condition] = []
    for verdict in verdicts:
        if isinstance(verdict, bool):
            if verdict is decides:
                return decides
        else:
            open_ones.append(verdict)
    if not open_ones:
        return not decides
    return open_ones[0] if len(open_ones) == 1 else {how: open_ones}
