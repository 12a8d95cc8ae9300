"""The seven filters: frozen values, checked when they are made, so that whoever receives one need not check again.

A filter that can be built can be answered by every backend. Two filters are equal when they ask for the same fields and
values, spelled the same; True and 1 are different values although Python calls them equal.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from rag.errors import InputError
from rag.filters.values import LONGEST_NAME, METADATA, Kind, Value, amount, encodable, nameable, plain

DEEPEST = 32
LARGEST = 1000              # filters and values together


@dataclass(frozen=True, slots=True)
class Equals:
    """The field, or an item of it, is this value."""

    field: str
    value: Value
    kind: Kind = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_name(self.field)
        object.__setattr__(self, "kind", _kind(self.field, self.value))

    def __str__(self) -> str:
        return _text(self)


@dataclass(frozen=True, slots=True)
class In:
    """The field, or an item of it, is one of these values."""

    field: str
    values: tuple[Value, ...]
    kinds: tuple[Kind, ...] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_name(self.field)
        object.__setattr__(self, "values", _several(self.values, f"The values of {self.field!r}", "values"))
        object.__setattr__(self, "kinds", tuple(_kind(self.field, value) for value in self.values))
        _check_size(self)

    def __str__(self) -> str:
        return _text(self)


@dataclass(frozen=True, slots=True)
class Range:
    """The field, or one item of it, lies within all bounds given: one lower, one upper or both, all numbers or all strings."""

    field: str
    gt: str | int | float | None = None
    gte: str | int | float | None = None
    lt: str | int | float | None = None
    lte: str | int | float | None = None

    def __post_init__(self) -> None:
        _check_name(self.field)
        bounds = {name: value for name, value in (("gt", self.gt), ("gte", self.gte), ("lt", self.lt), ("lte", self.lte))
                  if value is not None}
        kinds = {name: _kind(self.field, value) for name, value in bounds.items()}
        shown = ", ".join(f"{name}={value!r}" for name, value in bounds.items())
        if not bounds:
            raise invalid(f"The range of {self.field!r} has no bound.", "Give gt, gte, lt or lte.")
        if "b" in kinds.values():
            raise invalid(f"The range of {self.field!r} has a true or false as bound: {shown}.", "Ranges hold numbers or strings.")
        if len(set(kinds.values())) > 1:
            raise invalid(f"The range of {self.field!r} mixes a number and a string: {shown}.", "Use bounds of one kind.")
        if {"gt", "gte"} <= bounds.keys() or {"lt", "lte"} <= bounds.keys():
            raise invalid(f"The range of {self.field!r} has two bounds on one side: {shown}.", "Keep one of them.")
        _check_order(self, shown)

    @property
    def kind(self) -> Kind:
        """`n` or `s`, that of every bound."""
        return "s" if any(isinstance(bound, str) for bound in (self.gt, self.gte, self.lt, self.lte)) else "n"

    def __str__(self) -> str:
        return _text(self)


@dataclass(frozen=True, slots=True)
class Exists:
    """The field has a value: it is there, not None and not an empty list."""

    field: str

    def __post_init__(self) -> None:
        _check_name(self.field)

    def __str__(self) -> str:
        return _text(self)


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold; at least one part."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _filters(self.parts, "and"))
        _check_size(self)

    def __str__(self) -> str:
        return _text(self)


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part holds; at least one part."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _filters(self.parts, "or"))
        _check_size(self)

    def __str__(self) -> str:
        return _text(self)


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold: true also where its field is missing."""

    part: Filter

    def __post_init__(self) -> None:
        _filters((self.part,), "not")
        _check_size(self)

    def __str__(self) -> str:
        return _text(self)


Filter = Equals | In | Range | Exists | And | Or | Not


def invalid(message: str, hint: str) -> InputError:
    """The error of every filter that cannot be used."""
    return InputError(message, hint=hint, field="where", code="filter_invalid")


def too_deep() -> InputError:
    return invalid(f"The filter is nested deeper than {DEEPEST} levels.", "Write it flatter: and/or take many parts.")


def _check_name(name: object) -> None:
    if isinstance(name, str) and nameable(name):
        return
    if not isinstance(name, str) or name in ("", METADATA):
        raise invalid(f"A filter needs the name of a field, not {name!r}.", "Name a built-in field or one of the metadata.")
    if not encodable(name):
        raise invalid(f"The field name {shown(name)} is not valid Unicode.", "Leave out lone surrogates.")
    raise invalid(f"The field name {name[:40]!r}... has {len(name)} characters.",
                  f"Names have at most {LONGEST_NAME - len(METADATA)}.")


def _kind(name: str, value: object) -> Kind:
    if not isinstance(value, str | int | float):
        hint = "To ask for what is missing, use not exists." if value is None else "Values are strings, numbers, true and false."
        raise invalid(f"{shown(value)} is no value that {name!r} can be compared with.", hint)
    if isinstance(value, str) and not encodable(value):
        raise invalid(f"The value {shown(value)} of {name!r} is not valid Unicode.", "Leave out lone surrogates.")
    found = plain(value)
    if found is None or (isinstance(found[1], float) and math.isinf(found[1])):
        raise invalid(f"{shown(value)} is no number that {name!r} can be compared with.", "Use a finite number.")
    return found[0]


def _several(values: object, what: str, noun: str) -> tuple[object, ...]:
    if not isinstance(values, tuple | list):
        raise invalid(f"{what} are {shown(values)}, not a list of {noun}.", f"Give a list of {noun}, even for one.")
    if not values:
        raise invalid(f"{what} are an empty list.", f"Give at least one of the {noun}; nothing would match none.")
    if len(values) > LARGEST:
        raise _too_large(len(values))
    return tuple(values)


def _filters(parts: object, what: str) -> tuple[Filter, ...]:
    given = _several(parts, f"The parts of {what!r}", "filters")
    for part in given:
        if not isinstance(part, Filter):
            raise invalid(f"{shown(part)} is no filter, but a part of {what!r}.",
                          "Parts are Equals, In, Range, Exists, And, Or, Not.")
    return given  # type: ignore[return-value]  # each was just looked at


def _check_order(where: Range, shown: str) -> None:
    lower = where.gt if where.gte is None else where.gte
    upper = where.lt if where.lte is None else where.lte
    if lower is None or upper is None:
        return
    low, high = amount(lower), amount(upper)
    closed = where.gte is not None and where.lte is not None
    if low > high or (low == high and not closed):  # type: ignore[operator]  # both of one kind, as checked above
        raise invalid(f"The range of {where.field!r} is empty: {shown}.", "Let the lower bound be below the upper one.")


def _check_size(where: Filter) -> None:
    size, depth = _measure(where)
    if depth > DEEPEST:
        raise too_deep()
    if size > LARGEST:
        raise _too_large(size)


def _measure(where: Filter) -> tuple[int, int]:
    """Filters and values in it, and its depth. Parts are within the limits already, so the recursion is bounded."""
    match where:
        case In(values=values):
            return 1 + len(values), 1
        case And(parts=parts) | Or(parts=parts):
            inner = [_measure(part) for part in parts]
            return 1 + sum(size for size, _ in inner), 1 + max(depth for _, depth in inner)
        case Not(part=part):
            size, depth = _measure(part)
            return 1 + size, 1 + depth
    return 1, 1


def _too_large(size: int) -> InputError:
    return invalid(f"The filter has {size} parts and values.", f"At most {LARGEST} are taken: ask several times, or mark the "
                   "documents with one metadata value.")


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _text(where: Filter) -> str:
    from rag.filters.printing import text

    return text(where)
