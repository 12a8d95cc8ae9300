"""The REST service under load: its own time, searches a second, ten times too many questions, clients that leave, and its start.

A load generator calls a real server on the loopback of this machine, so both share its processors. The collection (20,000 chunks)
holds sentences of the data put together at random under vectors of chance, and no term weights; questions are encoded by the real
embedder. The reader is a model server of this bench that says five words and takes as long as it is told to. `--limit`: questions
of the last part, 1,000 unless told otherwise; the other parts shrink in proportion. Rows:

- `start`: from the start of the process until it is ready; the first search, the first answer and the second one after that;
- `overhead`: what a client waits for an answer beyond the seconds that the answer's own receipt states;
- `search`: by 16 clients, each asking again at once, for questions asked before (their vectors are kept) and for new ones;
- `unloaded` and `overload`: answers one at a time, then for a minute questions at ten times the rate that the server can answer:
  the time of those it admitted, how many it refused with 429 and a time to come again, how many failed in another way (none
  should), and its memory before, after, and after a second such minute;
- `disconnects`: questions of clients of whom half leave at a random moment: places that were not given back (none), and tokens in
  the ledger over those that the reader counted (1 each).
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from eval.bench import Measurement, Options
from eval.bench._api_leaving import leaving
from eval.bench._api_load import Connection, Reply, SlowModel, closed_loop, open_loop
from eval.bench._api_process import Served, make_collection, serving
from eval.bench.store import SAMPLE
from eval.datasets import load
from indexers.sentences import split
from rag.errors import RagError
from rag.types import OnProgress, Progress

TAKES = frozenset({"limit"})
SIZES = (20_000,)
CLIENTS = 16
_WHOLE = 1000                   # questions of the last part; the other parts are as long as this says
_OVERHEAD, _SEARCH_S, _OVERLOAD_S = 200, 10.0, 60.0
_KNOWN = 32                     # questions that are asked again and again
_TIMES = 10.0
_PAUSE_S = 0.1                  # after each of five words: an answer of half a second
_FEWEST = 10                    # answers that the time of an unloaded one is taken from


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    texts = [passage.text for folder in options.data or (SAMPLE,) for passage in load(folder).passages]
    sentences = [text[start:end] for text in texts for start, end in split(text)]
    rows: list[Measurement] = []
    for size in options.sizes or SIZES:
        make_collection(options, size, sentences, on_progress=on_progress)
        rows += asyncio.run(_served(options, size, sentences, on_progress))
    on_progress(Progress("disconnects", 0, None))
    return rows + leaving(options.scratch / "leaving", count=options.limit or _WHOLE, seed=options.seed)


async def _served(options: Options, size: int, sentences: Sequence[str], on_progress: OnProgress) -> list[Measurement]:
    share = min(1.0, (options.limit or _WHOLE) / _WHOLE)
    questions = Questions(sentences, seed=options.seed)
    model = SlowModel()
    rows: list[Measurement] = []
    async with model.serving() as model_url:
        async with serving(options, model_url) as served:
            on_progress(Progress("start", 0, None))
            rows += await started(served, questions, size)
            on_progress(Progress("overhead", 0, None))
            rows += await overhead(served, questions, count=max(_FEWEST, int(_OVERHEAD * share)))
            on_progress(Progress("search", 0, None))
            rows += await searches(served, questions, seconds=max(1.0, _SEARCH_S * share))
        model.pause_s = _PAUSE_S
        async with serving(options, model_url) as served:
            on_progress(Progress("overload", 0, None))
            rows += await overload(served, questions, seconds=max(3.0, _OVERLOAD_S * share))
    return rows


class Questions:
    """`known`: a few that come again; `new`: such as were never asked before."""

    def __init__(self, sentences: Sequence[str], *, seed: int) -> None:
        self._words = sorted({word for sentence in sentences for word in sentence.split() if word.isalpha() and len(word) > 3})
        self._rng = random.Random(seed)
        self.known = tuple(itertools.islice(self.new(), _KNOWN))

    def new(self) -> Iterator[str]:
        while True:
            yield f"What about {' '.join(self._rng.sample(self._words, 6))}?"

    def again(self, number: int) -> str:
        return self.known[number % len(self.known)]


async def started(served: Served, questions: Questions, size: int) -> list[Measurement]:
    connection = Connection(served.url)
    first = await connection.ask("POST", "/v1/search", {"query": questions.again(0)})
    answers = [await connection.ask("POST", "/v1/ask", {"question": questions.again(number)}) for number in (1, 2)]
    _require([first, *answers])
    await connection.close()
    where = f"start, {size:,} chunks"
    return [Measurement(f"{where}: ready", served.ready_s, "s", 1), Measurement(f"{where}: first search", first.seconds, "s", 1),
            Measurement(f"{where}: first answer", answers[0].seconds, "s", 1),
            Measurement(f"{where}: second answer", answers[1].seconds, "s", 1)]


async def overhead(served: Served, questions: Questions, *, count: int) -> list[Measurement]:
    """Of each answer: the client's seconds less those of the receipt, which are the pipeline's own."""
    connection = Connection(served.url)
    beyond: list[float] = []
    for number in range(count + _KNOWN):
        reply = await connection.ask("POST", "/v1/ask", {"question": questions.again(number)})
        _require([reply])
        if number >= _KNOWN:        # each once before: what is read for the first time is no overhead
            beyond.append((reply.seconds - _pipeline_s(reply)) * 1e3)
    await connection.close()
    return [Measurement(f"overhead of the service: p{percent}", float(np.percentile(beyond, percent)), "ms", count)
            for percent in (50, 95)]


async def searches(served: Served, questions: Questions, *, seconds: float) -> list[Measurement]:
    rows: list[Measurement] = []
    new = questions.new()
    ways = {"questions asked before": questions.again, "new questions": lambda _: next(new)}
    for what, question in ways.items():
        if what == "questions asked before":
            await _warmed(served, questions)
        replies, took = await closed_loop(served.url, lambda number, question=question: (  # type: ignore[misc]  # bound now
            "/v1/search", {"query": question(number)}), clients=CLIENTS, seconds=seconds)
        _require(replies)
        name = f"search, {CLIENTS} clients, {what}"
        rows.append(Measurement(name, len(replies) / took, "requests/s", len(replies)))
        rows += [Measurement(f"{name}: p{percent}", _percentile(replies, percent), "ms", len(replies)) for percent in (50, 95)]
    return rows


async def overload(served: Served, questions: Questions, *, seconds: float) -> list[Measurement]:
    def asking(number: int) -> tuple[str, Mapping[str, object]]:
        return "/v1/ask", {"question": questions.again(number), "trace": False}

    await _warmed(served, questions)
    connection = Connection(served.url)
    alone = [await connection.ask("POST", *asking(number)) for number in range(max(_FEWEST, int(seconds / 2)))]
    _require(alone)
    await connection.close()
    # What it can answer: as many at once as it has threads, in the time that they take then.
    at_once, took = await closed_loop(served.url, asking, clients=4, seconds=max(2.0, seconds / 10))
    _require(at_once)
    rate = _TIMES * len(at_once) / took
    before = served.resident_mb()
    replies = await open_loop(served.url, asking, rate=rate, seconds=seconds)
    middle = served.resident_mb()
    again = await open_loop(served.url, asking, rate=rate, seconds=seconds)
    after = served.resident_mb()
    every = [*replies, *again]
    admitted = [reply for reply in every if reply.status == 200]
    shed = [reply for reply in every if reply.status == 429]
    unloaded = "unloaded, one at a time: p95"
    told = [float("retry-after" in reply.headers) for reply in shed]
    rows = [Measurement(unloaded, _percentile(alone, 95), "ms", len(alone)),
            Measurement("overload: asked", rate, "requests/s", len(every)),
            Measurement("overload: admitted", len(admitted) / len(every), "share", len(every)),
            Measurement("overload: refused with 429", len(shed) / len(every), "share", len(every)),
            Measurement("overload: of these with Retry-After", float(np.mean(told or [1.0])), "share", len(shed)),
            Measurement("overload: failed otherwise", float(len(every) - len(admitted) - len(shed)), "requests", len(every))]
    if admitted:
        slow = _percentile(admitted, 95)
        rows.append(Measurement("overload: p95 of the admitted", slow, "ms", len(admitted), slow / rows[0].value, unloaded))
    return [*rows, Measurement("overload: memory before", before, "MB", 1),
            Measurement("overload: memory after", middle, "MB", 1, middle / before, "overload: memory before"),
            Measurement("overload: memory after as much again", after, "MB", 1, after / middle, "overload: memory after")]


async def _warmed(served: Served, questions: Questions) -> None:
    connection = Connection(served.url)
    for question in questions.known:
        _require([await connection.ask("POST", "/v1/search", {"query": question}),
                  await connection.ask("POST", "/v1/ask", {"question": question})])
    await connection.close()


def _pipeline_s(reply: Reply) -> float:
    receipt = reply.json()["receipt"]
    assert isinstance(receipt, dict)
    return float(receipt["seconds"]["total"])


def _percentile(replies: Sequence[Reply], percent: int) -> float:
    return float(np.percentile([reply.seconds for reply in replies], percent)) * 1e3


def _require(replies: Sequence[Reply]) -> None:
    """Raises RagError: a request failed that had no reason to, so its time says nothing."""
    wrong = [reply for reply in replies if reply.status != 200]
    if wrong:
        said = wrong[0].body[:200].decode("utf-8", "replace")
        raise RagError(f"{len(wrong)} of {len(replies)} requests failed; the first with status {wrong[0].status}: {said}",
                       hint="This is a defect of the service or of this bench.")
