"""A model server that is down, slow, broken or talks nonsense, and a local model process that dies: each has its error, in
time, and nothing is left running."""

from __future__ import annotations

import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from rag.errors import ModelRefused, ModelTimeout, ModelUnavailable, UpstreamError
from rag.llm import Generation, Message
from rag.llm.embedded import EmbeddedReader
from rag.llm.engine import Engine
from rag.llm.openai_compatible import OpenAICompatibleReader
from rag.tokens import ByteEstimate, ServerTokenizer
from tests.fake_server import FakeServer, Script
from tests.tiny_reader import write_tiny_folder

MESSAGES = [Message("system", "Answer shortly."), Message("user", "How long is the warranty of the Zeta pump?")]
KEY = "sk-secret-key-that-must-not-show"

Open = Callable[..., OpenAICompatibleReader]


@pytest.fixture
def open_reader() -> Iterator[Open]:
    import openai  # noqa: F401  # its first import takes longer than some deadlines here

    opened: list[OpenAICompatibleReader] = []

    def open_one(url: str, **options: object) -> OpenAICompatibleReader:
        tokenizer = ServerTokenizer(url, model="fake", estimate=ByteEstimate)
        opened.append(OpenAICompatibleReader(url, model="fake", tokenizer=tokenizer, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for reader in opened:
        reader.close()


def after(seconds: float) -> float:
    return time.monotonic() + seconds


def test_a_whole_answer_is_billed_as_the_server_counted_it(open_reader: Open) -> None:
    with FakeServer() as server:
        pieces: list[str] = []
        answer = open_reader(server.url).generate(MESSAGES, max_tokens=16, on_token=pieces.append)
    assert (answer.text, answer.finish) == ("The answer is 42.", "stop")
    assert "".join(pieces) == answer.text
    assert len(pieces) == 5
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens) == (11, 6, 8)
    assert answer.counted_by == "server"
    assert answer.first_token_s is not None
    assert answer.first_token_s <= answer.seconds
    body = server.chats[0].body
    assert (body["temperature"], body["max_tokens"], body["stream_options"]) == (0, 16, {"include_usage": True})
    assert body["messages"] == [{"role": m.role, "content": m.content} for m in MESSAGES]


@pytest.mark.parametrize("dialect", ["vllm", "llama.cpp"])
def test_without_usage_the_servers_tokenizer_counts(open_reader: Open, dialect: Literal["vllm", "llama.cpp"]) -> None:
    with FakeServer(Script(usage=None), tokenize=dialect) as server:
        answer = open_reader(server.url).generate(MESSAGES, max_tokens=16)
    assert answer.counted_by == "tokenizer"
    assert answer.completion_tokens == 4                # the fake's tokens are words, its template has 2 a message and 1
    assert answer.prompt_tokens == 2 + 9 + 2 * 2 + 1


def test_without_usage_and_tokenizer_the_count_is_an_estimate_and_says_so(open_reader: Open) -> None:
    with FakeServer(Script(usage=None)) as server:
        reader = open_reader(server.url)
        answer = reader.generate(MESSAGES, max_tokens=16)
    assert answer.counted_by == "tokenizer"
    assert reader.tokenizer.exact is False
    assert answer.completion_tokens == ByteEstimate().count(answer.text)


def test_silence_before_the_first_word_is_a_timeout_and_the_connection_is_closed(open_reader: Open) -> None:
    with FakeServer(Script(fault="stall_first")) as server:
        started = time.monotonic()
        with pytest.raises(ModelTimeout) as caught:
            open_reader(server.url).generate(MESSAGES, max_tokens=16, deadline=after(0.3))
        assert 0.25 < time.monotonic() - started < 1.0
        assert server.wait_left() is not None
    assert "deadline" in caught.value.hint


def test_silence_in_the_middle_gives_what_came_when_the_deadline_passes(open_reader: Open) -> None:
    with FakeServer(Script(fault="stall_mid")) as server:
        started = time.monotonic()
        answer = open_reader(server.url).generate(MESSAGES, max_tokens=16, deadline=after(0.4))
        assert 0.35 < time.monotonic() - started < 1.2
        left = server.wait_left()
        assert left is not None
        assert left - started < 1.4
    assert (answer.text, answer.finish) == ("The answer", "deadline")
    assert answer.counted_by == "tokenizer"
    assert answer.completion_tokens >= 2


@pytest.mark.parametrize("fault", ["stall_first", "stall_mid"])
def test_silence_without_a_deadline_ends_too(open_reader: Open, fault: str) -> None:
    with FakeServer(Script(fault=fault)) as server:  # type: ignore[arg-type]
        reader = open_reader(server.url, stall_s=0.3)
        started = time.monotonic()
        if fault == "stall_first":
            with pytest.raises(ModelTimeout):
                reader.generate(MESSAGES, max_tokens=16)
        else:
            assert reader.generate(MESSAGES, max_tokens=16).finish == "deadline"
        assert time.monotonic() - started < 1.5


def test_a_deadline_that_has_passed_costs_no_request_time(open_reader: Open) -> None:
    with FakeServer() as server, pytest.raises(ModelTimeout):
        open_reader(server.url).generate(MESSAGES, max_tokens=16, deadline=after(-1))


def test_cancelling_closes_the_connection_within_a_second(open_reader: Open) -> None:
    with FakeServer(Script(words=("word ",), repeat=400, pause_s=0.02)) as server:
        stop = threading.Event()
        pieces: list[str] = []

        def on_token(text: str) -> None:
            pieces.append(text)
            if len(pieces) == 3:
                stop.set()

        reader = open_reader(server.url)
        started = time.monotonic()
        answer = reader.generate(MESSAGES, max_tokens=16, on_token=on_token, cancelled=stop.is_set)
        returned = time.monotonic()
        left = server.wait_left()
        sent = server.chats[0].words_sent
    assert answer.finish == "cancelled"
    assert answer.text == "".join(pieces)
    assert returned - started < 1.5
    assert left is not None
    assert left - returned < 1.0
    assert sent < 100


def test_cancelling_before_the_first_word_works_too(open_reader: Open) -> None:
    with FakeServer(Script(fault="stall_first")) as server:
        began = time.monotonic()
        answer = open_reader(server.url).generate(MESSAGES, max_tokens=16, cancelled=lambda: time.monotonic() - began > 0.2)
        assert time.monotonic() - began < 1.0
        assert server.wait_left() is not None
    assert (answer.finish, answer.text) == ("cancelled", "")


def test_an_error_in_the_callers_callback_ends_the_request(open_reader: Open) -> None:
    with FakeServer(Script(words=("word ",), repeat=400, pause_s=0.02)) as server:
        def on_token(_: str) -> None:
            raise BrokenPipeError("the page was closed")

        with pytest.raises(BrokenPipeError):
            open_reader(server.url).generate(MESSAGES, max_tokens=16, on_token=on_token)
        assert server.wait_left() is not None


@pytest.mark.parametrize(("status", "kind", "requests", "hint"), [
    (401, ModelRefused, 1, "THRIFTRAG_READER_API_KEY"),
    (403, ModelRefused, 1, "THRIFTRAG_READER_API_KEY"),
    (404, ModelUnavailable, 1, "/models"),
    (400, ModelRefused, 1, "reader"),
    (429, ModelRefused, 3, "Wait"),
    (500, ModelRefused, 1, "log"),
    (503, ModelUnavailable, 3, "log"),
])
def test_each_status_has_its_error_and_only_passing_ones_are_tried_again(
        open_reader: Open, status: int, kind: type[UpstreamError], requests: int, hint: str) -> None:
    with FakeServer(Script(status=status, headers={"Retry-After": "0"})) as server:
        with pytest.raises(UpstreamError) as caught:
            open_reader(server.url, api_key=KEY).generate(MESSAGES, max_tokens=16)
        assert type(caught.value) is kind
        assert len(server.chats) == requests
        assert f"127.0.0.1:{server.url.split(':')[2]}" in caught.value.message
    assert hint in caught.value.hint
    assert KEY not in str(caught.value)


def test_a_passing_failure_is_survived(open_reader: Open) -> None:
    with FakeServer(Script(status=503, headers={"Retry-After": "0"}), Script(fault="drop_first"), Script()) as server:
        assert open_reader(server.url).generate(MESSAGES, max_tokens=16).text == "The answer is 42."
        assert len(server.chats) == 3


def test_retry_after_is_waited_for(open_reader: Open) -> None:
    with FakeServer(Script(status=429, headers={"Retry-After": "0.5"}), Script()) as server:
        assert open_reader(server.url).generate(MESSAGES, max_tokens=16).finish == "stop"
        first, second = server.chats
    assert second.at - first.at >= 0.5


def test_retry_after_beyond_the_deadline_is_not_waited_for(open_reader: Open) -> None:
    with FakeServer(Script(status=429, headers={"Retry-After": "20"})) as server:
        started = time.monotonic()
        with pytest.raises(ModelRefused):
            open_reader(server.url).generate(MESSAGES, max_tokens=16, deadline=after(5))
        assert time.monotonic() - started < 1.0


def test_nothing_listens(open_reader: Open) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://user:{KEY}@127.0.0.1:{free.getsockname()[1]}/v1"
    started = time.monotonic()
    with pytest.raises(ModelUnavailable) as caught:
        open_reader(url).generate(MESSAGES, max_tokens=16)
    assert time.monotonic() - started < 3.0
    assert "reader_url" in caught.value.hint
    assert "127.0.0.1" in caught.value.message
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(("fault", "kind"), [
    ("drop_mid", ModelUnavailable), ("cut_mid", ModelUnavailable), ("garbage", ModelRefused), ("error_mid", ModelRefused)])
def test_a_stream_that_breaks_in_the_middle_is_an_error_and_not_an_answer(
        open_reader: Open, fault: str, kind: type[UpstreamError]) -> None:
    with FakeServer(Script(fault=fault)) as server:  # type: ignore[arg-type]
        with pytest.raises(UpstreamError) as caught:
            open_reader(server.url).generate(MESSAGES, max_tokens=16)
        assert type(caught.value) is kind
        assert len(server.chats) == 1, "text had come: the caller has seen it, so nothing is asked again"


def test_a_stream_that_breaks_before_any_text_is_tried_again(open_reader: Open) -> None:
    with FakeServer(Script(fault="cut_mid", at=0), Script()) as server:
        assert open_reader(server.url).generate(MESSAGES, max_tokens=16).text == "The answer is 42."


def test_a_web_page_is_no_answer(open_reader: Open) -> None:
    with FakeServer(Script(fault="html")) as server, pytest.raises(ModelRefused) as caught:
        open_reader(server.url).generate(MESSAGES, max_tokens=16)
    assert "/v1" in caught.value.hint


def test_an_empty_answer_is_an_answer_and_is_billed(open_reader: Open) -> None:
    with FakeServer(Script(words=())) as server:
        answer = open_reader(server.url).generate(MESSAGES, max_tokens=16)
    assert (answer.text, answer.finish, answer.prompt_tokens, answer.first_token_s) == ("", "stop", 11, None)


def test_the_token_limit_is_reported(open_reader: Open) -> None:
    with FakeServer(Script(finish="length")) as server:
        assert open_reader(server.url).generate(MESSAGES, max_tokens=5).finish == "length"


def test_endless_repetition_is_stopped_and_the_connection_closed(open_reader: Open) -> None:
    with FakeServer(Script(words=(" so", " on", " and"), repeat=500, pause_s=0.005)) as server:
        answer = open_reader(server.url).generate(MESSAGES, max_tokens=4096)
        assert server.wait_left() is not None
        sent = server.chats[0].words_sent
    assert answer.finish == "repetition"
    assert answer.completion_tokens > 0
    assert sent < 300


def test_a_stop_string_ends_the_answer_before_it(open_reader: Open) -> None:
    with FakeServer(Script(words=("The", " ans", "wer: ", "42", "\nQues", "tion: more"))) as server:
        pieces: list[str] = []
        answer = open_reader(server.url).generate(MESSAGES, max_tokens=16, stop=["\nQuestion:"], on_token=pieces.append)
        assert server.chats[0].body["stop"] == ["\nQuestion:"]
    assert answer.text == "".join(pieces) == "The answer: 42"
    assert answer.finish == "stop"


def test_a_server_that_forgets_to_close_the_stream_does_not_hold_the_answer(open_reader: Open) -> None:
    with FakeServer(Script(fault="no_done", usage=None)) as server:
        started = time.monotonic()
        answer = open_reader(server.url).generate(MESSAGES, max_tokens=16)
        assert time.monotonic() - started < 4.0
    assert (answer.text, answer.finish) == ("The answer is 42.", "stop")


def test_parameters_that_a_server_does_not_take_are_left_out_and_remembered(open_reader: Open) -> None:
    with FakeServer(Script(status=400, message="Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
                    Script(status=400, message="Unsupported value: 'temperature' does not support 0."), Script()) as server:
        reader = open_reader(server.url)
        assert reader.generate(MESSAGES, max_tokens=16).finish == "stop"
        assert reader.generate(MESSAGES, max_tokens=16).finish == "stop"
        last = server.chats[-1].body
        assert len(server.chats) == 4
    assert last["max_completion_tokens"] == 16
    assert "temperature" not in last
    assert "max_tokens" not in last


SCHEMA = {"type": "object", "properties": {"hops": {"type": "array", "items": {"type": "string"}}}, "required": ["hops"]}


def test_a_server_is_asked_for_a_schema_and_without_it_where_it_takes_none(open_reader: Open) -> None:
    with FakeServer(Script(words=('{"hops":', "[]}"))) as server:
        reader = open_reader(server.url)
        assert reader.generate_json(MESSAGES, schema=SCHEMA, max_tokens=16).text == '{"hops":[]}'
        assert server.chats[0].body["response_format"] == {
            "type": "json_schema", "json_schema": {"name": "reply", "schema": SCHEMA, "strict": True}}
        assert reader.generate(MESSAGES, max_tokens=16).finish == "stop"
        assert "response_format" not in server.chats[1].body
    with FakeServer(Script(status=400, message="json_schema is not supported by this model"), Script()) as server:
        reader = open_reader(server.url)
        assert reader.generate_json(MESSAGES, schema=SCHEMA, max_tokens=16).finish == "stop"
        assert reader.generate_json(MESSAGES, schema=SCHEMA, max_tokens=16).finish == "stop"
        assert ["response_format" in chat.body for chat in server.chats] == [True, False, False]
    with FakeServer(Script(status=400, message="the prompt is too long")) as server:
        with pytest.raises(ModelRefused, match="too long"):
            open_reader(server.url).generate_json(MESSAGES, schema=SCHEMA, max_tokens=16)
        assert len(server.chats) == 1


def test_a_servers_complaint_is_repeated_but_not_the_prompt_or_the_key(open_reader: Open) -> None:
    complaints = ("the context is full", f"bad input: {MESSAGES[1].content}", f"bad key {KEY}")
    with FakeServer(*(Script(status=400, message=complaint) for complaint in complaints)) as server:
        reader = open_reader(server.url, api_key=KEY)
        said = []
        for _ in range(3):
            with pytest.raises(ModelRefused) as caught:
                reader.generate(MESSAGES, max_tokens=16)
            said.append(str(caught.value))
    assert "the context is full" in said[0]
    assert "warranty" not in said[1]
    assert KEY not in said[2]


def test_two_answers_at_once(open_reader: Open) -> None:
    with FakeServer(Script(pause_s=0.1)) as server:
        reader = open_reader(server.url)
        answers: list[Generation] = []

        def ask() -> None:
            answers.append(reader.generate(MESSAGES, max_tokens=16))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - started < 2.0
    assert [answer.text for answer in answers] == ["The answer is 42."] * 4


def test_closing_ends_what_is_running_and_refuses_more(open_reader: Open) -> None:
    with FakeServer(Script(fault="stall_first")) as server:
        reader = open_reader(server.url)
        threading.Timer(0.3, reader.close).start()
        started = time.monotonic()
        with pytest.raises(ModelUnavailable, match="closed"):
            reader.generate(MESSAGES, max_tokens=16)
        assert time.monotonic() - started < 2.0
        with pytest.raises(ModelUnavailable, match="closed"):
            reader.generate(MESSAGES, max_tokens=16)


# The process of an embedded reader, played by small scripts.

def worker(tmp_path: Path, body: str) -> list[str]:
    """A command that stands in for the worker; the parts of `body` are indented alike."""
    file = tmp_path / "worker.py"
    begin = "import json, os, sys, time\ndef say(message):\n    print(json.dumps(message), flush=True)\n"
    file.write_text(begin + textwrap.dedent(body), encoding="utf-8")
    return [sys.executable, str(file)]


ECHO = """
    say({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        if "id" in order:
            say({"step": True})
            say({"id": order["id"], "ids": order["ids"][-3:]})
            say({"id": order["id"], "end": "stop"})
"""
DIES_ONCE = """
    if not os.path.exists("MARK"):
        open("MARK", "w").close()
        order = json.loads(sys.stdin.readline())
        say({"id": order["id"], "ids": order["ids"][-1:]})
        print("out of memory", file=sys.stderr)
        os._exit(3)
"""
HANGS_ONCE = """
    if not os.path.exists("MARK"):
        open("MARK", "w").close()
        say({"ready": True})
        time.sleep(60)
"""


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Callable[..., EmbeddedReader]]:
    opened: list[EmbeddedReader] = []

    def open_one(body: str, *, stall_s: float = 30.0) -> EmbeddedReader:
        command = worker(tmp_path, body.replace("MARK", str(tmp_path / "mark")))
        opened.append(EmbeddedReader(write_tiny_folder(tmp_path / "model"), command=command, stall_s=stall_s))
        return opened[-1]

    yield open_one
    for reader in opened:
        reader.close()


Embed = Callable[..., EmbeddedReader]


def test_a_worker_answers_what_it_was_sent(embedded: Embed) -> None:
    reader = embedded(ECHO)
    answer = reader.generate(MESSAGES, max_tokens=4)
    assert answer.text == "nt\n"                        # the last bytes of the template
    assert (answer.finish, answer.completion_tokens) == ("stop", 3)
    assert answer.prompt_tokens == reader.prompt_tokens(MESSAGES)


def test_a_worker_is_told_the_schema(embedded: Embed) -> None:
    reader = embedded("""
    say({"ready": True})
    for line in sys.stdin:
        order = json.loads(line)
        if "id" in order:
            held = order.get("schema") == json.dumps({"type": "object"})
            say({"id": order["id"], "ids": order["ids"][-2:] if held else order["ids"][-1:]})
            say({"id": order["id"], "end": "stop"})
    """)
    assert reader.generate_json(MESSAGES, schema={"type": "object"}, max_tokens=4).completion_tokens == 2
    assert reader.generate(MESSAGES, max_tokens=4).completion_tokens == 1


def test_a_worker_that_dies_is_reported_with_its_last_words_and_replaced(embedded: Embed) -> None:
    reader = embedded(DIES_ONCE + ECHO)
    with pytest.raises(ModelUnavailable) as caught:
        reader.generate(MESSAGES, max_tokens=4)
    assert "code 3" in caught.value.message
    assert "out of memory" in caught.value.message
    assert reader.generate(MESSAGES, max_tokens=4).finish == "stop"


def test_a_worker_that_hangs_is_killed_and_replaced(embedded: Embed) -> None:
    reader = embedded(HANGS_ONCE + ECHO, stall_s=0.5)
    started = time.monotonic()
    with pytest.raises(ModelTimeout):
        reader.generate(MESSAGES, max_tokens=4)
    assert time.monotonic() - started < 3.0
    assert reader.generate(MESSAGES, max_tokens=4).finish == "stop"


def test_a_worker_that_hangs_is_found_out_by_short_deadlines_too(embedded: Embed) -> None:
    reader = embedded(HANGS_ONCE + ECHO, stall_s=0.5)
    for _ in range(2):
        with pytest.raises(ModelTimeout):
            reader.generate(MESSAGES, max_tokens=4, deadline=after(0.4))
    assert reader.generate(MESSAGES, max_tokens=4).finish == "stop"


def test_a_worker_that_was_idle_for_long_is_not_taken_for_one_that_hangs(embedded: Embed) -> None:
    reader = embedded(ECHO, stall_s=5.0)
    reader.generate(MESSAGES, max_tokens=4)
    engine = reader._engine
    assert engine is not None
    assert engine.silent_s == 0
    reader.generate(MESSAGES, max_tokens=4)
    assert reader._engine is engine


def test_a_worker_that_is_slow_to_load_does_not_hold_up_the_deadline(embedded: Embed) -> None:
    reader = embedded("    time.sleep(30)\n")
    started = time.monotonic()
    with pytest.raises(ModelTimeout):
        reader.generate(MESSAGES, max_tokens=4, deadline=after(0.3))
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize(("body", "said"), [
    ('    say({"fatal": "no such model"})\n    time.sleep(30)\n', "no such model"),
    ('    print("not json", flush=True)\n', "ended with code 0")])
def test_a_worker_that_cannot_load_or_talks_nonsense(embedded: Embed, body: str, said: str) -> None:
    with pytest.raises(ModelUnavailable, match=said):
        embedded(body).generate(MESSAGES, max_tokens=4)


@pytest.mark.parametrize(("message", "kind"), [
    ({"end": "full"}, ModelUnavailable), ({"refused": "max_new_tokens must be positive"}, ModelRefused)])
def test_a_worker_that_has_no_room_or_refuses(embedded: Embed, message: dict[str, str], kind: type[UpstreamError]) -> None:
    reader = embedded(f"    order = json.loads(sys.stdin.readline())\n    say({{'id': order['id'], **{message}}})\n"
                      "    sys.stdin.readline()\n")
    with pytest.raises(UpstreamError) as caught:
        reader.generate(MESSAGES, max_tokens=4)
    assert type(caught.value) is kind
    if "end" in message:
        assert caught.value.field == "reader_cache_gb"


def test_a_worker_that_loops_is_told_to_stop(embedded: Embed, tmp_path: Path) -> None:
    reader = embedded("""
        order = json.loads(sys.stdin.readline())
        for _ in range(200):
            say({"id": order["id"], "ids": [65, 66, 67]})
        open("MARK", "w").write(sys.stdin.readline())
        sys.stdin.readline()
    """)
    answer = reader.generate(MESSAGES, max_tokens=900)
    assert answer.finish == "repetition"
    assert answer.completion_tokens < 40
    until = after(5)
    while time.monotonic() < until and not (tmp_path / "mark").is_file():
        time.sleep(0.01)
    reader.close()
    assert (tmp_path / "mark").read_text() == '{"cancel": 1}\n'


def test_a_prompt_beyond_the_window_is_refused_before_anything_starts(embedded: Embed) -> None:
    reader = embedded("    sys.exit(1)\n")
    with pytest.raises(ModelRefused, match="4096"):
        reader.generate([Message("user", "word " * 4096)], max_tokens=4)


def test_an_engine_that_ignores_its_stdin_is_killed_on_close(tmp_path: Path) -> None:
    engine = Engine(worker(tmp_path, '    say({"ready": True})\n    time.sleep(60)\n'), name="model")
    ticket = engine.submit([1], max_tokens=4)
    assert ticket.inbox.get(timeout=10) == {"ready": True}
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 8.0
    assert not engine.alive
    assert isinstance(ticket.inbox.get(timeout=1), ModelUnavailable)
    with pytest.raises(ModelUnavailable):
        engine.submit([1], max_tokens=4)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable):
        Engine([str(tmp_path / "missing")], name="model")
