"""`thriftrag serve` in a process of its own, over a collection made for the bench, and what it says about itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.bench import Options
from eval.bench._api_load import Connection, until
from eval.bench.store import PER_DOCUMENT, document
from indexers import store
from indexers.encoders import open_encoder
from indexers.ingest import index_options
from indexers.writer import FileState, writing
from rag.errors import RagError
from rag.models import ModelCache
from rag.types import OnProgress, Progress

COLLECTION = "default"
_BATCH = 64
_START_S = 120.0
_STOP_S = 60.0


@dataclass(slots=True)
class Served:
    """A server that runs."""

    url: str
    pid: int
    ready_s: float              # from the start of the process until /readyz said so

    async def figures(self) -> dict[str, float]:
        """Samples of /metrics by name and labels, as Prometheus writes them."""
        text = (await Connection(self.url).ask("GET", "/metrics")).body.decode()
        return {name: float(value) for name, value in re.findall(r"^([^#\s]+) (\S+)$", text, re.MULTILINE)}

    async def total(self) -> dict[str, float]:
        found = (await Connection(self.url).ask("GET", "/v1/usage")).json()["total"]
        return found if isinstance(found, dict) else {}

    def resident_mb(self) -> float:
        """Memory of the process. Raises RagError: the system does not tell."""
        try:
            text = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        except OSError as error:
            raise RagError("The memory of a process is read from /proc, which this system has not.",
                           hint="Run this bench on Linux.") from error
        return float(text.split("VmRSS:")[1].split()[0]) / 1024


def make_collection(options: Options, size: int, sentences: Sequence[str], *, on_progress: OnProgress) -> None:
    """`size` chunks with the vectors of chance: what matters here is how many there are. Questions are encoded by the real encoder,
    whose name the collection bears."""
    settings = options.settings
    encoder = open_encoder(settings.embedder, cache=ModelCache(settings.models), precision=settings.precision,
                           threads=settings.threads)
    folder = settings.home / "collections" / COLLECTION
    store.create(folder, encoder=encoder.name, dimension=encoder.dimension, chunk_tokens=200)
    rng = np.random.default_rng(options.seed)
    documents = size // PER_DOCUMENT
    with writing(folder, options=index_options(settings)) as writer:
        for start in range(0, documents, _BATCH):
            batch = [document(number, sentences, rng) for number in range(start, min(start + _BATCH, documents))]
            writer.publish(batch, finished=[FileState(item.document.uri, item.document.content_hash) for item in batch])
            on_progress(Progress("collection", start * PER_DOCUMENT, size))


@asynccontextmanager
async def serving(options: Options, model_url: str, **limits: object) -> AsyncIterator[Served]:
    """A server whose reader is at `model_url`. `limits`: server settings."""
    settings = options.settings
    tokenizer = ModelCache(settings.models).path(settings.embedder) / "tokenizer.json"
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith("THRIFTRAG_")},
                   "THRIFTRAG_HOME": str(settings.home), "THRIFTRAG_MODELS": str(settings.models),
                   "THRIFTRAG_EMBEDDER": settings.embedder, "THRIFTRAG_READER_URL": model_url, "THRIFTRAG_READER": "slow",
                   "THRIFTRAG_READER_TOKENIZER": str(tokenizer), "THRIFTRAG_READER_WINDOW": "8192",
                   "THRIFTRAG_ABSTAIN_BELOW": "0",
                   **{f"THRIFTRAG_SERVE_{name.upper()}": str(value) for name, value in limits.items()}}
    since = asyncio.get_running_loop().time()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "rag.cli", "serve", "--port", "0", "--json", stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL, env=environment)
    try:
        url = await _address(process)
        connection = Connection(url)

        async def ready() -> bool:
            return (await connection.ask("GET", "/readyz")).status == 200

        if await until(ready, limit_s=_START_S) is None:
            raise RagError("The server does not become ready.", hint="Run `thriftrag serve` by itself and look at what it says.")
        ready_s = asyncio.get_running_loop().time() - since
        await connection.close()
        yield Served(url, process.pid, ready_s)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _STOP_S)
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _address(process: asyncio.subprocess.Process) -> str:
    """What the server prints when it listens, which is one JSON object over several lines."""
    text = b""
    assert process.stdout is not None
    while line := await asyncio.wait_for(process.stdout.readline(), _START_S):
        text += line
        try:
            row: Mapping[str, object] = json.loads(text)
        except json.JSONDecodeError:
            continue
        return str(row["url"])
    raise RagError("The server ended before it listened.", hint="Run `thriftrag serve` by itself and look at what it says.")
