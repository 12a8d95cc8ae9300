"""Garbage in, a clear refusal out: each with its status, its code and the field at fault. Never a 500, never a hang."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.errors import BadRequest
from api.strict import parse
from rag.errors import InputError
from tests.api_fakes import QUESTION, Live, live, problem

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("home"), body_kb=64, body_s=5.0) as running:
        yield running


BODIES: list[tuple[bytes, int, str, str | None]] = [
    (b"", 422, "input_invalid", None),
    (b"{", 400, "json_invalid", None),
    (b"[]", 422, "input_invalid", None),
    (b"null", 422, "input_invalid", None),
    (b'"question"', 422, "input_invalid", None),
    (b'{"question": "a"} x', 400, "json_invalid", None),
    (b'{"question": "\xff\xfe"}', 400, "body_not_utf8", None),
    ('{"question": "a"}'.encode("utf-16"), 400, "body_not_utf8", None),
    (b'{"question": "\\ud800"}', 422, "question_invalid", "question"),
    (b'{"question": ""}', 422, "question_empty", "question"),
    (b'{"question": " \\n\\t\\u200b "}', 422, "question_empty", "question"),
    (b'{"question": "\\u0000"}', 422, "question_empty", "question"),
    (b"{}", 422, "input_invalid", "question"),
    (b'{"question": null}', 422, "input_invalid", "question"),
    (b'{"question": 5}', 422, "input_invalid", "question"),
    (b'{"question": ["a"]}', 422, "input_invalid", "question"),
    (b'{"question": "a", "question": "b"}', 422, "field_repeated", "question"),
    (b'{"question": "a", "qestion": 1}', 422, "unknown_field", "qestion"),
    (b'{"question": "a", "budget_tokens": 0}', 422, "budget_too_small", "budget_tokens"),
    (b'{"question": "a", "budget_tokens": -1}', 422, "budget_too_small", "budget_tokens"),
    (b'{"question": "a", "budget_tokens": 1000001}', 422, "budget_invalid", "budget_tokens"),
    (b'{"question": "a", "budget_tokens": 100001}', 422, "budget_invalid", "budget_tokens"),
    (b'{"question": "a", "budget_tokens": NaN}', 422, "budget_invalid", "budget_tokens"),
    (b'{"question": "a", "budget_tokens": Infinity}', 422, "budget_invalid", "budget_tokens"),
    (b'{"question": "a", "budget_tokens": 1.5}', 422, "budget_invalid", "budget_tokens"),
    (b'{"question": "a", "budget_tokens": "5"}', 422, "budget_invalid", "budget_tokens"),
    (b'{"question": "a", "budget_tokens": true}', 422, "budget_invalid", "budget_tokens"),
    (b'{"question": "a", "budget_tokens": 1' + b"0" * 5000 + b"}", 400, "json_invalid", None),
    (b'{"question": "a", "max_cost_usd": 0}', 422, "budget_invalid", "max_cost_usd"),
    (b'{"question": "a", "max_cost_usd": NaN}', 422, "budget_invalid", "max_cost_usd"),
    (b'{"question": "a", "max_cost_usd": -Infinity}', 422, "budget_invalid", "max_cost_usd"),
    (b'{"question": "a", "deadline_s": -1}', 422, "budget_invalid", "deadline_s"),
    (b'{"question": "a", "deadline_s": 100000}', 422, "budget_invalid", "deadline_s"),
    (b'{"question": "a", "deadline_s": 700}', 422, "budget_invalid", "deadline_s"),
    (b'{"question": "a", "stream": "yes"}', 422, "input_invalid", "stream"),
    (b'{"question": "a", "selector": "best"}', 422, "input_invalid", "selector"),
    (b'{"question": "a", "model": "/etc/passwd"}', 422, "model_unknown", "model"),
    (b'{"question": "a", "collection": "nope"}', 404, "collection_missing", "collection"),
    (b'{"question": "a", "collection": "../../etc"}', 422, "input_invalid", "collection"),
    (b'{"question": "a", "collection": ""}', 422, "input_invalid", "collection"),
    (b'{"question": "a", "filters": "year > 2000 or 1 = 1"}', 422, "input_invalid", "filters"),
    (b'{"question": "a", "filters": {}}', 422, "filter_invalid", "filters"),
    (b'{"question": "a", "filters": {"year": {"above": 1}}}', 422, "filter_invalid", "filters"),
    (b'{"question": "a", "filters": {"year": NaN}}', 422, "filter_invalid", "filters"),
    (b'{"question": "a", "filters": ' + b'{"not":' * 70 + b"1" + b"}" * 71, 422, "json_too_deep", None),
    (b'{"question": "a", "filters": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", 422, "json_too_deep", None),
    (b'{"question": "' + b"a" * 9_000 + b'"}', 422, "question_too_long", "question"),
]


@pytest.mark.parametrize(("body", "status", "code", "field"), BODIES, ids=lambda value: repr(value)[:50])
def test_bodies_that_cannot_be(served: Live, body: bytes, status: int, code: str, field: str | None) -> None:
    before = len(served.reader.spent)
    error = problem(served.client().post("/v1/ask", content=body, headers=JSON), status, code)
    assert error["field"] == field
    assert error["hint"]
    assert len(served.reader.spent) == before


@pytest.mark.parametrize(("body", "code", "field"), [
    ({"query": " "}, "question_empty", "query"), ({"query": "a", "k": 0}, "input_invalid", "k"),
    ({"query": "a", "k": 1001}, "input_invalid", "k"), ({"query": "a", "k": "3"}, "input_invalid", "k"),
    ({"query": "a", "mode": "magic"}, "input_invalid", "mode"), ({"query": "a", "explain": True}, "unknown_field", "explain")])
def test_searches_that_cannot_be(served: Live, body: dict[str, Any], code: str, field: str) -> None:
    assert problem(served.client().post("/v1/search", json=body), 422, code)["field"] == field


def test_more_hits_than_there_are_gives_all(served: Live) -> None:
    found = served.client().post("/v1/search", json={"query": "otters sleep", "k": 1000}).json()
    assert list(found) == ["query", "hits", "origins", "notes"]
    assert {hit["doc_id"] for hit in found["hits"]} == {"pump", "otter"}
    assert found["hits"][0]["doc_id"] == "otter"


def test_the_same_question_in_any_spelling_is_the_same_question(served: Live) -> None:
    spelled = ["Cafe\u0301  sleep?", "Caf\u00e9 sleep?", "Caf\u00e9\u200b sleep?", "\u202eCaf\u00e9 sleep?\n"]
    asked = [served.client().post("/v1/search", json={"query": text}).json() for text in spelled]
    assert {answer["query"] for answer in asked} == {"Caf\u00e9 sleep?"}
    assert all(answer["hits"] == asked[0]["hits"] for answer in asked)


def test_a_body_over_the_limit_is_refused_before_it_is_sent(served: Live) -> None:
    """Only the head of a megabyte goes out: the refusal must not wait for the rest."""
    with _connected(served) as connection:
        connection.sendall(b"POST /v1/ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                           b"Content-Length: 1000000\r\n\r\n{")
        head, body = _answer(connection)
    assert b" 413 " in head.split(b"\r\n")[0]
    assert json.loads(body)["error"]["code"] == "body_too_large"


def test_a_body_of_unstated_length_is_cut_off_at_the_limit(served: Live) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"question": "'
        for _ in range(80):
            yield b"a" * 1000

    problem(served.client().post("/v1/ask", content=pieces(), headers=JSON), 413, "body_too_large")


def test_a_body_that_never_comes_is_given_up(served: Live) -> None:
    with _connected(served) as connection:
        connection.sendall(b"POST /v1/ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                           b"Content-Length: 100\r\n\r\n{")
        head, body = _answer(connection)
    assert b" 408 " in head.split(b"\r\n")[0]
    assert json.loads(body)["error"]["code"] == "body_timeout"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_must_be_declared_as_json(served: Live, kind: str) -> None:
    """What a web page can send without asking first is refused."""
    sent = served.client().post("/v1/ask", content=b'{"question": "a"}', headers={"Content-Type": kind})
    problem(sent, 415, "media_type_unsupported")


def test_paths_methods_and_parameters_that_nobody_serves(served: Live) -> None:
    client = served.client()
    problem(client.get("/v1/nothing"), 404, "not_found")
    problem(client.get("/v1/../../etc/passwd"), 404, "not_found")
    refused = client.put("/v1/ask")
    problem(refused, 405, "method_not_allowed")
    assert "POST" in refused.headers["allow"]
    assert problem(client.get("/v1/usage", params={"key": "x"}), 422, "unknown_field")["field"] == "key"
    assert problem(client.get("/v1/usage", params={"group_by": "question"}), 422, "input_invalid")["field"] == "group_by"
    assert problem(client.get("/v1/usage", params={"since": "2020-13-01"}), 422, "input_invalid")["field"] == "since"
    assert problem(client.get("/v1/collections/default/documents", params={"limit": "0"}), 422, "input_invalid")["field"] == "limit"
    for name in ("%00", "a%2Fb", "..", "%ff", "a" * 65):
        assert client.get(f"/v1/collections/{name}").status_code in (404, 422)
    problem(client.get("/v1/collections/default/documents/../../../etc/passwd"), 404, "not_found")
    problem(client.get("/v1/collections/default/documents/%2e%2e%2fetc%2fpasswd"), 404, "document_missing")


def test_an_empty_collection_answers_that_it_is_empty(served: Live) -> None:
    assert served.client().post("/v1/collections", json={"name": "empty"}).status_code == 201
    answer = served.ask(collection="empty").json()
    assert answer["verdict"] == "abstained"
    assert answer["reason"].startswith("no_index_content")


def test_request_ids_are_echoed_only_where_they_can_stand_in_a_log(served: Live) -> None:
    client = served.client()
    assert client.get("/healthz", headers={"X-Request-Id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for wrong in ("a b", "x" * 65, '"}', ""):
        assert client.get("/healthz", headers={"X-Request-Id": wrong}).headers["x-request-id"] != wrong


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6)
FIELDS = st.sampled_from(["question", "collection", "budget_tokens", "max_cost_usd", "deadline_s", "selector", "model", "filters",
                          "stream", "trace", "x"])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(FIELDS, JSON_VALUES, max_size=5) | JSON_VALUES)
def test_no_json_makes_a_500(served: Live, value: object) -> None:
    body = json.dumps(value, ensure_ascii=True).encode()
    response = served.client().post("/v1/ask", content=body, headers=JSON)
    assert response.status_code in (200, 404, 422), response.text


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789eE+-.truefalsnNaInity\\ud8 ', max_size=60).map(str.encode))
def test_parsing_gives_a_value_or_one_of_our_refusals(body: bytes) -> None:
    try:
        value = parse(body)
    except (BadRequest, InputError):
        return
    assert json.dumps(value) == json.dumps(json.loads(body.decode()))


def test_words_that_look_like_a_query_language_are_words(served: Live) -> None:
    answer = served.ask(QUESTION + "' OR 1=1; DROP TABLE documents; --").json()
    assert answer["verdict"] in ("answered", "abstained")
    assert served.client().get("/v1/collections/default").json()["documents"] == 2


def _connected(served: Live) -> socket.socket:
    address = urlsplit(served.url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def _answer(connection: socket.socket) -> tuple[bytes, bytes]:
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(65536)
    head, _, body = got.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return head, body
