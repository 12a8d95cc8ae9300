"""The bench of memory: its figures by hand, its latencies, and one way asked on a small collection."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from eval.bench import Options
from eval.bench.reservoir import latencies, measured
from eval.repeated import Outcome
from rag.settings import Settings
from rag.types import no_progress


def outcome(f1: float, *, served: str = "", seconds: float = 1.0) -> Outcome:
    return Outcome("paraphrase", f1, seconds, seconds / 2, not served, served, int(served != "answer"), 100)


def test_rows_by_hand() -> None:
    off = [outcome(1.0), outcome(1.0), outcome(0.0), outcome(1.0)]
    memory = [outcome(1.0, served="passages", seconds=0.5), outcome(0.2, served="answer", seconds=0.0),
              outcome(0.0, served="passages"), outcome(1.0)]
    rows = {row.name: row for row in measured({"off": off, "way": memory}, seed=1)}
    assert (rows["way: index searched"].value, rows["way: index searched"].ratio) == (0.25, 0.25)
    assert rows["way: seconds a question"].value == pytest.approx(2.5 / 4)
    assert rows["way: reader calls"].value == 0.75
    assert rows["way: F1 less that of off"].value == pytest.approx(-20.0)
    # Of three that memory served one is wrong although the index would have been right; the other wrong one was wrong anyway.
    assert rows["way: wrong memory, of what it served"].value == pytest.approx(1 / 3)
    assert rows["way: wrong memory, of all"].value == 0.25
    assert rows["way: served, paraphrase"].value == 0.75


def test_latencies_are_measured_and_the_nearest_found(settings: Settings, tmp_path: Path) -> None:
    rows = {row.name: row for row in latencies(Options(settings, tmp_path, sizes=(2000,)), on_progress=no_progress)}
    assert 0 < rows["trigger over 2,000: p50"].value <= rows["trigger over 2,000: p95"].value
    assert rows["trigger over 2,000: nearest found"].value == 1.0
    assert dataclasses.astuple(rows["trigger over 2,000: p50"])[2] == "ms"
