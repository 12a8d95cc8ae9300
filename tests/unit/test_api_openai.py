"""The OpenAI face, called by OpenAI's own client over a real socket."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion

from rag.errors import DeadlineExceeded, ModelUnavailable
from tests.api_fakes import QUESTION, Live, live, make_collection, wait_until

ASKED: Any = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture
def served(running: Live) -> Iterator[Live]:
    """One server for all that leave nothing behind in it."""
    yield running
    running.reader.gate.set()
    running.reader.error = None
    running.quiet()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path) as made:
        yield made


def client_of(served: Live, key: str = "none", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, timeout=60, **{"max_retries": 0, **options})


def asked(served: Live, messages: Any = ASKED, *, model: str = "thriftrag", **options: Any) -> ChatCompletion:
    with client_of(served) as client:
        found: ChatCompletion = client.chat.completions.create(model=model, messages=messages, **options)
        return found


def extras(completion: Any) -> dict[str, Any]:
    return dict(completion.thriftrag)


def refused(served: Live, status: int, code: str, *, key: str = "none", **options: Any) -> dict[str, Any]:
    """OpenAI's error body of a request that must be refused in this way."""
    with client_of(served, key) as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**{"model": "thriftrag", "messages": ASKED, **options})
    body = caught.value.body
    assert isinstance(body, dict)
    assert (caught.value.status_code, body["code"]) == (status, code), body
    assert list(body) == ["message", "type", "param", "code", "request_id"]
    assert body["request_id"] == caught.value.request_id
    return body


