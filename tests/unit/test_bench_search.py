"""The bench of searches on pools from a real search with stand-ins for the models."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from eval.bench import Options, search, selectors
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import no_progress
from tests.fakes import ScriptedReader, WordCounter, WordEncoder


def test_searches_are_measured_on_real_pools(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "_QUESTIONS", 3)
    monkeypatch.setattr(search, "BUDGETS", (64,))
    monkeypatch.setattr(search, "ITERATIONS", (10,))
    monkeypatch.setattr(selectors, "opened", lambda options, candidates: ThriftRAG.open(
        "bench", settings=dataclasses.replace(options.settings, candidates=candidates), encoder=WordEncoder(),
        reader=ScriptedReader()))
    rows = {row.name: row for row in search.run(Options(settings, tmp_path), on_progress=no_progress)}
    for name in search.COMPARED:
        assert rows[f"{name}, 64 tokens: p50"].value > 0
        assert 0 < rows[f"{name}, 64 tokens: tokens"].value <= 64
        assert 0 <= rows[f"{name}, 64 tokens: answer in context"].value <= 1
    assert rows["exact, 12 candidates, 64 tokens: proven"].value == 1
    worth = {name: rows[f"{name}, 64 tokens: worth"].value for name in search.SEARCHES}
    assert worth["exact"] >= max(worth.values())
    assert worth["mcts"] >= worth["lazy"]
    for name in ("lazy", "beam", "mcts"):
        largest = rows.get(f"{name}, 12 candidates, 64 tokens: largest gap")
        assert largest is None or 0 <= largest.value < 1


def test_no_questions_give_no_rows() -> None:
    assert search.shown([], counter=WordCounter(), budget=64) == []
    assert search.gaps([], counter=WordCounter(), budget=64) == []
    assert search.against_carrot([], counter=WordCounter(), budget=64) == []
