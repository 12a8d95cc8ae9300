"""The reference semantics: does a document with these fields pass the filter? Every index must agree with it."""

from __future__ import annotations

import operator
from collections.abc import Iterator

from rag.filters.terms import And, Equals, Exists, Filter, In, Not, Or, Range
from rag.filters.values import BUILT_IN, METADATA, Fields, Plain, amount, field_key, plain, plains


def matches(where: Filter, fields: Fields) -> bool:
    """Whether `where` holds for these fields.

    Keys of `fields`: built-in names as they are, metadata under `metadata.` or, where that is no built-in name, bare.
    A missing field equals nothing, lies in no range and does not exist; `Not` is plain negation, so it holds there.
    A list matches when any item does; a range wants one item within all its bounds.
    """
    match where:
        case Equals(field=name, value=value, kind=kind):
            return any(found == (kind, amount(value)) for found in _values(fields, name))
        case In(field=name, values=values):
            wanted = {plain(value) for value in values}
            return any(value in wanted for value in _values(fields, name))
        case Range(field=name):
            return any(_within(where, value) for value in _values(fields, name))
        case Exists(field=name):
            return any(True for _ in _values(fields, name))
        case And(parts=parts):
            return all(matches(part, fields) for part in parts)
        case Or(parts=parts):
            return any(matches(part, fields) for part in parts)
        case Not(part=part):
            return not matches(part, fields)


def _values(fields: Fields, name: str) -> Iterator[Plain]:
    key = field_key(name)
    bare = key.removeprefix(METADATA)
    if key not in fields and bare not in BUILT_IN and not bare.startswith(METADATA):
        key = bare
    return plains(fields.get(key))


def _within(where: Range, value: Plain) -> bool:
    kind, given = value
    bounds = (where.gt, operator.gt), (where.gte, operator.ge), (where.lt, operator.lt), (where.lte, operator.le)
    return kind == where.kind and all(holds(given, amount(bound)) for bound, holds in bounds if bound is not None)
