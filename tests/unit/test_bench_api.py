"""The load generator of `bench api`, and its part that needs no model."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from eval.bench import names, summary, takes
from eval.bench._api_leaving import leaving
from eval.bench._api_load import Connection, SlowModel, closed_loop, open_loop, until
from eval.bench.api import Questions
from rag.llm import Message
from rag.llm.openai_compatible import OpenAICompatibleReader
from rag.tokens import ByteEstimate
from tests.api_fakes import QUESTION, live


def test_it_is_a_bench_with_a_summary() -> None:
    assert "api" in names()
    assert summary("api").startswith("The REST service under load")
    assert takes("api") == {"limit"}


def test_requests_are_timed_counted_and_told_apart(tmp_path: Path) -> None:
    def body(number: int) -> tuple[str, dict[str, object]]:
        return "/v1/search", {"query": "otters" if number % 2 else " "}

    async def check(url: str) -> None:
        replies, took = await closed_loop(url, body, clients=3, seconds=0.3)
        assert {reply.status for reply in replies} <= {200, 422}
        assert len(replies) >= 3
        assert all(0 < reply.seconds < took + 1 for reply in replies)
        steady = await open_loop(url, body, rate=50, seconds=0.2)
        assert sorted({reply.status for reply in steady}) == [200, 422]
        assert len(steady) == 10
        assert (await Connection(url).ask("GET", "/readyz")).json()["status"] == "ready"

    with live(tmp_path) as served:
        asyncio.run(check(served.url))
    lost = asyncio.run(Connection(served.url).ask("GET", "/readyz"))
    assert lost.status == 0


def test_waiting_has_an_end() -> None:
    async def never() -> bool:
        return False

    assert asyncio.run(until(never, limit_s=0.05)) is None


def test_the_slow_model_speaks_the_protocol_of_readers() -> None:
    async def check() -> None:
        model = SlowModel()
        async with model.serving() as url:
            reader = OpenAICompatibleReader(url, model="slow", tokenizer=ByteEstimate(), context_window=4096)
            answer = await asyncio.to_thread(reader.generate, [Message("user", QUESTION)], max_tokens=16)
            reader.close()
        assert (answer.text, answer.completion_tokens, answer.counted_by) == ("It is not stated.", 5, "server")
        assert model.asked == 1

    asyncio.run(check())


def test_questions_come_again_or_are_new() -> None:
    sentences = ["Otters sleep holding hands while floating", "Kettles boil water quickly and quietly today"]
    questions, same = Questions(sentences, seed=1), Questions(sentences, seed=1)
    assert questions.known == same.known
    assert questions.again(0) == questions.again(len(questions.known))
    assert len(set(itertools.islice(questions.new(), 50))) > 45


def test_clients_that_leave_hold_no_place_and_are_billed(tmp_path: Path) -> None:
    rows = {row.name: row for row in leaving(tmp_path, count=30, seed=13)}
    assert 0.3 < rows["disconnects: clients that stayed"].value < 0.7
    assert rows["disconnects: places not given back"].value == 0
    assert rows["disconnects: prompt tokens in the ledger"].ratio == 1
    assert rows["disconnects: completion tokens in the ledger"].ratio == 1
    assert rows["disconnects: asked of the reader"].value >= round(30 * rows["disconnects: clients that stayed"].value)
