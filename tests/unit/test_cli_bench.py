"""`bench`: options that some benches take, and intervals of what was estimated."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from eval import bench, bench_all
from eval.bench import Measurement
from rag.cli import tables
from tests.unit.cli_fakes import Cli

ESTIMATED = Measurement("sparse - bm25", 0.031, "nDCG@10", 3000, interval=(0.0221, 0.0402))


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return Cli(monkeypatch, tmp_path)


def test_options_reach_the_benches_that_take_them(cli: Cli, tmp_path: Path) -> None:
    cli.run("bench", "retrieval", "--weights", str(tmp_path / "w"), "--limit", "7", "--teacher", str(tmp_path / "t"), "--json")
    cli.run("bench", "sparse", "--weights", str(tmp_path / "w"), "--json")
    [(_, first), (_, second)] = cli.benches
    assert (first.weights, first.limit, first.teacher) == (tmp_path / "w", 7, tmp_path / "t")
    assert (second.weights, second.limit, second.teacher) == (tmp_path / "w", None, None)
    assert first.home is not None
    assert first.home != first.settings.home, "encodings outlive the scratch home"


@pytest.mark.parametrize("arguments", [("store", "--weights", "w"), ("sparse", "--teacher", "t"),
                                       ("all", "--limit", "3", "--out", "o")])
def test_other_benches_refuse_them(cli: Cli, arguments: tuple[str, ...]) -> None:
    problem = cli.run("bench", *arguments, "--json").error
    assert problem["field"] == arguments[1].removeprefix("--")
    assert repr(arguments[0]) in problem["message"]
    assert cli.benches == []


def test_parts_of_benches_are_no_benches() -> None:
    assert {"sparse", "retrieval"} <= set(bench.names())
    assert not [name for name in bench.names() if name.startswith("_")]
    assert bench.takes("store") == frozenset()


def test_an_interval_is_told_only_where_there_is_one() -> None:
    assert ESTIMATED.to_dict()["interval"] == (0.0221, 0.0402)
    plain = Measurement("ours", 1.0, "ms", 3)
    assert "interval" not in plain.to_dict()
    shown = io.StringIO()
    Console(file=shown, width=200).print(tables.measurements([ESTIMATED, plain]))
    assert "0.0221 to 0.0402" in shown.getvalue()
    shown = io.StringIO()
    Console(file=shown, width=200).print(tables.measurements([plain]))
    assert "95 %" not in shown.getvalue()


def test_the_table_of_all_benches_has_intervals() -> None:
    report = {"date": "2026-07-01T12:00:00", "machine": {}, "versions": {}, "options": {}, "benches": [
        {"bench": "retrieval", "summary": "s", "date": "2026-07-01T12:00:00", "seconds": 1.0, "error": None,
         "results": [ESTIMATED.to_dict()]}]}
    assert "| 0.031 [0.0221, 0.0402] |" in bench_all.markdown(report)
