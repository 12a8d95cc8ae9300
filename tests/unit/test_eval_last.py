"""What is kept of the last evaluation: the right figures, in one shape, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval import last
from rag.errors import StorageError

POINT = {"budget": 64, "x": 40.0, "y": 50.0, "y_ci": [40.0, 60.0], "n": 9, "dominated": False}


def front(dataset: str, x: str = "context_tokens", y: str = "f1") -> dict[str, object]:
    return {"dataset": dataset, "x": x, "y": y, "systems": [{"system": "thrift", "bound": True, "points": [POINT], "area": 1.0}]}


def row(budget: int, *, selector: str = "greedy", f1: float | None = 70.0, candidates: int = 24) -> dict[str, object]:
    return {"budget": budget, "selector": selector, "candidates": candidates, "mode": "hybrid", "abstain_below": 0.3, "f1": f1,
            "f1_ci": (60.0, 80.0), "n": 12, "context_tokens": budget * 0.9}


def test_of_a_summary_the_frontiers_of_f1_over_context_are_kept_and_the_mean_comes_first() -> None:
    fronts = [front("a"), front("a", x="seconds"), front("b"), front("b", y="em"), front("macro mean")]
    found = last.of_summary({"frontiers": fronts,
                             "run": {"reader": "small"}, "plan": {"command": "thriftrag eval run a b"}})
    assert [group["name"] for group in found["groups"]] == ["macro mean", "a", "b"]  # type: ignore[attr-defined]
    assert found["groups"][0]["curves"] == [{"system": "thrift", "points": [  # type: ignore[index]
        {"budget": 64, "tokens": 40.0, "f1": 50.0, "f1_ci": [40.0, 60.0], "n": 9}]}]
    assert (found["kind"], found["reader"], found["command"]) == ("evaluation", "small", "thriftrag eval run a b")


def test_of_a_tuning_what_was_read_is_kept_by_selector_and_what_else_differs_is_named() -> None:
    table = {"frontier": [row(128), row(64), row(64, selector="topk"), row(256, f1=None)], "recommendation": None}
    found = last.of_tuning(table, collection="manual", reader="small", sentence=None)
    [group] = found["groups"]  # type: ignore[misc]
    assert [(curve["system"], [point["budget"] for point in curve["points"]]) for curve in group["curves"]] == [
        ("greedy", [64, 128]), ("topk", [64])]
    assert found["recommended"] is None
    table = {"frontier": [row(64), row(64, candidates=48)], "recommendation": {"settings": {"budget_tokens": 64}, "n": 12}}
    found = last.of_tuning(table, collection="manual", reader="small", sentence="Use 64.")
    assert [curve["system"] for curve in found["groups"][0]["curves"]] == ["greedy, candidates 24", "greedy, candidates 48"]  # type: ignore[index]
    assert found["recommended"] == {"settings": {"budget_tokens": 64}, "sentence": "Use 64."}


def test_what_was_kept_is_read_again_and_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    path = tmp_path / "made" / last.EVALUATION
    assert last.read(path) is None
    table = last.of_summary({"frontiers": [front("a")]})
    last.keep(path, table)
    assert last.read(path) == {name: value for name, value in json.loads(json.dumps(table)).items() if name != "format"}
    path.write_bytes(b"\xff\xfe")
    assert last.read(path) is None
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        last.keep(tmp_path / "file" / "x.json", table)
