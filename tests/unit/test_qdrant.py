"""Payloads, conditions and term weights: what is sent to Qdrant, without any Qdrant."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import pytest

from indexers.qdrant import Held
from indexers.qdrant_fields import condition, field_path, filtered, paths, payload
from indexers.qdrant_terms import K1, B, Bm25Terms
from rag.errors import ConfigError
from rag.filters import And, Equals, Exists, Filter, In, Not, Or, Range
from rag.settings import load
from retrievers import bm25_statistics

KNOWN = ("string.source", 'string."metadata.tag"', 'integer."metadata.year"', 'number."metadata.year"', 'boolean."metadata.draft"')


def verdict(where: Filter, rows: list[int] | None = None) -> object:
    return condition(where, known=KNOWN, rows=lambda _: rows)


def test_a_payload_keeps_kinds_apart_and_leaves_out_what_no_filter_can_ask_for() -> None:
    fields = {"id": "d1", "metadata.tag": ("x", 7, True, None, "x"), "metadata.year": 2020.0, "metadata.price": 1.5,
              "metadata.none": None, "metadata.nan": math.nan}
    assert payload(fields) == {
        "string": {"id": "d1", "metadata.tag": "x"},
        "integer": {"metadata.tag": 7, "metadata.year": 2020}, "boolean": {"metadata.tag": 1}, "number": {"metadata.price": 1.5}}


def test_numbers_that_json_cannot_carry_are_brought_within_its_bounds() -> None:
    found = payload({"metadata.big": (2**70, -math.inf)})["number"]
    assert found == {"metadata.big": [float(2**70), -1.7976931348623157e308]}


@pytest.mark.parametrize(("name", "written"), [
    ("year", 'integer."metadata.year"'), ("source", "integer.source"), ("a.b", 'integer."metadata.a.b"'),
    ('quo"te', 'integer."metadata.quo%22te"'), ("back\\slash", 'integer."metadata.back%5Cslash"'),
    ("50%", 'integer."metadata.50%25"'), ("list[0]", 'integer."metadata.list[0]"')])
def test_every_field_name_has_a_path_and_the_payload_uses_it(name: str, written: str) -> None:
    assert field_path("integer", name) == written
    assert paths(payload({name if name == "source" else f"metadata.{name}": 1})) == {written: "integer"}


def test_different_names_never_share_a_path() -> None:
    names = ["a", "a.b", "a b", 'a"b', "a%22b", "a\\b", "a%5Cb", "a%b", "a%25b", "source", "metadata.source"]
    assert len({field_path("string", name) for name in names}) == len(names)


@pytest.mark.parametrize(("where", "sent"), [
    (Equals("source", "a.md"), {"key": "string.source", "match": {"value": "a.md"}}),
    (Equals("year", 2020.0), {"key": 'integer."metadata.year"', "match": {"value": 2020}}),
    (Equals("year", 0.5), {"key": 'number."metadata.year"', "range": {"gte": 0.5, "lte": 0.5}}),
    (Equals("draft", True), {"key": 'boolean."metadata.draft"', "match": {"value": 1}}),
    (In("tag", ("x", "y")), {"key": 'string."metadata.tag"', "match": {"any": ["x", "y"]}}),
    (Exists("tag"), {"must_not": [{"is_empty": {"key": 'string."metadata.tag"'}}]}),
    (Not(Equals("tag", "x")), {"must_not": [{"key": 'string."metadata.tag"', "match": {"value": "x"}}]}),
    (Range("year", gt=2019.5, lt=2021), {"should": [{"key": 'integer."metadata.year"', "range": {"gte": 2020.0, "lte": 2020.0}},
                                                    {"key": 'number."metadata.year"', "range": {"gt": 2019.5, "lt": 2021.0}}]}),
])
def test_simple_filters_become_one_condition(where: Filter, sent: object) -> None:
    assert verdict(where) == sent


@pytest.mark.parametrize(("where", "known"), [
    (Equals("unseen", 1), False), (Equals("tag", 1), False), (Exists("unseen"), False), (Not(Exists("unseen")), True),
    (Range("unseen", gt=1), False), (Range("tag", gt=1), False), (And((Equals("tag", "x"), Equals("unseen", 1))), False),
    (Or((Not(Equals("unseen", 1)), Equals("tag", "x"))), True), (Range("unseen", gt="a"), False)])
def test_what_no_document_has_is_decided_without_asking(where: Filter, known: bool) -> None:
    assert verdict(where) is known


def test_a_decided_part_leaves_the_others() -> None:
    tag = {"key": 'string."metadata.tag"', "match": {"value": "x"}}
    assert verdict(And((Not(Equals("unseen", 1)), Equals("tag", "x")))) == tag
    assert verdict(Or((Equals("unseen", 1), Equals("tag", "x")))) == tag
    assert filtered(tag) == {"must": [tag]}
    assert filtered({"should": [tag]}) == {"should": [tag]}


def test_a_range_of_strings_names_its_rows_or_leaves_the_decision_to_the_check() -> None:
    tag = Range("tag", gte="a", lt="m")
    there = {"must_not": [{"is_empty": {"key": 'string."metadata.tag"'}}]}
    assert verdict(tag, [4, 2]) == {"has_id": [2, 4]}
    assert verdict(tag, []) is False
    assert verdict(tag, None) == there
    assert verdict(Not(tag), None) is True
    assert verdict(Not(Not(tag)), None) == {"must_not": [{"must_not": [there]}]}


def test_whole_bounds_beyond_doubles_move_outwards_and_under_not_inwards() -> None:
    big = 2**60 + 1
    outwards = {"key": 'integer."metadata.year"', "range": {"gte": math.nextafter(2.0**60, 0)}}
    inwards = {"key": 'integer."metadata.year"', "range": {"gte": math.nextafter(2.0**60, math.inf)}}
    number = {"key": 'number."metadata.year"', "range": {"gt": 2.0**60}}
    assert verdict(Range("year", gte=big)) == {"should": [outwards, number]}
    assert verdict(Not(Range("year", gte=big))) == {"must_not": [{"should": [inwards, number]}]}


def test_an_integer_range_without_a_whole_number_asks_for_the_others_alone() -> None:
    assert verdict(Range("year", gt=1, lt=2)) == {"key": 'number."metadata.year"', "range": {"gt": 1.0, "lt": 2.0}}


def test_document_weights_are_those_of_bm25() -> None:
    assert (K1, B) == (bm25_statistics.K1, bm25_statistics.B)
    terms = Bm25Terms().documents(["otter otter bridge"], average=6.0)[0]
    norm = K1 * (1 - B + B * 3 / 6)
    expected = {zlib.crc32(b"otter"): 2 / (2 + norm), zlib.crc32(b"bridg"): 1 / (1 + norm)}
    assert dict(zip(terms.ids.tolist(), terms.weights.tolist(), strict=True)) == pytest.approx(expected)
    assert (np.diff(terms.ids.astype(np.int64)) > 0).all()


def test_a_question_counts_each_word_as_often_as_it_is_asked() -> None:
    terms = Bm25Terms().question("Otters, otter; bridge")
    assert dict(zip(terms.ids.tolist(), terms.weights.tolist(), strict=True)) == {zlib.crc32(b"otter"): 2, zlib.crc32(b"bridg"): 1}
    assert len(Bm25Terms().question("?!").ids) == 0


def test_words_that_share_a_number_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexers.qdrant_terms._number", lambda _: 5)
    assert Bm25Terms().question("one two three").weights.tolist() == [3.0]


def test_the_record_survives_its_own_payload() -> None:
    held = Held("c", "e@1", "w", generation=4, top=99, paths=("string.id",))
    written = held.to_payload()["thriftrag"]
    assert isinstance(written, dict)
    assert Held(**written | {"paths": tuple(written["paths"])}) == held


@pytest.mark.parametrize("url", ["localhost:6333", "ftp://host", "http://", "not a url"])
def test_a_url_that_names_no_server_is_refused(url: str, tmp_path: Path) -> None:
    from indexers.qdrant_server import connect

    with pytest.raises(ConfigError, match="qdrant_url"):
        connect(load({"home": tmp_path, "models": tmp_path, "qdrant_url": url}, environ={}), name="x")


def test_the_server_for_tests_is_no_setting() -> None:
    assert load({}, environ={"THRIFTRAG_TEST_QDRANT_URL": "http://localhost:6333"}).qdrant_url == ""