def test_a_completion_is_the_answer_with_its_citations_and_receipt(served: Live) -> None:
    found = asked(served, model="thriftrag/default:64")
    direct = served.ask(budget_tokens=64, trace=False).json()
    [choice] = found.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "27 months [1].", "stop")
    assert (found.object, found.model, found.system_fingerprint) == ("chat.completion", "thriftrag/default:64", direct["config"])
    assert abs(found.created - time.time()) < 60
    told = extras(found)
    for name in ("question", "answer", "verdict", "reason", "citations", "snapshot", "config", "trace"):
        assert told[name] == direct[name]
    receipt = told["receipt"]
    assert receipt["context_tokens"] <= receipt["budget_tokens"] == 64
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (receipt["prompt_tokens"], receipt["completion_tokens"])
    assert found.usage.total_tokens == receipt["prompt_tokens"] + receipt["completion_tokens"]
    assert (told["carried"], told["ignored"]) == ([], [])


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_has_the_chunks_that_clients_expect(served: Live, usage: bool) -> None:
    with client_of(served) as client:
        options: Any = {"stream_options": {"include_usage": True}} if usage else {}
        chunks: list[Any] = list(client.chat.completions.create(model="thriftrag", messages=ASKED, stream=True, **options))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    ends = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason is not None]
    assert [chunk.choices[0].finish_reason for chunk in ends] == ["stop"]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "27 months [1]."
    told = extras(ends[0])
    assert (told["answer"], told["citations"][0]["doc_id"]) == ("27 months [1].", "pump")
    assert (chunks[-1].usage is not None) == usage
    if usage:
        assert chunks[-1].choices == []
        assert chunks[-1].usage.prompt_tokens == told["receipt"]["prompt_tokens"]
        assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_ends_with_done_and_nothing_after_it(served: Live) -> None:
    response = served.client().post("/v1/chat/completions", json={"model": "thriftrag", "messages": ASKED, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: {") for line in lines[:-1])
    assert [("usage" in json.loads(line[6:])) for line in lines[:-1]] == [False] * (len(lines) - 1)


def test_the_text_comes_as_the_reader_says_it(served: Live) -> None:
    served.reader.gate.clear()
    with client_of(served) as client, client.chat.completions.create(model="thriftrag", messages=ASKED, stream=True) as stream:
        pieces = (chunk.choices[0].delta.content for chunk in stream)
        assert (next(pieces), next(pieces)) == ("", "27")
        assert served.reader.running == 1
        served.reader.gate.set()
        assert "".join(piece or "" for piece in pieces) == " months [1]."


def test_terms_may_stand_in_the_extra_body(served: Live) -> None:
    found = asked(served, extra_body={"collection": "default", "budget_tokens": 48, "selector": "topk", "trace": True,
                                      "filters": {"year": {"lt": 2000}}, "deadline_s": 60.0})
    told = extras(found)
    assert told["receipt"]["budget_tokens"] == 48
    [select] = [step for step in told["trace"] if step["stage"] == "select"]
    assert {row["source"] for row in select["considered"]} == {"stdin#otter"}
    assert select["selector"] == "topk"


def test_a_shorter_answer_can_be_asked_for_but_no_longer_one(fresh: Live) -> None:
    most = fresh.service.settings.reader_max_tokens
    seen: list[int] = []
    generate = fresh.reader.generate
    fresh.reader.generate = lambda messages, **options: (  # type: ignore[method-assign, assignment]
        seen.append(options["max_tokens"]), generate(messages, **options))[1]
    for options in ({"max_tokens": 5}, {"max_completion_tokens": 7, "max_tokens": 9}, {"max_tokens": most + 1}, {}):
        asked(fresh, **options)  # type: ignore[arg-type]
    assert seen == [5, 7, most, most]


def test_a_question_that_leans_on_earlier_turns_takes_their_words_along_and_pays_for_them(fresh: Live) -> None:
    history = [*ASKED, {"role": "assistant", "content": "27 months [1]."}]
    read: list[str] = []
    generate = fresh.reader.generate
    fresh.reader.generate = lambda messages, **options: (  # type: ignore[method-assign, assignment]
        read.append(messages[-1].content), generate(messages, **options))[1]
    found = extras(asked(fresh, [*history, {"role": "user", "content": "And where are its spare parts kept?"}],
                         extra_body={"budget_tokens": 64}))
    assert found["carried"] == ["27 months", "long", "warranty", "Zeta pump"]
    added = " (27 months, long, warranty, Zeta pump)"
    assert found["question"] == "And where are its spare parts kept?"
    assert f"{found['question']}{added}" in read[-1]
    assert found["receipt"]["budget_tokens"] == 64 - -(-len(added) // 3)
    alone = extras(asked(fresh, [*history, {"role": "user", "content": "How do otters sleep at night?"}]))
    assert (alone["question"], alone["carried"]) == ("How do otters sleep at night?", [])
    assert "pump" not in read[-1].lower().rpartition("question:")[2]


def test_a_reader_that_writes_the_queries_reads_the_conversation_of_a_chat(fresh: Live) -> None:
    said = [*ASKED, {"role": "assistant", "content": "27 months [1]."}]
    follow_up = [*said, {"role": "user", "content": "Where are its parts kept?"}]
    found = extras(asked(fresh, follow_up, extra_body={"rewriter": "llm", "trace": True}))
    [step] = [step for step in found["trace"] if step["stage"] == "rewrite"]
    assert (step["rewriter"], step["history"], found["receipt"]["llm_calls"]) == ("llm", 2, 2)
    long = [{"role": role, "content": "Pumps. " * size} for size in (1200, *[9] * 40) for role in ("user", "assistant")]
    assert asked(fresh, [*long, *follow_up]).choices[0].message.content == "27 months [1]."


def test_what_changes_nothing_is_named_and_what_would_is_refused(served: Live) -> None:
    system = {"role": "system", "content": "Talk like a pirate."}
    found = extras(asked(served, [system, *ASKED], temperature=0.7, stop=["x"], user="ada", n=1, tools=[], tool_choice="auto",
                         response_format={"type": "text"}, logprobs=False))
    assert found["ignored"] == ["temperature", "stop", "user", "messages[system]"]
    assert "pirate" not in found["question"]
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    for name, value in (("n", 2), ("tools", [tool]), ("logprobs", True), ("response_format", {"type": "json_object"}),
                        ("modalities", ["text", "audio"]), ("tool_choice", "required"), ("web_search_options", {})):
        body = refused(served, 400, "unsupported_parameter", **{name: value})
        assert body["param"] == name
        assert body["type"] == "invalid_request_error"
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    parts = [{"type": "text", "text": QUESTION}]
    assert "image_url" in refused(served, 400, "unsupported_parameter", messages=[{"role": "user", "content": [*parts, picture]}]
                                  )["message"]
    assert extras(asked(served, [{"role": "user", "content": parts}]))["question"] == QUESTION


@pytest.mark.parametrize(("options", "status", "code", "param"), [
    ({"model": "gpt-4o"}, 404, "model_not_found", "model"),
    ({"model": "thriftrag/nothing"}, 404, "model_not_found", "model"),
    ({"model": "thriftrag/../etc"}, 404, "model_not_found", "model"),
    ({"model": "thriftrag/default:0"}, 400, "budget_too_small", "model"),
    ({"model": "thriftrag/default:9999999"}, 404, "model_not_found", "model"),
    ({"model": "thriftrag/default:999999"}, 400, "budget_invalid", "budget_tokens"),
    ({"model": "thriftrag:64", "extra_body": {"budget_tokens": 65}}, 400, "input_invalid", "budget_tokens"),
    ({"model": "thriftrag/a", "extra_body": {"collection": "b"}}, 400, "input_invalid", "model"),
    ({"messages": []}, 400, "input_invalid", "messages"),
    ({"messages": [{"role": "system", "content": "x"}]}, 400, "input_invalid", "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, 400, "input_invalid", "messages.0.role"),
    ({"messages": [{"role": "user", "content": " "}]}, 400, "question_empty", "messages"),
    ({"messages": [{"role": "user", "content": "x" * 9000}]}, 400, "context_length_exceeded", "messages"),
    ({"extra_body": {"budgettokens": 5}}, 400, "unknown_parameter", "budgettokens"),
    ({"extra_body": {"reader": "gpt-4o"}}, 400, "model_unknown", "model"),
    ({"stream_options": {"include_usage": True}}, 400, "input_invalid", "stream_options"),
    ({"max_tokens": 0}, 400, "input_invalid", "max_tokens"),
])
def test_what_cannot_be_is_refused_as_such_clients_know_it(served: Live, options: dict[str, Any], status: int, code: str,
                                                           param: str) -> None:
    body = refused(served, status, code, **options)
    assert body["param"] == param
    assert body["message"]


def test_the_edge_speaks_the_same_language(tmp_path: Path) -> None:
    with live(tmp_path, body_kb=2) as served:
        refused(served, 413, "body_too_large", messages=[{"role": "user", "content": "x" * 3000}])
        response = served.client().post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"})
        assert (response.status_code, response.json()["error"]["code"]) == (400, "json_invalid")
        assert served.client().get("/v1/chat/completions").json()["error"]["code"] == "method_not_allowed"


def test_no_answer_says_so_in_words(tmp_path: Path) -> None:
    with live(tmp_path, settings={"abstain_below": 0.95}) as served:
        found = asked(served, [{"role": "user", "content": "qwertz uiop asdf"}])
        assert found.choices[0].message.content == "I don't know."
        assert extras(found)["verdict"] == "abstained"
        assert found.usage is not None
        assert found.usage.total_tokens == 0
        with client_of(served) as client:
            streamed: Any = client.chat.completions.create(model="thriftrag", stream=True, messages=[
                {"role": "user", "content": "qwertz uiop asdf"}])
            assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "I don't know."


def test_an_answer_that_time_cut_short_says_length(served: Live) -> None:
    served.reader.gate.clear()
    found = asked(served, extra_body={"deadline_s": 3.0})
    assert (found.choices[0].finish_reason, extras(found)["verdict"]) == ("length", "degraded")


def test_errors_before_and_inside_a_stream(served: Live) -> None:
    served.reader.error = ModelUnavailable("Nothing answers at http://127.0.0.1:9/v1.", hint="Start it.")
    assert "Start it." in refused(served, 503, "model_unavailable")["message"]
    with client_of(served) as client:
        stream: Any = client.chat.completions.create(model="thriftrag", messages=ASKED, stream=True)
        with pytest.raises(openai.APIError, match="Nothing answers"):
            list(stream)
    raw = served.client().post("/v1/chat/completions", json={"model": "thriftrag", "messages": ASKED, "stream": True}).text
    assert "[DONE]" not in raw


def test_what_would_be_paid_twice_is_not_tried_again_and_a_full_line_is(tmp_path: Path) -> None:
    with live(tmp_path, ask_threads=1, ask_waiting=0) as served, ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as again:
        served.reader.error = DeadlineExceeded("Too late.")
        with client_of(served, max_retries=2) as client, pytest.raises(openai.APIStatusError):
            client.chat.completions.create(model="thriftrag", messages=ASKED)
        assert len(served.reader.spent) == 1
        served.reader.error = None
        served.reader.gate.clear()
        first = pool.submit(asked, served)
        wait_until(lambda: served.reader.running == 1)
        refused(served, 429, "overloaded")
        with client_of(served, max_retries=1) as client:
            second = again.submit(lambda: client.chat.completions.create(model="thriftrag", messages=ASKED))
            wait_until(lambda: served.service.asks.shed >= 2)
            served.reader.gate.set()
            assert second.result().choices[0].message.content == first.result().choices[0].message.content


def test_keys_are_bearer_tokens_with_their_collections_and_ceilings(fresh: Live) -> None:
    make_collection(fresh.service.settings, fresh.service.models.encoder(), name="secret")  # type: ignore[arg-type]
    key = fresh.key("narrow", collections=("default",))
    assert refused(fresh, 401, "invalid_api_key", key="wrong")["type"] == "authentication_error"
    assert fresh.client().get("/v1/models").json()["error"]["code"] == "invalid_api_key"
    assert refused(fresh, 404, "model_not_found", key=key, model="thriftrag/secret")["param"] == "model"
    spent = fresh.key("spent", tokens_per_day=10)
    assert refused(fresh, 429, "insufficient_quota", key=spent)["type"] == "insufficient_quota"
    with client_of(fresh, key) as client:
        assert [model.id for model in client.models.list()] == ["thriftrag/default"]
        shown = client.models.retrieve("thriftrag/default")
        assert (shown.id, shown.owned_by, shown.object) == ("thriftrag/default", "thriftrag", "model")
        assert shown.created > 1_600_000_000
        assert client.models.retrieve("thriftrag").id == "thriftrag/default"
        for missing in ("thriftrag/secret", "gpt-4o"):
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve(missing)


def test_the_ledger_counts_what_clients_are_told(fresh: Live) -> None:
    found = asked(fresh)
    assert found.usage is not None
    [row] = fresh.client().get("/v1/usage", params={"group_by": "endpoint"}).json()["rows"]
    assert (row["endpoint"], row["requests"]) == ("chat", 1)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (found.usage.prompt_tokens, found.usage.completion_tokens)
    posted = fresh.client().post("/v1/feedback", json={"answer_id": extras(found)["id"], "rating": "up"})
    assert posted.status_code in (200, 201)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_work_and_is_billed(fresh: Live, stream: bool) -> None:
    fresh.reader.gate.clear()
    with client_of(fresh) as client:
        if stream:
            chunks = client.chat.completions.create(model="thriftrag", messages=ASKED, stream=True)
            next(iter(chunks))
            assert fresh.reader.began.acquire(timeout=60)
            left = time.monotonic()
            chunks.close()
        else:
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(client.with_options(timeout=httpx.Timeout(2.0)).chat.completions.create,
                                      model="thriftrag", messages=ASKED)
                assert fresh.reader.began.acquire(timeout=60)
                with pytest.raises(openai.APITimeoutError):
                    waiting.result()
                left = time.monotonic()
    wait_until(lambda: fresh.reader.stopped_at is not None)
    assert fresh.reader.stopped_at is not None
    assert fresh.reader.stopped_at - left < 1.0
    fresh.quiet()
    [row] = fresh.client().get("/v1/usage", params={"group_by": "outcome"}).json()["rows"]
    assert (row["outcome"], row["requests"]) == ("cancelled", 1)
    assert (row["prompt_tokens"], row["completion_tokens"]) == fresh.reader.spent[0]


def test_the_description_has_both_shapes(served: Live) -> None:
    described = served.client().get("/openapi.json").json()
    chat = described["paths"]["/v1/chat/completions"]["post"]
    assert chat["x-scope"] == "read"
    assert "422" not in chat["responses"]
    assert chat["responses"]["404"]["content"]["application/json"]["schema"]["$ref"].endswith("/OpenAIErrorBody")
    assert described["paths"]["/v1/ask"]["post"]["responses"]["404"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "/ErrorBody")
