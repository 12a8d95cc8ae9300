"""Filterable fields in SQLite: one row for each value of a document, in one tree ordered by field, kind and value.

Every simple filter is one search in that tree; `tests/property/test_filter_laws.py` proves that it finds what
`rag.filters.matches` says. And, Or and Not are set operations on masks over document numbers: SQLite's own INTERSECT and
EXCEPT sort each side into a temporary table and take two to four times as long from 100k documents on. The numbers leave
SQLite as one string (`group_concat`), which numpy parses: 0.1 us each, a third of what fetching rows takes.

Documents are numbered in the table `documents (number INTEGER PRIMARY KEY, ...)`; its numbers may have holes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rag.filters import And, Equals, Exists, Fields, Filter, In, Not, Or, Range
from rag.filters.values import Kind, amount, field_key, nameable, plains

Mask = NDArray[np.bool_]
Row = tuple[str, Kind, str | int | float]

SCHEMA = """
CREATE TABLE fields (key TEXT NOT NULL, kind TEXT NOT NULL, value NOT NULL, document INTEGER NOT NULL,
    PRIMARY KEY (key, kind, value, document)) WITHOUT ROWID;
"""


def rows_of(fields: Fields) -> list[Row]:
    """Key, kind and value of each row of one document, without repetitions: to insert, and to delete by, when it goes.

    What no filter can ask for leaves no row: None, NaN, and fields whose names cannot be given.
    """
    rows: dict[Row, None] = {}
    for name, value in fields.items():
        key = field_key(name)
        if nameable(name) and (key == name or key not in fields):
            rows.update(dict.fromkeys((key, *item) for item in plains(value)))
    return list(rows)


def select(where: Equals | In | Range | Exists) -> tuple[str, list[str | int | float]]:
    """A query for the column `document` of every match, with its parameters; a document with a list may come up repeatedly."""
    key = field_key(where.field)
    query = "SELECT document FROM fields WHERE key = ?"
    match where:
        case Exists():
            return query, [key]
        case Equals(value=value, kind=kind):
            return f"{query} AND kind = ? AND value = ?", [key, kind, amount(value)]
        case In():
            return _select_any(where, key)
        case Range(kind=kind):
            bounds = [(sign, bound) for sign, bound in ((">", where.gt), (">=", where.gte), ("<", where.lt), ("<=", where.lte))
                      if bound is not None]
            within = "".join(f" AND value {sign} ?" for sign, _ in bounds)
            return f"{query} AND kind = ?{within}", [key, kind, *(amount(bound) for _, bound in bounds)]


def mask_where(db: sqlite3.Connection, where: Filter) -> Mask:
    """Which document numbers match: an array indexed by number, one longer than the largest. Numbers not in use are False."""
    (largest,) = db.execute("SELECT max(number) FROM documents").fetchone()
    mask = _mask(db, where, 0 if largest is None else largest + 1)
    if _negates(where):  # what is not there has no field either, and passes
        _keep_used(db, mask)
    return mask


def documents_where(db: sqlite3.Connection, where: Filter) -> NDArray[np.int64]:
    """The numbers of the matching documents, ascending."""
    return np.flatnonzero(mask_where(db, where)).astype(np.int64, copy=False)


def _mask(db: sqlite3.Connection, where: Filter, size: int) -> Mask:
    """As `mask_where`, but what a number not in use says is undefined."""
    match where:
        case And(parts=parts):
            mask = _mask(db, parts[0], size)
            for part in parts[1:]:
                if not mask.any():
                    break
                mask &= _mask(db, part, size)
            return mask
        case Or(parts=parts):
            mask = _mask(db, parts[0], size)
            for part in parts[1:]:
                mask |= _mask(db, part, size)
            return mask
        case Not(part=part):
            return ~_mask(db, part, size)
        case _:
            mask = np.zeros(size, np.bool_)
            mask[_numbers(db, *select(where))] = True
            return mask


def _numbers(db: sqlite3.Connection, query: str, parameters: Sequence[str | int | float] = ()) -> NDArray[np.int64]:
    """The first column of the query, in its order."""
    (listed,) = db.execute(f"SELECT group_concat(document) FROM ({query})", parameters).fetchone()
    return np.fromstring("" if listed is None else str(listed), np.int64, sep=",")


def _keep_used(db: sqlite3.Connection, mask: Mask) -> None:
    (used,) = db.execute("SELECT count(*) FROM documents").fetchone()
    if used < len(mask):
        documents = np.zeros_like(mask)
        documents[_numbers(db, "SELECT number AS document FROM documents")] = True
        mask &= documents


def _negates(where: Filter) -> bool:
    match where:
        case Not():
            return True
        case And(parts=parts) | Or(parts=parts):
            return any(_negates(part) for part in parts)
    return False


def _select_any(where: In, key: str) -> tuple[str, list[str | int | float]]:
    """`In` by kind, so that each is one search in the tree for each value."""
    queries, parameters = [], []
    for kind in sorted(set(where.kinds)):
        values = [amount(value) for value, its in zip(where.values, where.kinds, strict=True) if its == kind]
        queries.append(f"SELECT document FROM fields WHERE key = ? AND kind = ? AND value IN ({', '.join('?' * len(values))})")
        parameters += [key, kind, *values]
    return " UNION ALL ".join(queries), parameters
