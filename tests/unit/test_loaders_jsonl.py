"""JSON Lines: records to documents, bad lines told by number, the rest kept."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from indexers.loaders import Found, load, load_jsonl_lines
from indexers.loaders.jsonl import MAX_REPORTED
from rag.settings import Settings
from rag.types import Document, FileFailure


def documents(*lines: str | bytes) -> list[Document]:
    return [item for item in load_jsonl_lines(lines) if isinstance(item, Document)]


def failures(*lines: str | bytes) -> list[FileFailure]:
    return [item for item in load_jsonl_lines(lines) if isinstance(item, FileFailure)]


def test_a_record_is_a_document_with_its_other_scalars_as_metadata() -> None:
    record = '{"id": "x1", "title": " A  title", "text": "Two years.", "year": 2020, "ok": true, "note": null}'
    [made] = documents(record)
    assert (made.id, made.title, made.text, made.source, made.uri) == ("x1", "A title", "Two years.", "stdin#x1", "stdin#x1")
    assert made.metadata == {"year": 2020, "ok": True, "note": None}
    assert made.text[slice(*made.blocks[0].span)] == "Two years."


def test_a_list_of_scalars_is_a_tuple_in_the_metadata_and_what_is_nested_deeper_is_left_out() -> None:
    [made] = documents('{"text": "One.", "tags": ["a", "b\\ud800"], "mixed": [1, 2.5, true, null], "none": [], "deep": [["x"]], '
                       '"rows": [{"a": 1}], "object": {"a": 1}}')
    assert made.metadata == {"tags": ("a", "b\ufffd"), "mixed": (1, 2.5, True, None), "none": ()}


def test_without_id_the_content_names_the_record() -> None:
    first, second = documents('{"text": "One."}', '{"text": "Two."}')
    assert first.id != second.id
    assert documents('{"year": 1, "text": "One."}')[0].id == first.id
    assert len(first.id) == 16


def test_a_number_is_an_id_too() -> None:
    assert documents('{"id": 7, "text": "One."}')[0].id == "7"


def test_the_hash_is_of_the_record() -> None:
    same, again, other = documents('{"id": "a", "text": "One."}', b'{"id": "b", "text": "One."}', '{"id": "c", "text": "One."}\n')
    assert len({same.content_hash, again.content_hash, other.content_hash}) == 3
    assert documents('{"id": "a", "text": "One."}')[0].content_hash == same.content_hash
    assert documents(b'{"id": "a", "text": "One."}\r\n')[0].content_hash == same.content_hash


@pytest.mark.parametrize(("line", "says"), [
    ("not json", "not JSON"), ("[1]", "list, not an object"), ('"words"', "str, not an object"), ('{"id": "a"}', 'no "text"'),
    ('{"text": "  "}', 'no "text"'), ('{"text": 5}', "int, not a string"), ('{"title": [], "text": "x"}', '"title" is list'),
    ('{"text": "a\\u0000b"}', "NUL"), (b'{"text": "\xff"}', "not UTF-8"), ('{"text": "x", "v": NaN}', "NaN"),
    ("[" * 100_000, "not JSON"), ('{"text": "x"', "not JSON"), ('{"id": true, "text": "x"}', '"id" is bool'),
    ('{"id": "' + "i" * 501 + '", "text": "x"}', "501")])
def test_a_bad_line_is_told_and_the_rest_is_kept(line: str | bytes, says: str) -> None:
    items = list(load_jsonl_lines(['{"id": "a", "text": "One."}', "", line, '{"id": "b", "text": "Two."}']))
    assert [item.id for item in items if isinstance(item, Document)] == ["a", "b"]
    [failure] = [item for item in items if isinstance(item, FileFailure)]
    assert (failure.source, failure.code) == ("stdin:3", "record_invalid")
    assert says in failure.message
    assert failure.hint


def test_a_repeated_id_is_told_and_the_first_is_kept() -> None:
    lines = ('{"id": "a", "text": "One."}', '{"id": "a", "text": "Two."}')
    assert [made.text for made in documents(*lines)] == ["One."]
    assert [(failure.source, failure.code) for failure in failures(*lines)] == [("stdin:2", "record_duplicate")]


def test_a_repeated_record_without_id_says_nothing_new() -> None:
    assert len(documents('{"text": "One."}', '{"text": "One."}')) == 1
    assert failures('{"text": "One."}', '{"text": "One."}') == []


def test_a_file_of_the_wrong_kind_does_not_flood_the_report() -> None:
    told = failures(*['{"question": "Why?"}'] * 300)
    assert len(told) == MAX_REPORTED + 1
    assert "300 in all" in told[-1].message


def test_lone_surrogates_become_one_replacement_character_each() -> None:
    [made] = documents('{"id": "\\ud800", "title": "\\udfff", "text": "a\\ud800b", "note": "\\ud800"}')
    assert (made.id, made.title, made.text, made.metadata) == ("\ufffd", "\ufffd", "a\ufffdb", {"note": "\ufffd"})


def test_a_byte_order_mark_is_no_part_of_the_first_record() -> None:
    assert documents(b'\xef\xbb\xbf{"id": "a", "text": "One."}')[0].id == "a"
    assert documents('\ufeff{"id": "a", "text": "One."}')[0].id == "a"


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_names_its_records_by_path(tmp_path: Path, settings: Settings, packed: bool) -> None:
    path = tmp_path / ("c.jsonl.gz" if packed else "c.jsonl")
    data = b'{"id": "a", "text": "One."}\nbad\n'
    path.write_bytes(gzip.compress(data) if packed else data)
    made, failure = load(Found(path, f"docs/{path.name}", 1), settings=settings)
    assert isinstance(made, Document)
    assert (made.source, made.uri) == (f"docs/{path.name}#a", f"{path}#a")
    assert isinstance(failure, FileFailure)
    assert failure.source == f"docs/{path.name}:2"


def test_languages_are_guessed_by_record() -> None:
    texts = {"en": "The lamp is in the house and it was made of tin.",
             "de": "Die Lampe ist in dem Haus und sie wurde aus Zinn gemacht.",
             "fr": "La lampe est dans la maison et elle est faite pour les enfants.",
             "es": "La lámpara que está en la casa es de los niños.",
             "zh": "这盏灯在房子里。", "ja": "このランプは家の中にあります。", "ru": "Лампа стоит в доме.",
             "ar": "المصباح في البيت.", "hi": "दीपक घर में है।", "ko": "램프는 집에 있습니다."}
    made = documents(*(f'{{"id": "{language}", "text": "{text}"}}' for language, text in texts.items()))
    assert {item.id: item.language for item in made} == {language: language for language in texts}


def test_names_and_numbers_are_no_language() -> None:
    assert documents('{"text": "Product: Lamp; Price: 20; Code: LA-7"}')[0].language == "en"
