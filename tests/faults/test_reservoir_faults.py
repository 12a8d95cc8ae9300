"""A reservoir that is cut short, scrambled, locked away or written by a killed process: questions are answered all the same, and
never from what cannot be trusted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rag.settings import Settings
from rag.types import Answer
from retrievers.reservoir import FILE, Reservoir
from tests.memory_fakes import FACTS, LIKE, QUESTION, open_kb, trust, write

WRITER = """
import sys
from pathlib import Path
import numpy as np
from retrievers.reservoir import Asked, Knowledge, Reservoir
reservoir = Reservoir(Path(sys.argv[1]), owner="me", limit=10_000, days=1)
half = np.ones(8, np.float16)
for i in range(100_000):
    knowledge = Knowledge(f"c{i}", i, "hash", "title", 1, half[None], half)
    reservoir.remember("s", Asked(f"q{i}", half, 1, 0, 0, 0.0, (f"c{i}",)), [knowledge])
    print(i, flush=True)
"""


def right(answer: Answer) -> None:
    assert answer.verdict == "answered"
    assert "two years" in answer.text


@pytest.fixture
def filled(settings: Settings, tmp_path: Path) -> Path:
    """The file of a collection that has answered a question."""
    with open_kb(settings, answer_cache="on") as kb:
        kb.ingest(write(tmp_path / "docs", FACTS))
        right(trust(kb).ask(QUESTION))
        kb.memory().reservoir.close()
        return kb.folder / FILE


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_never_change_an_answer(settings: Settings, filled: Path, seed: int) -> None:
    data, rng = bytearray(filled.read_bytes()), random.Random(seed)
    for _ in range(1 if seed < 4 else 300):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    filled.write_bytes(bytes(data))
    with open_kb(settings, answer_cache="on") as kb:
        for question in (QUESTION, LIKE, QUESTION):
            right(kb.ask(question))


@pytest.mark.parametrize("size", [0, 1, 100, 5000, 9000])
def test_a_file_cut_short_is_begun_anew(settings: Settings, filled: Path, size: int) -> None:
    filled.write_bytes(filled.read_bytes()[:size])
    with open_kb(settings, answer_cache="on") as kb:
        right(kb.ask(QUESTION))
        right(kb.ask(LIKE))


def test_another_program_s_file_is_set_aside(settings: Settings, filled: Path) -> None:
    filled.write_bytes(b"no database at all" * 1000)
    with open_kb(settings, answer_cache="on") as kb:
        right(kb.ask(QUESTION))
        assert kb.memory().reservoir.counts()["questions"] == 1
    assert filled.with_name(f"{FILE}.damaged").read_bytes().startswith(b"no database")


def test_a_folder_in_its_place_costs_memory_and_no_answer(settings: Settings, filled: Path) -> None:
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        filled.with_name(name).unlink(missing_ok=True)
    filled.mkdir()
    with open_kb(settings, answer_cache="on") as kb:
        right(kb.ask(QUESTION))
        assert not kb.memory().reservoir.usable


@pytest.mark.skipif(os.name == "nt", reason="kills with a signal")
def test_a_killed_writer_leaves_whole_entries(tmp_path: Path) -> None:
    path = tmp_path / FILE
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    told = [int(writer.stdout.readline()) for _ in range(30)]
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    reservoir = Reservoir(path, owner="me", limit=10_000, days=1)
    questions = reservoir.questions(reservoir.since("questions", "s", after=0))
    chunks = {each.chunk_id for each in reservoir.knowledge(reservoir.since("knowledge", "s", after=0)).values()}
    assert {f"q{i}" for i in told} <= {each.question for each in questions.values()}
    assert all(set(each.knowledge) <= chunks for each in questions.values())
