"""One way of using memory, measured on repeated traffic: what each question took, whether the index was searched, and how right the
answer was.

Every way begins with the same memory, as the fill left it, and with a process that has encoded nothing; all share remembered calls
of the reader, so that equal prompts cost equal seconds.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from eval.cache import CachingReader
from eval.metrics import f1
from eval.traffic import Asked, Traffic
from rag.thriftrag import ThriftRAG
from retrievers.reservoir import FILE

RIGHT = 0.5
# What a way changes of the settings.
WAYS: Mapping[str, Mapping[str, object]] = {
    "off": {},
    "count, tau .4": {"memory": "count", "memory_tau": 0.4},
    "count, tau .6": {"memory": "count", "memory_tau": 0.6},
    "calibrated": {"memory": "calibrated"},
    "answer cache": {"answer_cache": "on"},
    "calibrated and answer cache": {"memory": "calibrated", "answer_cache": "on"},
}
Open = Callable[[], ThriftRAG]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question under one way. `before_s`: seconds until the reader was asked, or all of them where it was not. `searched`:
    whether the index was; `served`: passages, answer, or nothing of memory."""

    kind: str
    f1: float
    seconds: float
    before_s: float
    searched: bool
    served: str
    calls: int
    prompt_tokens: int


def filled(open_kb: Open, traffic: Traffic, *, keep: Path, tick: Callable[[], None]) -> None:
    """Asks the questions that fill memory, from nothing, and copies what they left to `keep`."""
    with open_kb() as kb:
        _emptied(kb.folder)
        for question in traffic.fill:
            kb.ask(question.text, changes={"memory": "watch", "answer_cache": "on"})
            tick()
        source = kb.folder / FILE
    with closing(sqlite3.connect(source)) as db, closing(sqlite3.connect(keep)) as copy:
        db.backup(copy)


def asked(open_kb: Open, traffic: Sequence[Asked], *, reader: CachingReader, way: str, kept: Path,
          tick: Callable[[], None]) -> list[Outcome]:
    """The traffic, question by question."""
    found = []
    with _restored(open_kb, kept) as kb:
        # What the first question of a process takes is no matter of memory.
        kb.ask("What is asked first?", changes={"memory": "off", "answer_cache": "off"})
        for each in traffic:
            found.append(_outcome(kb, each, reader=reader, changes={"memory_audit": 0.0, **WAYS[way]}))
            tick()
    return found


def _outcome(kb: ThriftRAG, each: Asked, *, reader: CachingReader, changes: Mapping[str, object]) -> Outcome:
    """The reader's seconds are those of the call that was really made, also where it was remembered."""
    _, before = reader.replayed
    since = time.perf_counter()
    answer = kb.ask(each.text, changes=changes)
    seconds = time.perf_counter() - since
    _, after = reader.replayed
    stages = answer.receipt.seconds
    reading = stages.get("generate", 0.0)
    ran = {step.stage for step in answer.trace}
    served = "" if "retrieve" in ran or "trigger" not in ran else "passages" if "generate" in ran else "answer"
    said = "" if answer.verdict == "abstained" else answer.text
    score = f1(said, each.question.answers, every=each.question.all_answers_needed, language=each.question.language)
    return Outcome(each.kind, score, seconds + after - before, seconds - reading, "retrieve" in ran, served,
                   answer.receipt.llm_calls, answer.receipt.prompt_tokens)


@contextmanager
def _restored(open_kb: Open, kept: Path) -> Iterator[ThriftRAG]:
    """The collection with the memory in `kept`, which stays as it is."""
    with open_kb() as kb:
        _emptied(kb.folder)
        shutil.copyfile(kept, kb.folder / FILE)
        yield kb
        _emptied(kb.folder)


def _emptied(folder: Path) -> None:
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        (folder / name).unlink(missing_ok=True)
