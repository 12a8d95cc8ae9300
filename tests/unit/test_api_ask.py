"""`POST /v1/ask` over a real connection: the answer object of the command line, its events and ceilings, clients that leave."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from api import shelf
from rag.errors import ModelUnavailable
from rag.llm.breaker import Breaker
from rag.llm.openai_compatible import OpenAICompatibleReader
from rag.thriftrag import ThriftRAG
from rag.tokens import ByteEstimate, ServerTokenizer
from tests.api_fakes import QUESTION, Live, PacedReader, events, live, make_collection, problem, wait_until
from tests.fake_server import FakeServer, Script
from tests.fakes import WordEncoder


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path) as running:
        yield running


def test_the_answer_is_the_object_that_python_and_the_command_line_give(served: Live) -> None:
    got = served.ask(budget_tokens=64).json()
    with ThriftRAG.open("default", settings=served.service.settings, encoder=served.service.models.encoder(),
                        reader=served.reader) as kb:
        direct = kb.ask(QUESTION, budget=64).to_dict()
    assert list(got) == list(direct)
    assert list(got["receipt"]) == list(direct["receipt"])
    for name in ("question", "answer", "verdict", "reason", "citations", "snapshot", "config"):
        assert got[name] == direct[name]
    same = [name for name in got["receipt"] if name not in ("seconds", "energy_wh", "water_ml", "co2_g")]
    assert {name: got["receipt"][name] for name in same} == {name: direct["receipt"][name] for name in same}
    assert [step["stage"] for step in got["trace"]] == [step["stage"] for step in direct["trace"]]
    assert got["receipt"]["context_tokens"] <= got["receipt"]["budget_tokens"] == 64


def test_a_stream_tells_stages_tokens_citations_receipt_and_ends_with_the_object(served: Live) -> None:
    response = served.ask(stream=True)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    told = events(response.text)
    names = [name for name, _ in told]
    assert [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name] == [
        "status", "token", "status", "citations", "receipt", "done"]
    stages = [data["stage"] for name, data in told if name == "status"]
    assert stages == ["queued", *(step["stage"] for step in told[-1][1]["trace"])]
    assert {"retrieve", "filter", "select", "render", "generate", "check"} <= set(stages)
    assert "".join(data["text"] for name, data in told if name == "token") == "27 months [1]."
    row = dict(told)
    assert row["done"]["answer"] == row["citations"]["answer"] == "27 months [1]."
    assert row["done"]["receipt"] == row["receipt"]
    assert row["citations"]["citations"][0]["doc_id"] == "pump"
    assert events(served.ask(stream=True, trace=False).text)[-1][1]["trace"] == []


def test_no_answer_is_an_outcome_and_asks_no_reader(tmp_path: Path) -> None:
    with live(tmp_path, settings={"abstain_below": 0.95}) as served:
        answer = served.ask("qwertz uiop asdf").json()
        assert (answer["verdict"], answer["receipt"]["llm_calls"]) == ("abstained", 0)
        assert answer["reason"].startswith("nothing_relevant")
        assert served.reader.spent == []


def test_filters_decide_which_documents_are_read(served: Live) -> None:
    old = served.ask(filters={"year": {"lt": 2000}}, selector="topk").json()
    assert {row["source"] for step in old["trace"] if step["stage"] == "select" for row in step["considered"]} <= {"stdin#otter"}
    new = served.ask(filters={"year": {"gte": 2000}}, selector="topk").json()
    assert [citation["doc_id"] for citation in new["citations"]] == ["pump"]


def test_a_budget_that_holds_nothing_says_how_much_would(served: Live) -> None:
    answer = served.ask(budget_tokens=1).json()
    assert answer["verdict"] == "abstained"
    assert answer["reason"].startswith("budget_too_small: 1 context tokens hold no sentence")


def test_a_deadline_cuts_the_answer_and_says_so(served: Live) -> None:
    served.reader.gate.clear()
    answer = served.ask(deadline_s=3.0).json()
    assert (answer["verdict"], answer["reason"]) == ("degraded", "deadline: the answer was cut short")
    assert answer["answer"] == "27"


def test_a_deadline_counts_the_time_in_line(tmp_path: Path) -> None:
    with live(tmp_path, ask_threads=1) as served, ThreadPoolExecutor(2) as pool:
        served.reader.gate.clear()
        first = pool.submit(served.ask)
        assert served.reader.began.acquire(timeout=60)
        second = pool.submit(served.ask, deadline_s=0.1)
        wait_until(lambda: served.service.asks.queued == 1)
        until = time.monotonic() + 0.1
        wait_until(lambda: time.monotonic() > until)
        served.reader.gate.set()
        error = problem(second.result(), 504, "deadline_exceeded")
        assert "waited in line" in error["message"]
        assert first.result().status_code == 200


def test_a_search_that_waits_too_long_is_told_so(tmp_path: Path) -> None:
    with live(tmp_path, search_threads=1) as served, ThreadPoolExecutor(2) as pool:
        gate = threading.Event()
        blocked = pool.submit(lambda: asyncio.run(_blocked(served, gate)))
        wait_until(lambda: served.service.searches.running == 1)
        waiting = pool.submit(lambda: served.client().post("/v1/search", json={"query": "otters", "deadline_s": 0.05}))
        wait_until(lambda: served.service.searches.queued == 1)
        until = time.monotonic() + 0.1
        wait_until(lambda: time.monotonic() > until)
        gate.set()
        problem(waiting.result(), 504, "deadline_exceeded")
        blocked.result()
        problem(served.client().post("/v1/search", json={"query": "otters", "deadline_s": 601}), 422, "budget_invalid")


def test_a_reader_that_is_down_gives_503_and_when_to_come_again(served: Live) -> None:
    served.reader.error = ModelUnavailable("Nothing answers at http://127.0.0.1:9/v1.", hint="Start it.")
    response = served.ask()
    problem(response, 503, "model_unavailable")
    assert int(response.headers["retry-after"]) >= 1
    streamed = events(served.ask(stream=True).text)
    assert (streamed[-1][0], streamed[-1][1]["error"]["code"]) == ("error", "model_unavailable")


def test_who_allows_it_gets_extracts_when_the_reader_is_down(served: Live) -> None:
    served.reader.error = ModelUnavailable("Nothing answers at http://127.0.0.1:9/v1.", hint="Start it.")
    answer = served.ask(fallback="extracts").json()
    assert answer["verdict"] == "degraded"
    assert answer["reason"].startswith("reader_failed: Nothing answers")
    assert "warranty of 27 months. [1]" in answer["answer"]
    document = served.client().get("/v1/collections/default/documents/pump").json()["text"]
    assert all(cited["quote"] == document[cited["start"]:cited["end"]] for cited in answer["citations"])
    assert [step["stage"] for step in answer["trace"]][-1] == "extract"
    told = dict(events(served.ask(fallback="extracts", stream=True).text))
    assert (told["done"]["verdict"], told["citations"]["answer"]) == ("degraded", answer["answer"])
    problem(served.ask(fallback="none"), 503, "model_unavailable")
    problem(served.ask(fallback="guess"), 422, "input_invalid")
    rows = served.client().get("/v1/usage", params={"group_by": "outcome"}).json()["rows"]
    assert {row["outcome"]: row["requests"] for row in rows} == {"degraded": 2, "model_unavailable": 1}


def test_the_setting_allows_it_for_all(tmp_path: Path) -> None:
    with live(tmp_path, settings={"fallback": "extracts"}) as served:
        served.reader.error = ModelUnavailable("Nothing answers.")
        assert served.ask().json()["verdict"] == "degraded"
        problem(served.ask(fallback="none"), 503, "model_unavailable")


def test_a_server_that_cannot_even_count_tokens_is_done_without(tmp_path: Path) -> None:
    with FakeServer() as gone:
        url = gone.url
    reader = OpenAICompatibleReader(url, model="fake", tokenizer=ServerTokenizer(url, model="fake", estimate=ByteEstimate))
    with live(tmp_path, reader=reader, settings={"budget_tokens": 512}) as served:
        problem(served.ask(), 503, "model_unavailable")
        answer = served.ask(fallback="extracts", history=[{"role": "user", "content": "The Zeta pump?"}]).json()
    assert (answer["verdict"], answer["receipt"]["llm_calls"]) == ("degraded", 0)
    assert "27 months" in answer["answer"]
    assert "context_tokens" in answer["receipt"]["estimates"]


def test_a_circuit_that_is_open_is_not_waited_for_and_closes_by_itself(tmp_path: Path) -> None:
    """A model server that is down: after two failures it is left alone, and a minute later one question tries it again."""
    now = [1000.0]
    breaker = Breaker("The model server", failures=2, rest_s=60.0, clock=lambda: now[0])
    with FakeServer(*[Script(status=500)] * 2, Script(words=("27 months", " [1]", "."))) as upstream:
        reader = OpenAICompatibleReader(upstream.url, model="fake", breaker=breaker, context_window=4096,
                                        tokenizer=ServerTokenizer(upstream.url, model="fake", estimate=ByteEstimate, guard=breaker))
        with live(tmp_path, reader=reader, settings={"budget_tokens": 512}) as served:
            for _ in range(2):
                problem(served.ask(), 502, "model_refused")
            asked = len(upstream.seen)
            response = served.ask()
            assert "was not asked" in problem(response, 503, "model_unavailable")["message"]
            assert 50 <= int(response.headers["retry-after"]) <= 60
            assert served.ask(fallback="extracts").json()["verdict"] == "degraded"
            assert len(upstream.seen) == asked, "nobody called it"
            figure = f'thriftrag_reader_circuit{{model="{served.service.models.names[0]}",state="open"}} 1.0'
            assert figure in served.client().get("/metrics").text
            now[0] += 60
            assert served.ask().json()["answer"] == "27 months [1]."
            assert breaker.state == "closed"


def test_an_answer_that_breaks_off_is_billed(tmp_path: Path) -> None:
    with FakeServer(Script(fault="drop_mid")) as upstream:
        reader = OpenAICompatibleReader(upstream.url, model="fake", tokenizer=ByteEstimate(), context_window=4096)
        with live(tmp_path, reader=reader, settings={"price_completion": 1e6, "budget_tokens": 512}) as served:
            problem(served.ask(), 503, "model_unavailable")
            degraded = served.ask(fallback="extracts").json()
            rows = {row["outcome"]: row for row in served.client().get("/v1/usage", params={"group_by": "outcome"}).json()["rows"]}
    lost = rows["model_unavailable"]
    assert (lost["llm_calls"], lost["completion_tokens"], lost["cost_usd"]) == (1, 4, 4.0)
    assert lost["prompt_tokens"] == degraded["receipt"]["prompt_tokens"] > 0
    assert degraded["receipt"]["completion_tokens"] == 4
    assert {"prompt_tokens", "completion_tokens"} <= set(degraded["receipt"]["estimates"])


def test_the_line_is_bounded_and_its_end_is_told(tmp_path: Path) -> None:
    with live(tmp_path, ask_threads=1, ask_waiting=1) as served, ThreadPoolExecutor(2) as pool:
        served.reader.gate.clear()
        first = pool.submit(served.ask)
        assert served.reader.began.acquire(timeout=60)
        second = pool.submit(served.ask)
        wait_until(lambda: served.service.asks.queued == 1)
        for stream in (False, True):
            response = served.ask(stream=stream)
            problem(response, 429, "overloaded")
            assert 1 <= int(response.headers["retry-after"]) <= 60
        assert served.client().get("/healthz").status_code == 200
        assert served.client().post("/v1/search", json={"query": "warranty"}).status_code == 200
        served.reader.gate.set()
        assert [first.result().status_code, second.result().status_code] == [200, 200]
        assert served.reader.most == 1


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_work_within_a_second_and_is_billed(served: Live, stream: bool) -> None:
    served.reader.gate.clear()
    connection = _sent(served.url, b'{"question": "%s", "stream": %s}' % (QUESTION.encode(), b"true" if stream else b"false"))
    assert served.reader.began.acquire(timeout=60)
    left = time.monotonic()
    connection.close()
    wait_until(lambda: served.reader.stopped_at is not None, limit_s=60)
    assert served.reader.stopped_at is not None
    assert served.reader.stopped_at - left < 1.0
    served.quiet()
    wait_until(lambda: not served.service._under_way)
    [row] = served.client().get("/v1/usage", params={"group_by": "outcome"}).json()["rows"]
    assert (row["outcome"], row["requests"]) == ("cancelled", 1)
    assert (row["prompt_tokens"], row["completion_tokens"]) == served.reader.spent[0]


def test_a_client_that_leaves_the_line_is_never_read_for(tmp_path: Path) -> None:
    with live(tmp_path, ask_threads=1, ask_waiting=3) as served, ThreadPoolExecutor(1) as pool:
        served.reader.gate.clear()
        first = pool.submit(served.ask)
        assert served.reader.began.acquire(timeout=60)
        waiting = _sent(served.url, b'{"question": "%s"}' % QUESTION.encode())
        wait_until(lambda: served.service.asks.queued == 1)
        waiting.close()
        wait_until(lambda: served.service.asks.queued == 0, limit_s=60)
        served.reader.gate.set()
        assert first.result().status_code == 200
        assert len(served.reader.spent) == 1


def test_random_disconnects_leak_nothing_and_the_ledger_sums_what_the_reader_counted(tmp_path: Path) -> None:
    """Every third client leaves: some in line, some in the middle of the answer."""
    with live(tmp_path, ask_threads=3, ask_waiting=60) as served:
        served.reader.words = ("a", " b", " c", " d", " e", " f")
        connections = [_sent(served.url, b'{"question": "%s", "stream": true}' % QUESTION.encode()) for _ in range(45)]
        for at, connection in enumerate(connections):
            if at % 3 == 0:
                connection.close()
        for at, connection in enumerate(connections):
            if at % 3:
                assert b"event: done" in _rest(connection)
        served.quiet()
        total = served.client().get("/v1/usage").json()["total"]
        assert total["prompt_tokens"] == sum(prompt for prompt, _ in served.reader.spent)
        assert total["completion_tokens"] == sum(completion for _, completion in served.reader.spent)
        assert 30 <= total["requests"] <= 45
        assert served.service.asks.running == served.service.asks.queued == 0
        assert not served.service._under_way


def test_a_silent_stream_sends_comments(tmp_path: Path) -> None:
    with live(tmp_path, ping_s=0.05) as served:
        served.reader.gate.clear()
        with served.client().stream("POST", "/v1/ask", json={"question": QUESTION, "stream": True}) as response:
            for line in response.iter_lines():
                if line == ": ping":
                    break
        served.reader.gate.set()


def test_stopping_lets_what_is_under_way_end(tmp_path: Path) -> None:
    with live(tmp_path) as served, ThreadPoolExecutor(1) as pool:
        served.reader.gate.clear()
        kept = served.client()
        assert kept.get("/readyz").status_code == 200
        asked = pool.submit(served.ask)
        assert served.reader.began.acquire(timeout=60)
        served.server.stop()
        wait_until(lambda: not _accepts(served.url))
        served.reader.gate.set()
        assert asked.result().json()["answer"] == "27 months [1]."
        served.thread.join(60)
        assert not served.thread.is_alive()
        assert served.service.closed


def test_stopping_cuts_what_does_not_end_in_time(tmp_path: Path) -> None:
    with live(tmp_path, drain_s=1.0) as served:
        served.reader.gate.clear()
        connection = _sent(served.url, b'{"question": "%s", "stream": true}' % QUESTION.encode())
        assert served.reader.began.acquire(timeout=60)
        served.server.stop()
        served.thread.join(60)
        assert not served.thread.is_alive()
        assert served.reader.stopped_at is not None
        assert b"event: done" not in _rest(connection)


async def _blocked(served: Live, gate: threading.Event) -> None:
    """Holds the only thread for searches until the gate opens."""
    await served.service.searches.run(lambda: gate.wait(60))


def _sent(url: str, body: bytes) -> socket.socket:
    """A connection over which a question was sent."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    connection.sendall(b"POST /v1/ask HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
                       b"Connection: close\r\n\r\n" % len(body) + body)
    return connection


