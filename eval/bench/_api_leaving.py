"""Clients that leave at random, over a server in this process whose reader knows what it was made to do."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from api import server
from api.keys import LOCAL
from api.service import Service
from api.settings import ServerSettings
from eval.bench import Measurement
from eval.bench._api_load import Connection
from eval.bench.store import RandomEncoder
from rag.errors import RagError
from rag.llm import Finish, Generation, Message
from rag.settings import load
from rag.thriftrag import ThriftRAG
from rag.tokens import ByteEstimate

_CLIENTS, _THREADS, _WAITING = 32, 8, 64
_WORDS, _PAUSE_S = 8, 0.005
_QUIET_S = 120.0
_QUESTION = "How long is the warranty of the Zeta pump?"


class SlowReader:
    """Takes its time, notices who leaves, and remembers every token, whoever heard it."""

    name = "slow"
    local = True
    context_window = 4096

    def __init__(self) -> None:
        self.tokenizer = ByteEstimate()
        self.prompt = 0
        self.completion = 0
        self.calls = 0
        self._lock = threading.Lock()

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return sum(self.tokenizer.count(message.content) for message in messages)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        since, said = time.monotonic(), 0
        finish: Finish = "stop"
        prompt = self.prompt_tokens(messages)
        for _ in range(_WORDS):
            if cancelled is not None and cancelled():
                finish = "cancelled"
                break
            said += 1
            if on_token is not None:
                on_token(" word")
            time.sleep(_PAUSE_S)
        with self._lock:
            self.prompt += prompt
            self.completion += said
            self.calls += 1
        return Generation(text=" word" * said, prompt_tokens=prompt, completion_tokens=said, cached_tokens=0, finish=finish,
                          seconds=time.monotonic() - since)

    def close(self) -> None:
        """Nothing to free."""


def leaving(home: Path, *, count: int, seed: int) -> list[Measurement]:
    """`count` questions, half of them of clients that hang up after a random while."""
    settings = load({"home": home, "models": home / "models", "abstain_below": 0, "workers": 0, "cross_encoder": "off",
                     "embedding_cache_mb": 0, "origins": "bm25"}, environ={})
    encoder, reader = RandomEncoder(), SlowReader()
    with ThriftRAG.open(settings=settings, encoder=encoder) as kb:
        kb.ingest(lines=[json.dumps({"id": str(number), "text": f"The Zeta pump {number} has a warranty of {number} months."})
                         for number in range(50)])
    limits = ServerSettings.model_validate({"port": 0, "ask_threads": _THREADS, "ask_waiting": _WAITING})
    service = Service(settings, limits, encoder=encoder, reader=reader)
    listening = server.bind(service)
    running = server.Draining(service)
    thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
    thread.start()
    try:
        _await_start(running)
        stayed = asyncio.run(_asked(server.url_of(listening), count=count, rng=random.Random(seed)))
        held = _held(service)
        [total] = service.ledger.summed(by=(), key=LOCAL)
    finally:
        running.stop()
        thread.join()
    return [Measurement("disconnects: clients that stayed", stayed / count, "share", count),
            Measurement("disconnects: asked of the reader", float(reader.calls), "calls", count),
            Measurement("disconnects: places not given back", float(held), "places", count),
            Measurement("disconnects: prompt tokens in the ledger", _number(total["prompt_tokens"]), "tokens", count,
                        _number(total["prompt_tokens"]) / max(1, reader.prompt), "tokens that the reader counted"),
            Measurement("disconnects: completion tokens in the ledger", _number(total["completion_tokens"]), "tokens", count,
                        _number(total["completion_tokens"]) / max(1, reader.completion), "tokens that the reader counted")]


async def _asked(url: str, *, count: int, rng: random.Random) -> int:
    """How many clients stayed and had their answer."""
    gate = asyncio.Semaphore(_CLIENTS)
    stayed = 0
    plans = [rng.uniform(0, 4 * _WORDS * _PAUSE_S) if rng.random() < 0.5 else None for _ in range(count)]
    streams = [rng.random() < 0.5 for _ in range(count)]

    async def one(leaves_s: float | None, *, stream: bool) -> None:
        nonlocal stayed
        body = {"question": _QUESTION, "stream": stream}
        async with gate:
            connection = Connection(url)
            if leaves_s is None:
                reply = await connection.ask("POST", "/v1/ask", {**body, "stream": False})
                stayed += reply.status == 200       # counted after the wait: others count meanwhile
            else:
                await connection.begin("POST", "/v1/ask", body)
                await asyncio.sleep(leaves_s)
            await connection.close()

    await asyncio.gather(*(one(plan, stream=stream) for plan, stream in zip(plans, streams, strict=True)))
    return stayed


def _await_start(running: server.Draining) -> None:
    """Raises RagError: it does not start in time."""
    until = time.monotonic() + _QUIET_S
    while not running.started:
        if time.monotonic() > until:
            raise RagError("The server does not start.", hint="Run `thriftrag serve` by itself and look at what it says.")
        time.sleep(0.01)


def _held(service: Service) -> int:
    """Places that are taken once all clients have left and what they began has had time to end."""
    until = time.monotonic() + _QUIET_S
    while (held := service.asks.running + service.asks.queued + service.under_way()) and time.monotonic() < until:
        time.sleep(0.01)
    return held


def _number(cell: object) -> float:
    return float(cell) if isinstance(cell, int | float) else 0.0
