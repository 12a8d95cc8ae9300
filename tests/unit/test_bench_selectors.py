"""The bench of selectors on pools from a real search with stand-ins for the models."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from eval.bench import Options, selectors
from optimizers import SELECTORS
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import no_progress
from tests.fakes import ScriptedReader, WordCounter, WordEncoder


def test_every_selector_is_measured_against_rank_order_fill(settings: Settings, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selectors, "_QUESTIONS", 3)
    monkeypatch.setattr(selectors, "opened", lambda options, candidates: ThriftRAG.open(
        "bench", settings=dataclasses.replace(options.settings, candidates=candidates), encoder=WordEncoder(),
        reader=ScriptedReader()))
    rows = {row.name: row for row in selectors.run(Options(settings, tmp_path, sizes=(2, 5)), on_progress=no_progress)}
    for size in (2, 5):
        for budget in selectors.BUDGETS:
            for name in SELECTORS:
                for what in ("p50", "p95"):
                    row, base = (rows[f"{who}, {size} candidates, {budget} tokens: {what}"] for who in (name, "topk"))
                    assert row.value > 0
                    assert row.n == 3
                    assert row.ratio == (None if name == "topk" else pytest.approx(row.value / base.value))
    assert rows["carrot, 5 candidates, 1024 tokens: scored"].value <= 5 + 9 * 4
    assert len(rows) == 2 * 2 * (2 * len(SELECTORS) + 1)


def test_no_pools_give_no_rows() -> None:
    assert selectors.measured([], counter=WordCounter(), budget=100, name="none") == []
