"""Filters as JSON, for REST and Python dictionaries.

    {"field": "year", "gte": 2020, "lt": 2025}      {"field": "lang", "in": ["en", "de"]}      {"field": "draft", "exists": false}
    {"and": [...]}   {"or": [...]}   {"not": {...}}
    {"lang": "en", "year": {"gte": 2020}}           short: all of these hold; a list means `in`

In the short form a key is a field, so a field called like an operator ("in", "and", "field") needs the long one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from rag.errors import InputError
from rag.filters.terms import DEEPEST, And, Equals, Exists, Filter, In, Not, Or, Range, invalid, shown, too_deep

_BOUNDS = ("gt", "gte", "lt", "lte")
_OPERATORS = ("equals", "in", *_BOUNDS, "exists")
_JOINS = ("and", "or", "not")


def from_json(value: object) -> Filter:
    """The filter that a JSON value says.

    Raises:
        InputError: it says none; an unknown operator is named with the nearest known one.
    """
    return _read(value, DEEPEST)


def to_json(where: Filter) -> dict[str, object]:
    """The long form, which `from_json` reads back to an equal filter."""
    match where:
        case Equals(field=name, value=value):
            return {"field": name, "equals": value}
        case In(field=name, values=values):
            return {"field": name, "in": list(values)}
        case Range(field=name):
            return {"field": name, **{bound: getattr(where, bound) for bound in _BOUNDS if getattr(where, bound) is not None}}
        case Exists(field=name):
            return {"field": name, "exists": True}
        case And(parts=parts):
            return {"and": [to_json(part) for part in parts]}
        case Or(parts=parts):
            return {"or": [to_json(part) for part in parts]}
        case Not(part=part):
            return {"not": to_json(part)}


def _read(value: object, levels: int) -> Filter:
    if levels == 0:
        raise too_deep()
    if not isinstance(value, Mapping):
        raise invalid(f"{shown(value)} is no filter.", 'Filters are objects, such as {"field": "year", "gte": 2020}.')
    if not value:
        raise invalid("The filter is an empty object.", "Leave the filter out to search everything.")
    if "field" in value:
        return _conditions(value["field"], {key: its for key, its in value.items() if key != "field"})
    return _all([_entry(key, its, levels) for key, its in value.items()])


def _entry(key: object, value: object, levels: int) -> Filter:
    """One key of an object: a join, or a field with what it must be."""
    if key == "not":
        return Not(_read(value, levels - 1))
    if key in ("and", "or"):
        if not isinstance(value, list | tuple):
            raise invalid(f"{key!r} is given {shown(value)}.", "Give it a list of filters.")
        parts = tuple(_read(part, levels - 1) for part in value)
        return And(parts) if key == "and" else Or(parts)
    if key in _OPERATORS:
        raise invalid(f"{key!r} is an operator and stands without a field.", f'Write {{"field": NAME, "{key}": ...}}.')
    if isinstance(value, Mapping):
        return _conditions(key, value)
    return _conditions(key, {"in" if isinstance(value, list | tuple) else "equals": value})


def _conditions(name: object, given: Mapping[object, object]) -> Filter:
    """What one field must fulfil: bounds make one range, everything else a filter of its own."""
    for key in given:
        if key not in _OPERATORS:
            raise _unknown(key, f"for the field {shown(name)}")
    if not given:
        raise invalid(f"The field {shown(name)} is not compared with anything.", f"Give one of {', '.join(_OPERATORS)}.")
    field: str = name  # type: ignore[assignment]  # the filters check it
    found: list[Filter] = []
    if "equals" in given:
        found.append(Equals(field, given["equals"]))  # type: ignore[arg-type]  # as are values
    if "in" in given:
        found.append(In(field, given["in"]))  # type: ignore[arg-type]
    bounds = {bound: given[bound] for bound in _BOUNDS if bound in given}
    if bounds:
        for bound, value in bounds.items():
            if value is None:
                raise invalid(f"The bound {bound!r} of {field!r} is null.", "Leave it out, or give a number or a string.")
        found.append(Range(field, **bounds))  # type: ignore[arg-type]
    if "exists" in given:
        found.append(_existence(field, given["exists"]))
    return _all(found)


def _existence(field: str, wanted: object) -> Filter:
    if not isinstance(wanted, bool):
        raise invalid(f"'exists' of {field!r} is {shown(wanted)}.", "Write true or false.")
    return Exists(field) if wanted else Not(Exists(field))


def _all(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _unknown(key: object, where: str) -> InputError:
    near = difflib.get_close_matches(str(key), _OPERATORS, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(_OPERATORS)}."
    return invalid(f"Unknown operator {shown(key)} {where}.", hint)
