"""The stage `trigger`: what memory has for a question, and what it keeps of the answer."""

from __future__ import annotations

import time

from optimizers import BY_CHANCE
from rag import clustered_route
from rag.recall import Asking
from rag.stages.run import Candidates, Run
from rag.stages.served import Served, quiet
from rag.types import Answer
from retrievers.second_look import SecondLook


def recall(run: Run, served: Served, *, limit: int) -> None:
    """Asks memory, where there is one: what it has and what follows from that is then `run.recalled`."""
    if served.memory is None or clustered_route.asks_of_all(served.clusters, run.asked.search, served.settings):
        return
    since = time.monotonic()
    recalled = run.recalled = served.memory.recall(asking(run, served, limit=limit))
    run.spend(encoder_passes=recalled.passes, since=since)
    verdict = recalled.verdict
    run.step("trigger", since, decision=verdict.decision, why=verdict.why, **recalled.facts)


def candidates(run: Run) -> Candidates | None:
    """The remembered passages, where they are to serve in the place of a search."""
    recalled = run.recalled
    if recalled is None or recalled.found is None or recalled.pool is None:
        return None
    naive = 0 if recalled.past is None else recalled.past.naive_tokens
    return Candidates(recalled.found.hits, recalled.pool, naive, recalled.found, SecondLook(recalled.found))


def remember(run: Run, served: Served, *, limit: int, answer: Answer) -> None:
    """Keeps what the answer took from the index, where it took anything from there."""
    if served.memory is not None and run.recalled is not None and run.read is not None:
        served.memory.remember(asking(run, served, limit=limit), run.recalled, pool=run.read, answer=answer)


def asking(run: Run, served: Served, *, limit: int) -> Asking:
    """The question as memory takes it. `limit`: context tokens."""
    settings = served.settings
    return Asking(run.asked.search, served.searcher, served.vectors, served.reader.tokenizer, settings, served.reader.name, limit,
                  served.cross if settings.selector in BY_CHANCE else None, run.where, told=run.asked.told,
                  way=(quiet(run, served).rewriter, *clustered_route.state(served.clusters, settings)))
