"""An evaluation whose reader is killed, and one that is killed itself, end with what an undisturbed one has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

READER = "qwen2.5-coder-0.5b-instruct"
SAMPLE = Path(__file__).parents[2] / "eval" / "data" / "sample"
_LIMIT_S = 300.0
# One at a time, so that near ties between two words fall alike in every run.
COMMAND = ("eval", "run", str(SAMPLE), "--systems", "gold,topk,thrift", "--budgets", "64", "--limit", "5", "--sample", "4",
           "--timed", "1", "--parallel", "1", "--model", READER, "--json")


def started(home: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "rag.cli", *COMMAND, "--home", str(home), "--out", str(out)],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def finished(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=_LIMIT_S)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out)
    return found


def until(process: subprocess.Popen[bytes], out: Path, rows: int) -> None:
    """Waits until so many rows are written."""
    deadline = time.monotonic() + _LIMIT_S
    path = out / "results.jsonl"
    while not path.is_file() or path.read_bytes().count(b"\n") < rows:
        assert process.poll() is None, "the run ended before it could be disturbed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def workers(parent: int) -> list[int]:
    """The processes that run a reader for `parent`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                above = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if above == parent and b"worker.py" in words:
                found.append(int(entry.name))
    return found


def answers(out: Path) -> dict[tuple[object, ...], object]:
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row["error"] is None for row in rows)
    return {(row["system"], row["budget"], row["question"]): (row["read"], row["answer"], row["f1"], row["context_tokens"])
            for row in rows}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[object, ...], object]:
    root = tmp_path_factory.mktemp("undisturbed")
    finished(started(root / "home", root / "out"))
    return answers(root / "out")


def test_a_reader_that_dies_in_the_middle_is_started_again(tmp_path: Path, undisturbed: dict[tuple[object, ...], object]) -> None:
    process = started(tmp_path / "home", tmp_path / "out")
    until(process, tmp_path / "out", 6)
    killed = workers(process.pid)
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    finished(process)
    assert killed
    assert answers(tmp_path / "out") == undisturbed


def test_a_run_that_is_killed_goes_on_and_pays_for_no_answer_twice(tmp_path: Path,
                                                                   undisturbed: dict[tuple[object, ...], object]) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    for rows in (2, 8):
        process = started(home, out)
        until(process, out, rows)
        process.kill()
        process.communicate()
    finished(started(home, out))
    assert answers(out) == undisturbed
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(undisturbed), "no row was made twice"
    # Into another folder: every call is remembered, but for those whose seconds were wanted of a run that was killed.
    again = subprocess.run([sys.executable, "-m", "rag.cli", *COMMAND, "--home", str(home), "--out", str(tmp_path / "again")],
                           capture_output=True, timeout=_LIMIT_S)
    assert again.returncode == 0
    assert b" 0 reader calls made" in again.stderr
    assert b" 0 texts encoded" in again.stderr
    assert answers(tmp_path / "again") == undisturbed
