"""A server of ours on loopback in a thread, over a real collection with models that can be checked by hand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from api import keys, server
from api.ingesting import Order, Runner
from api.keys import Terms
from api.service import Service
from api.settings import ServerSettings
from api.tracing import Tracing
from rag.errors import ModelTimeout
from rag.llm import Generation, Message, Reader
from rag.settings import Settings, load
from rag.thriftrag import ThriftRAG
from rag.types import IngestReport, OnProgress, Progress
from tests.fakes import WordCounter, WordEncoder

QUESTION = "How long is the warranty of the Zeta pump?"
RECORDS = (
    {"id": "pump", "title": "Pump", "text": "The Zeta pump has a warranty of 27 months. Its spare parts are kept in Rotterdam.",
     "year": 2021},
    {"id": "otter", "title": "Otter", "text": "Otters sleep on their backs. They hold hands while they sleep.", "year": 1999},
)
UNTIL_S = 60.0         # a machine may be busy with other things


class PacedReader:
    """Says its words one by one; between them it waits for `gate` to be open, and notices cancellation and deadlines as real
    readers do. Remembers what it has spent in all, whoever was told."""

    name = "paced"
    local = True
    context_window = 4096

    def __init__(self, words: Sequence[str] = ("27", " months", " [1]", ".")) -> None:
        self.tokenizer = WordCounter()
        self.words = words
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)     # released at every first word
        self.spent: list[tuple[int, int]] = []  # prompt and completion tokens of each call
        self.stopped_at: float | None = None
        self.running = 0
        self.most = 0
        self.error: Exception | None = None
        self._lock = threading.Lock()

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return sum(self.tokenizer.count(message.content) for message in messages)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        started = time.monotonic()
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        said: list[str] = []
        finish = "stop"
        try:
            if self.error is not None:
                raise self.error
            for word in self.words:
                said.append(word)
                if on_token is not None:
                    on_token(word)
                self.began.release()
                while not self.gate.wait(0.01):
                    if cancelled is not None and cancelled():
                        finish = "cancelled"
                        self.stopped_at = time.monotonic()
                        break
                    if deadline is not None and time.monotonic() > deadline:
                        finish = "deadline"
                        break
                if finish != "stop":
                    break
        finally:
            with self._lock:
                self.running -= 1
                self.spent.append((self.prompt_tokens(messages), len(said)) if self.error is None else (0, 0))
        if not said:
            raise ModelTimeout("nothing came")
        return Generation(text="".join(said), prompt_tokens=self.prompt_tokens(messages), completion_tokens=len(said),
                          cached_tokens=0, finish=finish, seconds=time.monotonic() - started)  # type: ignore[arg-type]

    def close(self) -> None:
        """Nothing to free."""


class Ingestion:
    """Reads uploads in in this process with the server's own fake encoder. While `gate` is shut it waits after its first tick."""

    def __init__(self, encoder: WordEncoder) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Semaphore(0)
        self.orders: list[Order] = []
        self._encoder = encoder

    def __call__(self, order: Order, on_progress: OnProgress, cancelled: Callable[[], bool]) -> IngestReport:
        self.orders.append(order)
        on_progress(Progress("encode", 0, None))
        self.began.release()
        while not self.gate.wait(0.01):
            if cancelled():
                return IngestReport(interrupted=True)
        with ThriftRAG.open(order.collection, create=False, settings=order.settings, encoder=self._encoder) as kb:
            return kb.ingest(*(order.folder / name for name in order.names), on_progress=on_progress, cancelled=cancelled)


@dataclass
class Live:
    """A server that runs, and clients of it."""

    service: Service
    url: str
    server: server.Draining
    thread: threading.Thread
    reader: PacedReader
    ingestion: Ingestion
    home: Path
    clients: list[httpx.Client] = field(default_factory=list)

    def client(self, key: str | None = None) -> httpx.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        made = httpx.Client(base_url=self.url, headers=headers, timeout=UNTIL_S)
        self.clients.append(made)
        return made

    def key(self, name: str = "test", **terms: Any) -> str:
        return keys.create(self.service.database, name, terms=Terms(**{"scopes": ("read",), **terms}))[1]

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(UNTIL_S)
        assert not self.thread.is_alive()

    def ask(self, question: str = QUESTION, *, client: httpx.Client | None = None, **body: Any) -> httpx.Response:
        return (client or self.client()).post("/v1/ask", json={"question": question, **body})

    def quiet(self) -> None:
        """Waits until nothing is under way."""
        wait_until(lambda: all(lane.idle() for lane in self.service.lanes))


def make_settings(home: Path, **changes: object) -> Settings:
    return load({"home": home, "models": home / "models", "abstain_below": 0.05, "workers": 0, "cross_encoder": "off",
                 "embedding_cache_mb": 0, **changes}, environ={})


def make_collection(settings: Settings, encoder: WordEncoder, *, name: str = "default",
                    records: Sequence[Mapping[str, object]] = RECORDS) -> None:
    with ThriftRAG.open(name, settings=settings, encoder=encoder) as kb:
        kb.ingest(lines=[json.dumps(record) for record in records])


@contextmanager
def live(home: Path, *, runner: Runner | None = None, collection: bool = True, settings: Mapping[str, object] | None = None,
         traces: Tracing | None = None, reader: Reader | None = None, **limits: Any) -> Iterator[Live]:
    """A server with one collection, `default`, of `RECORDS`. `reader`: another than the paced one. `limits`: server settings."""
    chosen = make_settings(home, **(settings or {}))
    encoder, paced = WordEncoder(), PacedReader()
    ingestion = Ingestion(encoder)
    if collection:
        make_collection(chosen, encoder)
    service = Service(chosen, ServerSettings(**{"port": 0, "drain_s": 5.0, **limits}), encoder=encoder, reader=reader or paced,
                      ingest=runner or ingestion, traces=traces)
    listening = server.bind(service)
    running = server.Draining(service)
    thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
    thread.start()
    wait_until(lambda: running.started or not thread.is_alive())
    made = Live(service, server.url_of(listening), running, thread, paced, ingestion, home)
    try:
        yield made
    finally:
        paced.gate.set()
        ingestion.gate.set()
        for client in made.clients:
            client.close()
        made.stop()


def wait_until(condition: Callable[[], bool], *, limit_s: float = UNTIL_S) -> float:
    """Seconds until `condition` held; fails when it did not in time."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < limit_s, "it never came to be"
        threading.Event().wait(0.005)
    return time.monotonic() - started


def events(text: str) -> list[tuple[str, Any]]:
    """Names and data of the events in a stream's text; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            assert lines[0].startswith("event: "), block
            assert lines[1].startswith("data: "), block
            found.append((lines[0][7:], json.loads(lines[1][6:])))
    return found


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The error of a response, once it is known to be this one in our shape."""
    assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text
    error = response.json()["error"]
    assert list(error) == ["code", "message", "hint", "field", "request_id"]
    assert error["message"]
    assert error["request_id"] == response.headers["x-request-id"]
    return dict(error)


__all__ = ["QUESTION", "RECORDS", "Ingestion", "Live", "PacedReader", "events", "live", "make_collection",
           "make_settings", "problem", "wait_until"]
