"""The server as users run it: a process of its own, real models, real files, a real signal at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from rag.models import ModelCache
from tests.api_fakes import events, wait_until
from tests.conftest import SAMPLE

SMALL = "qwen2.5-coder-0.5b-instruct"
PUMP = b"The Zeta 4 pump is sold with a warranty of 27 months. Spare parts are kept in Rotterdam.\n"
QUESTION = "For how many months is the Zeta 4 pump under warranty?"


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str
    environment: dict[str, str]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=240)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model_cache: ModelCache) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("home")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "THRIFTRAG_HOME": str(home), "LANG": "C",
                   "THRIFTRAG_MODELS": str(model_cache.root), "THRIFTRAG_READER": SMALL, "THRIFTRAG_SERVE_DRAIN_S": "120"}
    with (home / "log.jsonl").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "rag.cli", "serve", "--port", "0", "--json"], stdout=subprocess.PIPE,
                                   stderr=log, text=True, env=environment)
        try:
            assert process.stdout is not None
            yield Running(process, json.loads(process.stdout.readline())["url"], environment)
        finally:
            process.kill()
            process.wait()


def uploaded(client: httpx.Client, *files: tuple[str, bytes], collection: str) -> dict[str, object]:
    accepted = client.post(f"/v1/collections/{collection}/documents", files=[("files", file) for file in files])
    assert accepted.status_code == 202, accepted.text
    path = accepted.headers["location"]
    wait_until(lambda: client.get(path).json()["ended"] is not None, limit_s=240)
    found: dict[str, object] = client.get(path).json()
    return found


def test_files_come_in_questions_are_answered_and_the_command_line_agrees(served: Running) -> None:
    with served.client() as client:
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/collections", json={"name": "manual"}).status_code == 201
        job = uploaded(client, ("pump.txt", PUMP), ("saxophone.docx", (SAMPLE / "files" / "saxophone.docx").read_bytes()),
                       ("json.py", b"raise SystemExit('an upload must never be run')\n"), collection="manual")
        assert (job["state"], job["error"]) == ("done", None), job
        assert {row["source"] for row in client.get("/v1/collections/manual/documents").json()["documents"]} == {
            "pump.txt", "saxophone.docx", "json.py"}
        answer = client.post("/v1/ask", json={"question": QUESTION, "collection": "manual", "budget_tokens": 64}).json()
        assert "27" in answer["answer"]
        assert answer["citations"][0]["source"] == "pump.txt"
        assert answer["receipt"]["context_tokens"] <= 64
        assert answer["receipt"]["model"] == SMALL
        told = subprocess.run([sys.executable, "-m", "rag.cli", "ask", QUESTION, "-c", "manual", "--budget", "64", "--json"],
                              env=served.environment, capture_output=True, text=True, check=True, timeout=280)
        same = json.loads(told.stdout)
        assert list(same) == list(answer)
        assert (same["answer"], same["citations"], same["config"]) == (answer["answer"], answer["citations"], answer["config"])
        for name in ("prompt_tokens", "completion_tokens", "context_tokens", "naive_tokens"):
            assert same["receipt"][name] == answer["receipt"][name]


def test_a_stream_joins_to_the_answer_and_a_client_that_leaves_is_billed(served: Running) -> None:
    body = {"question": QUESTION, "collection": "manual", "stream": True}
    with served.client() as client:
        told = events(client.post("/v1/ask", json=body).text)
        done = told[-1]
        assert done[0] == "done"
        assert "".join(data["text"] for name, data in told if name == "token").strip() != ""
        assert "27" in done[1]["answer"]
        before = client.get("/v1/usage", params={"group_by": "outcome"}).json()["total"]["requests"]
        with client.stream("POST", "/v1/ask", json=body) as response:
            for line in response.iter_lines():
                if line == "event: token":
                    break
        left = time.monotonic()
        wait_until(lambda: client.get("/v1/usage").json()["total"]["requests"] == before + 1, limit_s=60)
        assert time.monotonic() - left < 30


def test_no_question_fails_while_documents_are_read_in(served: Running) -> None:
    def asked(_: int) -> int:
        with served.client() as client:
            return client.post("/v1/search", json={"query": QUESTION, "collection": "manual", "k": 3}).status_code

    with served.client() as client, ThreadPoolExecutor(2) as pool:
        searches = pool.map(asked, range(40))
        for at in range(2):
            job = uploaded(client, (f"note{at}.txt", f"The valve of hall {at} is green.\n".encode()), collection="manual")
            assert job["state"] == "done", job
        assert set(searches) == {200}
        assert client.get("/v1/collections/manual").json()["documents"] == 5


def test_a_signal_lets_the_answer_end_and_the_exit_code_is_0(served: Running) -> None:
    """The last test of this file: it ends the server."""
    with served.client() as client, ThreadPoolExecutor(1) as pool:
        with client.stream("POST", "/v1/ask", json={"question": QUESTION, "collection": "manual", "stream": True}) as response:
            text, signalled = "", False
            for piece in response.iter_text():
                text += piece
                if not signalled:
                    served.process.send_signal(signal.SIGTERM)
                    signalled = True
        assert events(text)[-1][0] == "done"
        assert pool.submit(served.process.wait, 120).result() == 0
