"""Laws of filters over random ones: text and JSON read back, SQLite finds exactly what the reference says, negation is whole."""

from __future__ import annotations

import json
import sqlite3

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from indexers import fields as stored
from rag.errors import InputError
from rag.filters import And, Equals, Exists, Filter, In, Not, Or, Range, from_json, matches, parse, to_json
from rag.filters.values import Value
from rag.types import FieldValue

NAMES = ("id", "title", "metadata.title", "metadata.year", "year", "metadata.tags", "metadata.metadata.year")
LONG = "x" * 1000

# Few names and values for what is compared, so that filters and documents meet; any at all for what is only read back.
some_numbers = st.sampled_from((0, 1, 1.0, 2, 0.5, -0.0, 2 ** 63 - 1, 2 ** 63, 2 ** 63 + 1, 2.0 ** 63, -2 ** 63 - 1))
some_words = st.sampled_from(("", "1", "a", "b", "é", "\uffff", "\U0001f600", "a\0b", LONG, LONG + "a", LONG + "b"))
some_values: st.SearchStrategy[Value] = st.one_of(some_numbers, some_words, st.booleans())
held_values = st.one_of(some_values, st.sampled_from((None, float("nan"), float("inf"), 10 ** 400, "\ud800", "a\ud800")))
held_fields: st.SearchStrategy[FieldValue] = st.one_of(held_values, st.lists(held_values, max_size=4).map(tuple))
documents = st.lists(st.dictionaries(st.sampled_from(NAMES), held_fields, max_size=5), max_size=6)
any_names = st.one_of(st.sampled_from(("and", "exists", "ti`ck", "1st", "né_e-1.x", "page count", *NAMES)),
                      st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6))
any_values: st.SearchStrategy[Value] = st.one_of(
    some_values, st.text(st.sampled_from("a1 \"'`,()\\\n"), max_size=6), st.text(max_size=4), st.integers(),
    st.floats(allow_nan=False, allow_infinity=False))


@st.composite
def ranges(draw: st.DrawFn, *, names: st.SearchStrategy[str]) -> Filter:
    bounds = draw(st.one_of(st.lists(some_numbers, min_size=2, max_size=2), st.lists(some_words, min_size=2, max_size=2)))
    low, high = sorted(bounds)
    sides: dict[str, Value] = draw(st.sampled_from((
        {"gt": low}, {"gte": low}, {"lt": low}, {"lte": low}, {"gte": low, "lte": high}, {"gt": low, "lt": high},
        {"gte": low, "lt": high}, {"gt": low, "lte": high})))
    try:
        return Range(draw(names), **sides)
    except InputError:  # bounds that leave nothing between them
        return Exists("title")


def filters(names: st.SearchStrategy[str], values: st.SearchStrategy[Value]) -> st.SearchStrategy[Filter]:
    leaves: st.SearchStrategy[Filter] = st.one_of(
        st.builds(Equals, names, values), ranges(names=names), st.builds(Exists, names),
        st.builds(In, names, st.lists(values, min_size=1, max_size=4).map(tuple)))
    return st.recursive(leaves, lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Or(tuple(parts))), st.builds(Not, inner)), max_leaves=6)


any_filters = filters(any_names, any_values)
meeting_filters = filters(st.sampled_from(NAMES), some_values)


@given(any_filters)
@example(And((And((Equals("a", 1), Not(Or((Exists("and"),))))),)))
@example(In("`", ('say "so"', "it's", "\\")))
def test_the_text_of_a_filter_parses_to_an_equal_filter(where: Filter) -> None:
    assert parse(str(where)) == where


@given(any_filters)
def test_the_json_of_a_filter_reads_back_to_an_equal_filter(where: Filter) -> None:
    assert from_json(json.loads(json.dumps(to_json(where)))) == where


@given(st.text(st.sampled_from("ab1 =!<>(),\"'`-.and or not in exists"), max_size=40))
def test_any_text_parses_or_is_refused_with_its_place(text: str) -> None:
    try:
        where = parse(text)
    except InputError as error:
        refused = error
    else:
        assert parse(str(where)) == where
        return
    assert refused.code == "filter_invalid"
    assert refused.hint
    assert "^" in refused.message or not text.strip()


def database(held: list[dict[str, FieldValue]], *, numbers: list[int]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript("CREATE TABLE documents (number INTEGER PRIMARY KEY, text TEXT);" + stored.SCHEMA)
    for number, fields in zip(numbers, held, strict=True):
        db.execute("INSERT INTO documents (number) VALUES (?)", (number,))
        db.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)", [(*row, number) for row in stored.rows_of(fields)])
    return db


@settings(max_examples=600, deadline=None)
@given(documents, meeting_filters, st.sampled_from((0, 1, 3)))
def test_sqlite_finds_what_the_reference_says(held: list[dict[str, FieldValue]], where: Filter, gap: int) -> None:
    numbers = [gap + at * (1 + gap) for at in range(len(held))]
    db = database(held, numbers=numbers)
    found = stored.documents_where(db, where)
    assert found.dtype == np.int64
    assert found.tolist() == [number for number, fields in zip(numbers, held, strict=True) if matches(where, fields)]


@given(documents, meeting_filters)
def test_every_document_passes_a_filter_or_its_negation(held: list[dict[str, FieldValue]], where: Filter) -> None:
    assert all(matches(where, fields) != matches(Not(where), fields) for fields in held)


@given(documents)
def test_the_rows_of_a_document_can_be_deleted_by_its_fields(held: list[dict[str, FieldValue]]) -> None:
    db = database(held, numbers=list(range(len(held))))
    for number, fields in enumerate(held):
        db.executemany("DELETE FROM fields WHERE key = ? AND kind = ? AND value = ? AND document = ?",
                       [(*row, number) for row in stored.rows_of(fields)])
    assert db.execute("SELECT count(*) FROM fields").fetchone() == (0,)
