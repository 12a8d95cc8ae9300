"""JSON: records like JSON Lines, anything else as lines that name their place; and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from indexers.loaders import load_jsonl_lines
from rag.settings import Settings
from rag.types import Document, FileFailure
from tests.loading import document, failure, items, outline

PROSE = "The lamp glows in the dark and is made of tin. " * 8


def test_an_array_of_records_is_read_like_json_lines(tmp_path: Path, settings: Settings) -> None:
    records = [{"id": "a", "title": "A", "text": "One.", "year": 2020, "tags": ["x", "y"]}, {"id": "a", "text": "Again."},
               {"text": "  "}, {"text": "Two."}]
    loaded = items(tmp_path / "r.json", json.dumps(records), settings)
    lines = list(load_jsonl_lines([json.dumps(record) for record in records], "docs/r.json", uri=str(tmp_path / "r.json")))
    assert [item.source for item in loaded] == ["docs/r.json#a", "docs/r.json:2", "docs/r.json:3", loaded[3].source]
    for one, other in zip(loaded, lines, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Document) and isinstance(other, Document):
            assert replace(one, content_hash="", media_type="") == replace(other, content_hash="", media_type="")
        elif isinstance(one, FileFailure) and isinstance(other, FileFailure):
            assert (one.source, one.code, one.message) == (other.source, other.code, other.message)
    assert isinstance(loaded[0], Document)
    assert loaded[0].media_type == "application/json"


def test_a_records_hash_does_not_depend_on_its_layout(tmp_path: Path, settings: Settings) -> None:
    hashes = {document(tmp_path / "r.json", json.dumps([{"id": "a", "text": "One.", "n": 1}], indent=indent), settings).content_hash
              for indent in (None, 2)}
    assert len(hashes) == 1
    assert document(tmp_path / "r.json", '[{"id": "a", "text": "One.", "n": 2}]', settings).content_hash not in hashes


def test_an_object_becomes_lines_that_name_their_place(tmp_path: Path, settings: Settings) -> None:
    value = {"name": "Lamp shop", "open": True, "closed": None, "tags": ["a", "b"], "empty": {},
             "server": {"port": 8080, "hosts": ["x", "y"], "tls": {"on": False, "keys": [{"id": 1}, {"id": 2}]}},
             "lamps": [{"model": "A1", "price": {"eur": 10.5}}, {"model": "B2", "sizes": [1, 2]}, "odd"]}
    made = document(tmp_path / "shop_config.json", json.dumps(value), settings)
    assert made.title == "Lamp shop"
    assert outline(made) == [
        ("", "name: Lamp shop\nopen: true\ntags: a, b"),
        ("server", "port: 8080\nhosts: x, y\ntls.on: false\ntls.keys[0].id: 1\ntls.keys[1].id: 2"),
        ("lamps", "model: A1; price.eur: 10.5\nmodel: B2; sizes: 1, 2\nodd")]
    assert [len(block.units) for block in made.blocks] == [3, 5, 3]


def test_prose_in_an_object_is_split_at_sentences(tmp_path: Path, settings: Settings) -> None:
    value = [{"title": "Glow", "body": PROSE, "year": 2024}, {"body": "Short."}, {}]
    made = document(tmp_path / "a.json", json.dumps(value), settings)
    assert outline(made) == [("Glow", "title: Glow"), ("Glow", f"body: {PROSE.strip()}"), ("Glow", "year: 2024"),
                             ("2", "body: Short.")]
    assert made.blocks[1].units == ()


@pytest.mark.parametrize(("text", "expected"), [
    ("42", "42"), ('"words"', "words"), ("[1, 2, null]", "1, 2"), ('[[1, 2], [3]]', "1, 2\n3"), ('{"a": "b\\nc"}', "a: b c"),
    ('{"a": "x\\ud800y\\u0000z"}', "a: x?y\ufffdz"), ('\ufeff{"a": 1}', "a: 1"), ('{"": 1}', "1")])
def test_odd_values(tmp_path: Path, settings: Settings, text: str, expected: str) -> None:
    assert document(tmp_path / "a.json", text, settings).text == expected


@pytest.mark.parametrize(("text", "says"), [
    ("not json", "damaged JSON"), ("{", "damaged JSON"), ('{"a": NaN}', "NaN"), ("[" * 100_000 + "]" * 100_000, "nested"),
    ('{"a":' * 150 + "1" + "}" * 150, "100 levels"), ("1" * 10_000, "damaged JSON")])
def test_what_is_refused(tmp_path: Path, settings: Settings, text: str, says: str) -> None:
    told = failure(tmp_path / "a.json", text, settings)
    assert (told.code, says in told.message) == ("file_corrupt", True), told.message


@pytest.mark.parametrize("text", ["", " ", "{}", "[]", "null", '{"a": {"b": []}}'])
def test_nothing_is_empty(tmp_path: Path, settings: Settings, text: str) -> None:
    assert failure(tmp_path / "a.json", text, settings).code in {"file_empty", "file_corrupt"}
