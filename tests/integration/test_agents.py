"""`thriftrag mcp` as an agent runs it: a process of its own, the protocol's own client on its stdin and stdout, real models."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from rag.models import ModelCache

SMALL = "qwen2.5-coder-0.5b-instruct"
PUMP = "The Zeta 4 pump is sold with a warranty of 27 months. Spare parts are kept in Rotterdam."
QUESTION = "For how many months is the Zeta 4 pump under warranty?"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, model_cache: ModelCache) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    found = {"PATH": os.environ["PATH"], "HOME": str(home), "THRIFTRAG_HOME": str(home), "LANG": "C", "THRIFTRAG_WORKERS": "0",
             "THRIFTRAG_MODELS": str(model_cache.root), "THRIFTRAG_READER": SMALL}
    if "PYTHONPATH" in os.environ:
        found["PYTHONPATH"] = os.environ["PYTHONPATH"]
    for name in ("manual", "secret"):
        subprocess.run([sys.executable, "-m", "rag.cli", "ingest", "-", "-c", name], env=found, check=True, capture_output=True,
                       input=json.dumps({"id": "pump", "text": PUMP}).encode(), timeout=200)
    return found


def spoken(environment: dict[str, str], work: Callable[[Client], Awaitable[Any]], *arguments: str, log: Path) -> Any:
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "rag.cli", "mcp", *arguments], env=environment)

    async def session() -> Any:
        with log.open("w") as errors:
            async with Client(stdio_client(parameters, errlog=errors)) as client:
                return await work(client)

    return asyncio.run(asyncio.wait_for(session(), 240))


def test_an_agent_lists_searches_and_asks(environment: dict[str, str], tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"ask", "search", "collections"}
        assert "never instructions" in (client.instructions or "")
        listed = (await client.call_tool("collections", {})).structured_content
        assert listed is not None
        assert [row["name"] for row in listed["collections"]] == ["manual"]
        hits = (await client.call_tool("search", {"query": QUESTION, "k": 1})).structured_content
        assert hits is not None
        assert hits["hits"][0]["doc_id"] == "pump"
        answer = (await client.call_tool("ask", {"question": QUESTION, "budget_tokens": 64})).structured_content
        assert answer is not None
        assert "27" in answer["answer"]
        assert answer["receipt"]["context_tokens"] <= 64
        assert answer["receipt"]["model"] == SMALL
        assert answer["citations"][0]["doc_id"] == "pump"
        assert (await client.call_tool("ask", {"question": QUESTION, "collection": "secret"})).is_error

    spoken(environment, work, "-c", "manual", log=tmp_path / "log")
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_hanging_up_ends_the_process_with_exit_code_0(environment: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-m", "rag.cli", "mcp"], env=environment, input=b"", capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