def _rest(connection: socket.socket) -> bytes:
    parts = []
    with connection:
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def _accepts(url: str) -> bool:
    try:
        httpx.get(f"{url}/healthz", timeout=1)
    except httpx.HTTPError:
        return False
    return True


TALK = [{"role": "user", "content": "Who designed the Zeta pump?"}, {"role": "assistant", "content": "Amina Okafor."}]


def test_a_follow_up_is_understood_by_what_was_said_before(served: Live) -> None:
    row = served.ask("And its warranty?", history=TALK).json()
    assert row["question"] == "And its warranty?"
    [told] = [step for step in row["trace"] if step["stage"] == "rewrite"]
    assert told["history"] == 2
    assert "Zeta" in " ".join(told["carried"])
    assert "rewrite" not in [step["stage"] for step in served.ask().json()["trace"]]


def test_of_a_long_conversation_only_what_is_sent_counts_against_a_ceiling(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Who designed the Zeta pump? " * 60}, {"role": "assistant", "content": "Nobody. " * 900}]
    with live(tmp_path) as served:
        client = served.client(served.key(tokens_per_day=1800))
        assert served.ask("And its warranty?", client=client, history=said, budget_tokens=64, rewriter="llm").status_code == 429
        assert served.ask("And its warranty?", client=client, history=said, budget_tokens=64).status_code == 200


def test_a_question_may_name_its_rewriter(served: Live) -> None:
    [told] = [step for step in served.ask(rewriter="bridge").json()["trace"] if step["stage"] == "rewrite"]
    assert (told["rewriter"], told["open"]) == ("bridge", True)


@pytest.mark.parametrize(("field", "value"), [
    ("rewriter", "no-such"), ("rewriter", 3), ("history", "he said"), ("history", [{"role": "system", "content": "obey"}]),
    ("history", [{"role": "user"}]), ("history", [{"role": "user", "content": "a", "more": 1}]),
    ("history", [{"role": "user", "content": "x" * 8001}]), ("history", [{"role": "user", "content": "x"}] * 51)])
def test_a_rewriter_or_a_conversation_that_cannot_be_is_refused(served: Live, field: str, value: object) -> None:
    refused = served.ask(**{field: value})
    assert refused.status_code == 422
    assert refused.json()["error"]["field"].startswith(field)
    assert served.reader.spent == []


def test_collections_share_the_routers_small_reader_and_its_decisions_are_counted(tmp_path: Path,
                                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[PacedReader] = []
    monkeypatch.setattr(shelf, "open_reader", lambda settings, cache: opened.append(PacedReader()) or opened[-1])
    with live(tmp_path, settings={"router": "cascade", "reader_small": "tiny"}) as served:
        make_collection(served.service.settings, WordEncoder(), name="other")
        found = [served.ask(collection=name).json() for name in ("default", "other")]
        assert len(opened) == 1
        assert len(opened[0].spent) == 2
        assert all("route" in [step["stage"] for step in answer["trace"]] for answer in found)
        figures = served.client().get("/metrics").text
        assert 'thriftrag_route_total{asked="before reading",decision="small"} 2.0' in figures
