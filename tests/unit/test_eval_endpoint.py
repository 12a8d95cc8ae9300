"""The endpoint that peers ask: OpenAI's shapes, every call recorded, nothing answered that nobody counts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from eval.endpoint import Endpoint
from rag.errors import ModelUnavailable
from rag.llm import Message
from rag.types import Usage
from tests.fakes import ScriptedReader


@pytest.fixture
def reader() -> ScriptedReader:
    return ScriptedReader(lambda prompt: "Rollo led them" if "Normans" in prompt else "I don't know")


@pytest.fixture
def endpoint(reader: ScriptedReader) -> Iterator[Endpoint]:
    with Endpoint(reader, max_tokens=64) as served:
        yield served


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10) as client:
        yield client


def body(*contents: object, **more: object) -> dict[str, object]:
    return {"model": "scripted", "messages": [{"role": "user", "content": content} for content in contents], **more}


def post(http: httpx.Client, endpoint: Endpoint, sent: object) -> httpx.Response:
    return http.post(f"{endpoint.url}/chat/completions", json=sent)


def test_an_openai_client_is_answered_and_what_it_sent_is_recorded(endpoint: Endpoint) -> None:
    client = openai.OpenAI(base_url=endpoint.url, api_key="none", max_retries=0, http_client=httpx.Client(trust_env=False))
    with client, endpoint.recording() as recording:
        assert [model.id for model in client.models.list()] == ["scripted"]
        said = client.chat.completions.create(model="scripted", max_tokens=9, messages=[
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who led the Normans?"}])
        client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "And then?"}])
    assert said.choices[0].message.content == "Rollo led them"
    assert said.choices[0].finish_reason == "stop"
    assert said.usage is not None
    assert (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.total_tokens) == (8, 3, 11)
    assert [call.messages for call in recording.calls] == [
        (Message("system", "Be brief."), Message("user", "Who led the Normans?")), (Message("user", "And then?"),)]
    spent = recording.usage
    assert (spent.prompt_tokens, spent.completion_tokens, spent.llm_calls) == (8 + 3, 3 + 5, 2)
    assert recording.prompt_tokens == 11
    assert (recording.finish, recording.counted, recording.failure) == ("stop", True, None)
    assert recording.seconds >= spent.llm_seconds > 0


def test_without_the_reader_the_prompt_is_counted_and_the_answer_empty(
        endpoint: Endpoint, reader: ScriptedReader, http: httpx.Client) -> None:
    with endpoint.recording(read=False) as recording:
        answer = post(http, endpoint, body("Who led the Normans?")).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": ""}
    assert reader.prompts == []
    assert (recording.prompt_tokens, recording.usage, recording.finish) == (5, Usage(), None)
    assert recording.calls[0].generation is None


def test_a_call_that_no_question_asked_for_is_refused(endpoint: Endpoint, reader: ScriptedReader, http: httpx.Client) -> None:
    with endpoint.recording() as recording:
        pass
    refused = post(http, endpoint, body("Who led the Normans?"))
    assert refused.status_code == 400
    assert "nobody would count" in refused.json()["error"]["message"]
    assert (reader.prompts, recording.calls) == ([], [])


class Remembering(ScriptedReader):
    """Keeps the limits it was given."""

    def __init__(self, finish: str = "stop") -> None:
        super().__init__("yes", finish=finish)
        self.limits: list[tuple[int, tuple[str, ...], bool]] = []

    def generate(self, messages: Any, *, max_tokens: int, stop: Any = (), on_token: Any = None, deadline: float | None = None,
                 cancelled: Any = None) -> Any:
        self.limits.append((max_tokens, tuple(stop), deadline is not None))
        return super().generate(messages, max_tokens=max_tokens, stop=stop, deadline=deadline)


def test_limits_and_stops_of_a_request_hold_and_the_endpoints_own_where_it_names_none(http: httpx.Client) -> None:
    reader = Remembering("length")
    with Endpoint(reader, max_tokens=64, deadline_s=5) as endpoint, endpoint.recording():
        for more in ({}, {"max_tokens": 7, "stop": "\n"}, {"max_completion_tokens": 8, "stop": ["a", "b"]}):
            assert post(http, endpoint, body("x", **more)).json()["choices"][0]["finish_reason"] == "length"
    assert reader.limits == [(64, (), True), (7, ("\n",), True), (8, ("a", "b"), True)]


def test_a_message_in_parts_is_joined(endpoint: Endpoint, http: httpx.Client) -> None:
    with endpoint.recording() as recording:
        post(http, endpoint, body([{"type": "text", "text": "Who led "}, {"type": "text", "text": "the Normans?"}]))
    assert recording.calls[0].messages == (Message("user", "Who led the Normans?"),)


@pytest.mark.parametrize(("sent", "said"), [
    ([], "no JSON object"),
    ({"model": "gpt-5", "messages": []}, "no model 'gpt-5'"),
    (body("x", stream=True), "does not stream"),
    (body(), "`messages`"),
    ({"model": "scripted", "messages": "x"}, "`messages`"),
    ({"model": "scripted", "messages": [{"role": "tool", "content": "x"}]}, "role"),
    ({"model": "scripted", "messages": [{"role": ["user"], "content": "x"}]}, "role"),
    ({"model": "scripted", "messages": ["x"]}, "role"),
    (body(None), "text as its content"),
    (body([{"type": "image_url", "image_url": {"url": "x"}}]), "text as its content"),
    (body("x", max_tokens="many"), "'many' tokens"),
    (body("x", max_tokens=-1), "-1 tokens"),
    (body("x", stop=3), "`stop`"),
    (body("x", stop=["a", 3]), "`stop`"),
])
def test_what_cannot_be_served_is_refused_with_the_reason(
        endpoint: Endpoint, reader: ScriptedReader, http: httpx.Client, sent: object, said: str) -> None:
    with endpoint.recording() as recording:
        refused = post(http, endpoint, sent)
    assert refused.status_code == 400
    assert said in refused.json()["error"]["message"]
    assert (recording.calls, recording.failure, reader.prompts) == ([], None, [])


def test_broken_bodies_and_unknown_paths_are_refused_and_the_connection_lives_on(endpoint: Endpoint, http: httpx.Client) -> None:
    url = f"{endpoint.url}/chat/completions"
    with endpoint.recording() as recording:
        assert http.post(url, content=b"{").status_code == 400
        assert http.post(url, content=b"\xff\xfe").status_code == 400
        assert http.post(f"{endpoint.url}/embeddings", json={}).status_code == 404
        assert http.get(f"{endpoint.url}/nothing").status_code == 404
        assert post(http, endpoint, body("Who led the Normans?")).status_code == 200
    assert len(recording.calls) == 1


@pytest.mark.parametrize("length", ["99999999999", "-1", "many", None])
def test_a_body_of_no_sensible_length_is_refused_unread(endpoint: Endpoint, length: str | None) -> None:
    connection = HTTPConnection(urlsplit(endpoint.url).netloc, timeout=10)
    connection.putrequest("POST", "/v1/chat/completions")
    if length is not None:
        connection.putheader("Content-Length", length)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, json.load(answer)["error"]["code"]) == (413, "too_large")
    connection.close()


@pytest.mark.parametrize(("failure", "status", "code"), [
    (ModelUnavailable("The reader is gone."), 503, "model_unavailable"), (ZeroDivisionError("x"), 500, "ZeroDivisionError")])
def test_a_reader_that_fails_is_reported_to_both_sides(
        http: httpx.Client, failure: Exception, status: int, code: str) -> None:
    with Endpoint(ScriptedReader(fails=failure), max_tokens=8) as endpoint, endpoint.recording() as recording:
        answer = post(http, endpoint, body("x"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert (recording.failure, recording.calls) == (failure, [])


def test_recordings_do_not_mix(endpoint: Endpoint, http: httpx.Client) -> None:
    """The second begins when the first has ended, whichever thread opens it."""
    begun, seen = threading.Event(), []

    def second() -> None:
        begun.set()
        with endpoint.recording() as recording:
            post(http, endpoint, body("second"))
        seen.append([call.messages[0].content for call in recording.calls])

    thread = threading.Thread(target=second)
    with endpoint.recording() as first:
        thread.start()
        assert begun.wait(5)
        post(http, endpoint, body("first"))
        assert seen == []
    thread.join(10)
    assert [call.messages[0].content for call in first.calls] == ["first"]
    assert seen == [["second"]]


def test_a_closed_endpoint_answers_no_more_and_leaves_the_reader_open(reader: ScriptedReader, http: httpx.Client) -> None:
    endpoint = Endpoint(reader, max_tokens=8)
    assert http.get(f"{endpoint.url}/models").status_code == 200
    endpoint.close()
    with httpx.Client(trust_env=False) as fresh, pytest.raises(httpx.ConnectError):
        fresh.get(f"{endpoint.url}/models")
    assert not reader.closed
