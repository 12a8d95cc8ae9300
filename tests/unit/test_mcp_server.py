"""The tools of agents, called by the protocol's own client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from api.mcp_server import Limits, Tools, serving
from api.shelf import Models
from tests.api_fakes import QUESTION, PacedReader, make_collection, make_settings, wait_until
from tests.fakes import WordEncoder


class Agent:
    """A client of a server with one collection, `default`, in this process; every call has a session of its own."""

    def __init__(self, home: Path, **limits: Any) -> None:
        self.settings = make_settings(home)
        self.encoder, self.reader = WordEncoder(), PacedReader()
        make_collection(self.settings, self.encoder)
        self.tools = Tools(self.settings, limits=Limits(**limits), models=Models(
            self.settings, encoder=self.encoder, reader=self.reader))

    def within(self, work: Callable[[Client], Awaitable[Any]]) -> Any:
        async def session() -> Any:
            async with Client(serving(self.tools)) as client:
                return await work(client)

        return asyncio.run(session())

    def call(self, tool: str, **arguments: Any) -> Any:
        return self.within(lambda client: client.call_tool(tool, arguments))

    def refused(self, tool: str, code: str, **arguments: Any) -> str:
        found = self.call(tool, **arguments)
        assert found.is_error
        text: str = found.content[0].text
        assert f": {code}: " in text, text
        return text


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path)
    yield made
    made.reader.gate.set()
    made.tools.close()


def test_an_answer_is_structured_with_citations_and_receipt(agent: Agent) -> None:
    found = agent.call("ask", question=QUESTION, budget_tokens=64)
    assert not found.is_error
    row = found.structured_content
    assert (row["answer"], row["verdict"], row["carried"]) == ("27 months [1].", "answered", [])
    assert row["citations"][0]["doc_id"] == "pump"
    assert row["receipt"]["context_tokens"] <= row["receipt"]["budget_tokens"] == 64
    assert "trace" not in row
    leaning = agent.call("ask", question="And where are its spare parts?", history=[{"role": "user", "text": QUESTION}])
    assert leaning.structured_content["carried"] == ["long", "warranty", "Zeta pump"]


def test_hits_and_collections_are_structured(agent: Agent) -> None:
    hits = agent.call("search", query="otters sleep", k=1).structured_content
    assert [hit["doc_id"] for hit in hits["hits"]] == ["otter"]
    assert agent.call("search", query="otters", filters={"year": {"gte": 2000}}).structured_content["hits"][0]["doc_id"] == "pump"
    listed = agent.call("collections").structured_content
    assert [(row["name"], row["documents"]) for row in listed["collections"]] == [("default", 2)]
    assert (listed["default"], listed["budget_tokens"], listed["most_budget_tokens"]) == ("default", 256, 4096)


def test_tools_describe_themselves(agent: Agent) -> None:
    tools = {tool.name: tool for tool in agent.within(lambda client: client.list_tools()).tools}
    assert set(tools) == {"ask", "search", "collections"}
    assert tools["ask"].input_schema["required"] == ["question"]
    assert set(tools["ask"].output_schema["required"]) >= {"answer", "verdict", "citations", "receipt"}
    assert all(tool.description and tool.annotations.read_only_hint for tool in tools.values())


def test_what_cannot_be_is_told_with_its_code_and_the_way_out(tmp_path: Path) -> None:
    agent = Agent(tmp_path, collections=("default",), most_budget_tokens=100)
    make_collection(agent.settings, agent.encoder, name="secret")
    assert "collections" in agent.refused("ask", "collection_missing", question=QUESTION, collection="secret")
    assert "secret" not in str(agent.call("collections").structured_content)
    agent.refused("ask", "budget_invalid", question=QUESTION, budget_tokens=101)
    agent.refused("ask", "budget_invalid", question=QUESTION, deadline_s=-1.0)
    agent.refused("ask", "question_empty", question=" ")
    agent.refused("search", "input_invalid", query="x", k=0)
    agent.refused("search", "input_invalid", query="x", mode="magic")
    assert agent.call("ask", question=QUESTION).structured_content["receipt"]["budget_tokens"] == 100
    assert agent.call("ask").is_error
    assert agent.reader.spent
    agent.tools.close()


def test_stages_are_told_while_the_answer_is_made(agent: Agent) -> None:
    told: list[str | None] = []

    async def progress(_: float, __: float | None, message: str | None) -> None:
        told.append(message)

    agent.within(lambda client: client.call_tool("ask", {"question": QUESTION}, progress_callback=progress))
    assert {"retrieve", "select", "generate"} <= set(told)


def test_a_call_that_is_called_off_stops_the_reader(agent: Agent) -> None:
    agent.reader.gate.clear()

    async def work(client: Client) -> None:
        task = asyncio.ensure_future(client.call_tool("ask", {"question": QUESTION}))
        assert await asyncio.to_thread(agent.reader.began.acquire, timeout=60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until, lambda: agent.reader.stopped_at is not None)

    agent.within(work)
