"""Filters: what matches, what is refused and how it is said, the JSON and text forms, and that SQLite searches and never scans."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest

from indexers import fields as stored
from rag.errors import InputError
from rag.filters import And, Equals, Exists, Filter, In, Not, Or, Range, as_filter, field_key, from_json, matches, parse, to_json
from rag.filters.terms import DEEPEST, LARGEST
from rag.types import FieldValue

BOOK: dict[str, FieldValue] = {
    "id": "b1", "title": "Guide", "language": "en", "added": "2024-05-01T10:00:00Z", "metadata.title": "My own",
    "metadata.year": 2020, "metadata.price": 9.5, "metadata.draft": False, "metadata.tags": ("a", "b", None, 7),
    "metadata.none": None, "metadata.empty": (), "metadata.zip": "01234", "metadata.nan": float("nan"), "metadata.in": 1,
}


@pytest.mark.parametrize(("text", "expected"), [
    ("year = 2020", True), ("year = 2020.0", True), ('year = "2020"', False), ("metadata.year = 2020", True),
    ("year != 2021", True),
    ("draft = false", True), ("draft = 0", False), ("draft in (0, 1)", False), ("draft in (0, false)", True),
    ("title = Guide", True), ("metadata.title = Guide", False), ('metadata.title = "My own"', True), ("metadata.id = b1", False),
    ("tags = a", True), ("tags = 7", True), ("tags = c", False), ("tags in (c, b)", True), ("tags > 6", True),
    ('tags > "aa"', True),
    ("tags between 1 and 6", False), ('"aa" <= tags < "b"', False),
    ("year >= 2020", True), ("year > 2020", False), ("2019 < year <= 2020", True), ('year >= "2020"', False),
    ("price < 10", True),
    ("draft >= 0", False), ("zip = 01234", True), ("zip = 1234", False),
    ("added >= 2024-05-01", True), ("added < 2024-05-01", False), ("added between 2024-01-01 and 2024-12-31", True),
    ("exists(year)", True), ("exists(none)", False), ("exists(empty)", False), ("exists(nan)", False), ("exists(gone)", False),
    ("gone = 1", False), ("gone != 1", True), ("not gone > 1", True), ("gone not in (1)", True), ("none != 1", True),
    ("`in` = 1", True), ("metadata.in = 1", True),
    ("year = 2020 and title = Guide", True), ("year = 2020 and title = Other", False), ("year = 1 or title = Guide", True),
    ("year = 1 or year = 2", False), ("not (year = 2020 and title = Other)", True), ("all(year = 2020)", True),
    ("any(year = 1)", False),
])
def test_what_matches(text: str, expected: bool) -> None:
    assert matches(parse(text), BOOK) is expected


def test_metadata_may_be_given_under_its_bare_name() -> None:
    assert matches(parse("year = 2020"), {"year": 2020})
    assert matches(parse("metadata.year = 2020"), {"year": 2020})
    assert not matches(parse("metadata.title = x"), {"title": "x"})
    assert not matches(parse("metadata.metadata.year = 1"), {"metadata.year": 1})
    assert [field_key(name) for name in ("id", "year", "metadata.year", "metadata.id")] == [
        "id", "metadata.year", "metadata.year", "metadata.id"]


def test_and_binds_closer_than_or_and_parentheses_bind_closest() -> None:
    a, b, c = Equals("a", 1), Equals("b", 2), Equals("c", 3)
    assert parse("a=1 or b=2 and c=3") == Or((a, And((b, c))))
    assert parse("(a=1 or b=2) and c=3") == And((Or((a, b)), c))
    assert parse("not a=1 and b=2") == And((Not(a), b))
    assert parse("a=1 AND b == 2 Or NOT c=3") == Or((And((a, b)), Not(c)))


@pytest.mark.parametrize(("text", "expected"), [
    ("x = TRUE", Equals("x", True)), ("x = -1.5e2", Equals("x", -150.0)), ("x = 007", Equals("x", "007")),
    ("x = 'it''s'", Equals("x", "it's")), ('x = "C:\\new"', Equals("x", "C:\\new")),
    ("x = docs/a-b.pdf", Equals("x", "docs/a-b.pdf")),
    ("`a``b c` = 1", Equals("a`b c", 1)), ("日本 = 語", Equals("日本", "語")),
    ("x in (1, a, 'b c', true)", In("x", (1, "a", "b c", True))),
    ("2020 <= year < 2025", Range("year", gte=2020, lt=2025)), ("1 < x", Range("x", gt=1)),
    ("2024-01-01 <= added", Range("added", gte="2024-01-01")), ("x between a and b", Range("x", gte="a", lte="b")),
    ("exists = 1", Equals("exists", 1)), ("any in (all)", In("any", ("all",))),
])
def test_text_forms(text: str, expected: Filter) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(("text", "column", "expected"), [
    ("year >=", 8, 'a value, found the end'), ("lang in en", 9, '"(", found'),
    ("lang = Hand book", 13, '"and", "or" or the end, found'),
    ("a = 1 and (b = 2", 17, '"and", "or" or ")", found the end'), ('"x" = a', 5, '"<" or "<=", found'),
    ("in = 3", 1, "a field name"),
    ("a = and", 5, "a value"), ("year", 5, '"=", "==", "!=", "<", "<=", ">" or ">=", found the end'),
    ("x in (1 2)", 9, '"," or ")", found'),
    ("x between 1 or 2", 13, '"and", found'), ("not", 4, "a field name, found the end"),
    ("a=1 and", 8, "a field name, found the end"),
    ("exists()", 8, "a field name"), (")", 1, "a field name"), ("日本 = `x`", 6, "a value"),
])
def test_a_mistake_in_text_is_shown_in_its_place(text: str, column: int, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    message, line, caret = caught.value.message.split("\n")
    assert f"at column {column}: expected" in message
    assert expected in message
    assert line == f"  {text}"
    wide = 2 if text.startswith("日本") else 0
    assert caret == " " * (2 + column - 1 + wide) + "^"
    assert caught.value.hint


def test_a_mistake_in_a_long_text_shows_its_surroundings_only() -> None:
    with pytest.raises(InputError) as caught:
        parse(" and ".join(["year = 2020"] * 40) + " nd " + " and ".join(["year\n= 2020"] * 40))
    _, line, caret = caught.value.message.split("\n")
    assert len(line) < 140
    assert line[caret.index("^"):].startswith("nd year")


@pytest.mark.parametrize("text", ['a = "open', "`a = 1", "x ! y", "a = 1 'b", "", "  ", "a = " + "9" * 5000, "x = 1e999",
                                  "x > true", "x between 5 and 1", "x between 1 and b", "``=1", "(" * 5000, "not " * 5000 + "a=1"])
def test_text_that_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert caught.value.code == "filter_invalid"
    assert caught.value.hint


def deep(levels: int) -> Filter:
    where: Filter = Equals("a", 1)
    for level in range(levels - 1):
        where = Not(where) if level % 2 else And((where, Exists("b")))
    return where


def test_nesting_is_limited_and_the_deepest_can_be_read_back() -> None:
    assert parse(str(deep(DEEPEST))) == deep(DEEPEST) == from_json(to_json(deep(DEEPEST)))
    with pytest.raises(InputError, match=f"deeper than {DEEPEST}"):
        deep(DEEPEST + 1)
    nested: object = {"a": 1}
    for _ in range(5000):
        nested = {"not": nested}
    with pytest.raises(InputError, match=f"deeper than {DEEPEST}"):
        from_json(nested)


def test_size_is_limited() -> None:
    In("a", tuple(range(LARGEST - 1)))
    for make in (lambda: In("a", tuple(range(LARGEST))), lambda: In("a", tuple(range(100_000))),
                 lambda: Or(tuple(Equals("a", n) for n in range(LARGEST))),
                 lambda: And((In("a", tuple(range(LARGEST - 2))), Exists("a")))):
        with pytest.raises(InputError, match="parts and values"):
            make()


@pytest.mark.parametrize(("make", "said"), [
    (lambda: Equals("", 1), "''"), (lambda: Equals("metadata.", 1), "'metadata.'"), (lambda: Exists(None), "None"),  # type: ignore[arg-type]
    (lambda: Exists("n" * 250), "250 characters"), (lambda: Exists("a\ud800"), "not valid Unicode"),
    (lambda: Equals("a", None), "None"), (lambda: Equals("a", [1]), r"\[1\]"), (lambda: Equals("a", float("nan")), "nan"),  # type: ignore[arg-type]
    (lambda: Equals("a", float("inf")), "inf"), (lambda: Equals("a", 10 ** 400), "no number"),
    (lambda: Equals("a", "\ud800"), "Unicode"),
    (lambda: In("a", ()), "empty list"), (lambda: In("a", "de"), "'de'"), (lambda: In("a", (1, None)), "None"),  # type: ignore[arg-type]
    (lambda: Range("a"), "no bound"), (lambda: Range("a", gte=1, lt="b"), "mixes"),
    (lambda: Range("a", gt=True), "true or false"),
    (lambda: Range("a", gt=1, gte=2), "two bounds"), (lambda: Range("a", lt=1, lte=2), "two bounds"),
    (lambda: Range("a", gte=2, lte=1), "gte=2, lte=1"), (lambda: Range("a", gt=1, lte=1), "empty"),
    (lambda: Range("a", gte=float("-inf")), "inf"),
    (lambda: And(()), "empty list"), (lambda: Or((1,)), "1 is no filter"), (lambda: And(Exists("a")), "not a list"),  # type: ignore[arg-type]
    (lambda: Not("a"), "'a' is no filter"),  # type: ignore[arg-type]
])
def test_filters_that_make_no_sense_cannot_be_made(make: Callable[[], Filter], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        make()
    assert caught.value.code == "filter_invalid"
    assert caught.value.hint


def test_true_and_one_are_different_filters_but_one_and_one_point_nought_are_not() -> None:
    assert Equals("a", True) != Equals("a", 1)
    assert In("a", (0,)) != In("a", (False,))
    assert len({Equals("a", True), Equals("a", 1), Equals("a", 1.0)}) == 2
    Range("a", gte=1, lte=1)


@pytest.mark.parametrize(("value", "expected"), [
    ({"field": "year", "gte": 2020}, Range("year", gte=2020)), ({"field": "lang", "in": ["en", "de"]}, In("lang", ("en", "de"))),
    ({"field": "draft", "exists": True}, Exists("draft")), ({"field": "draft", "exists": False}, Not(Exists("draft"))),
    ({"lang": "en", "year": {"gte": 2020, "lt": 2025}}, And((Equals("lang", "en"), Range("year", gte=2020, lt=2025)))),
    ({"lang": ["en", "de"]}, In("lang", ("en", "de"))), ({"draft": False}, Equals("draft", False)),
    ({"or": [{"a": 1}, {"not": {"b": 2}}]}, Or((Equals("a", 1), Not(Equals("b", 2))))),
    ({"and": [{"a": 1}]}, And((Equals("a", 1),))), ({"a": 1, "not": {"b": 2}}, And((Equals("a", 1), Not(Equals("b", 2))))),
    ({"field": "tags", "equals": "x", "exists": True}, And((Equals("tags", "x"), Exists("tags")))),
    ({"field": "field", "equals": "x"}, Equals("field", "x")),
])
def test_json_forms(value: object, expected: Filter) -> None:
    assert from_json(value) == expected
    assert from_json(to_json(expected)) == expected


@pytest.mark.parametrize(("value", "said"), [
    ({"field": "year", "gtee": 2020}, "'gtee'.*Did you mean 'gte'"), ({"year": {"lower": 1}}, "'lower'.*Known are"),
    ({"feild": "year", "gte": 2020}, "'gte' is an operator and stands without a field"), ({}, "empty object"),
    ({"year": {}}, "not compared"),
    ({"field": "year"}, "not compared"), ([], r"\[\] is no filter"), ("year = 1", "is no filter"),
    ({"and": {"a": 1}}, "list of filters"),
    ({"and": []}, "empty list"), ({"not": [1]}, r"\[1\] is no filter"), ({"year": None}, "not exists"),
    ({"year": {"gte": None}}, "'gte' of 'year' is null"),
    ({"draft": {"exists": 1}}, "'exists' of 'draft' is 1"), ({"field": 3, "equals": 1}, "not 3"), ({1: 2}, "not 1"),
    ({"a": {"in": 5}}, "are 5"),
    ({"a": {"equals": {"b": 1}}}, "no value"),
])
def test_json_that_is_no_filter_is_refused(value: object, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        from_json(value)
    assert caught.value.code == "filter_invalid"


def test_a_caller_may_give_any_form() -> None:
    where = Range("year", gte=2020)
    assert as_filter(None) is None
    assert as_filter(where) is where
    assert as_filter("year >= 2020") == as_filter({"year": {"gte": 2020}}) == where
    with pytest.raises(InputError, match="5 is no filter"):
        as_filter(5)  # type: ignore[arg-type]


def database(held: dict[int, dict[str, FieldValue]]) -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript("CREATE TABLE documents (number INTEGER PRIMARY KEY, text TEXT);" + stored.SCHEMA)
    for number, fields in held.items():
        db.execute("INSERT INTO documents (number) VALUES (?)", (number,))
        db.executemany("INSERT INTO fields VALUES (?, ?, ?, ?)", [(*row, number) for row in stored.rows_of(fields)])
    return db


def test_rows_hold_what_can_be_asked_for_once() -> None:
    fields: dict[str, FieldValue] = {
        "id": "b", "metadata.tags": ("x", 1, 1.0, True, "x", None), "metadata.": "no name", "metadata.nan": float("nan"),
        "metadata." + "k" * 300: 1, "metadata.big": 2 ** 70, "metadata.half\ud800": 1, "half": "a\ud800", "big": "not this"}
    assert stored.rows_of(fields) == [
        ("id", "s", "b"), ("metadata.tags", "s", "x"), ("metadata.tags", "n", 1), ("metadata.tags", "b", 1),
        ("metadata.big", "n", 2.0 ** 70), ("metadata.half", "s", "a?")]


def test_a_huge_string_is_stored_short_and_found_by_equality_and_by_its_beginning() -> None:
    first, second = "a" * 100_000, "a" * 99_999 + "b"
    db = database({0: {"metadata.text": first}, 1: {"metadata.text": second}})
    assert db.execute("SELECT max(length(value)) FROM fields").fetchone()[0] < 1100
    assert stored.documents_where(db, Equals("text", second)).tolist() == [1]
    assert stored.documents_where(db, Range("text", gt="a" * 500, lt="b")).tolist() == [0, 1]


def test_numbers_that_are_not_in_use_never_match() -> None:
    db = database({2: {"metadata.a": 1}, 5: {}})
    assert stored.mask_where(db, Not(Exists("a"))).tolist() == [False] * 5 + [True]
    assert stored.documents_where(db, Not(Equals("a", 2))).tolist() == [2, 5]
    assert stored.documents_where(db, And((Not(Exists("b")), Equals("a", 1)))).tolist() == [2]


def test_an_empty_collection_has_no_matches() -> None:
    assert stored.documents_where(database({}), Not(Exists("a"))).tolist() == []
    assert stored.documents_where(database({}), Exists("a")).tolist() == []


@pytest.mark.parametrize("where", [
    Equals("a", "x"), In("a", (1, "x", 2, True)), Range("a", gte=1), Range("a", gt="a", lte="b"), Exists("a")])
def test_every_simple_filter_searches_the_index(where: Equals | In | Range | Exists) -> None:
    db = database({0: {"metadata.a": 1}})
    query, parameters = stored.select(where)
    plan = [row[3] for row in db.execute("EXPLAIN QUERY PLAN " + query, parameters)]
    assert any("SEARCH fields USING PRIMARY KEY (key=?" in step for step in plan)
    assert not any(step.startswith("SCAN") for step in plan)
    if not isinstance(where, Exists):
        assert all("kind=? AND value" in step for step in plan if "fields" in step)
