"""`thriftrag eval`: one JSON object on stdout, exit codes, and refusals before any model is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rag.cli import evaluate
from rag.cli.root import app, command
from tests.eval_fakes import QUERIES, ScriptedReader, World, dataset_folder

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def reader() -> ScriptedReader:
    return ScriptedReader()


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
           reader: ScriptedReader) -> Invoke:
    """Runs `thriftrag eval ...` in a home of its own; gives exit code, stdout and stderr."""
    world = World()
    monkeypatch.setattr(evaluate, "_Opener", lambda: world)
    monkeypatch.setattr(evaluate, "_open_reader", lambda settings, *, prefix_cache: reader)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            command(app).main(["eval", *map(str, arguments), "--home", str(tmp_path / "home")])
        told = capsys.readouterr()
        return int(left.value.code or 0), told.out, told.err

    return run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return dataset_folder(tmp_path / "tiny")


def one_object(out: str) -> dict[str, Any]:
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def test_run_prints_the_summary_it_wrote_and_tells_the_rest_on_stderr(invoke: Invoke, tiny: Path, tmp_path: Path) -> None:
    code, out, err = invoke("run", tiny, "--systems", "gold, topk", "--budgets", "30,40", "--out", "o", "--json")
    assert code == 0
    assert one_object(out) == json.loads((tmp_path / "o" / "summary.json").read_text(encoding="utf-8"))
    assert err.startswith("12 rows computed; 12 reader calls made, 0 answered from earlier calls; ")
    code, _, err = invoke("run", tiny, "--systems", "gold,topk", "--budgets", "30,40", "--out", "o", "--json")
    assert (code, err.split(";")[:2]) == (0, ["0 rows computed", " 12 were there already and were not computed again"])


def test_run_without_json_prints_the_markdown_table(invoke: Invoke, tiny: Path) -> None:
    code, out, _ = invoke("run", tiny, "--systems", "topk", "--budgets", "40", "--answerable")
    assert code == 0
    (row,) = json.loads(Path("runs/eval/summary.json").read_text(encoding="utf-8"))["datasets"][0]["systems"]
    assert re.search(rf"\| topk \| 40 \| 3 \|.* {row['f1']:.1f} \[", out), out
    assert Path("runs/eval/results.jsonl").is_file()


@pytest.mark.parametrize(("fails_on", "expected"), [("What is the capital", 3), ("", 0), ("?", 1)])
def test_exit_code_tells_done_partly_done_and_failed(invoke: Invoke, tiny: Path, reader: ScriptedReader, fails_on: str,
                                                     expected: int) -> None:
    reader.fails_on = fails_on
    code, _, err = invoke("run", tiny, "--systems", "gold", "--budgets", "40", "--patience", "0")
    assert code == expected
    assert ("answers failed" in err) is bool(expected)


@pytest.mark.parametrize(("arguments", "field", "message"), [
    (["--systems", "gold,mctx"], "systems", "'mctx' is unknown"),
    (["--systems", ","], "systems", "No system is named"),
    (["--budgets", "128,x"], "budgets", "--budgets '128,x' is not a list of whole numbers"),
    (["--budgets", "0"], "budgets", "A budget of 0 tokens is not possible"),
    (["--limit", "0"], "limit", "--limit '0' is not a positive whole number"),
    (["--limit", "ten"], "limit", "--limit 'ten' is not a positive whole number"),
    (["--seed", "-1"], "seed", "--seed '-1' is not a whole number from 0"),
    (["--sample", "some"], "sample", "--sample 'some' is not a whole number from 0"),
    (["--parallel", "0"], "parallel", "--parallel '0' is not a whole number from 1"),
    (["--timed", "1.5"], "timed", "--timed '1.5' is not a whole number from 0"),
])
def test_run_refuses_bad_values_as_usage_errors(invoke: Invoke, tiny: Path, arguments: Sequence[str], field: str,
                                                message: str) -> None:
    code, out, _ = invoke("run", tiny, *arguments, "--json")
    error = one_object(out)["error"]
    assert (code, error["field"]) == (2, field)
    assert message in error["message"]
    assert error["hint"]


def test_a_bad_data_set_is_named_before_any_model_is_loaded(invoke: Invoke, tiny: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_open_reader", lambda settings, *, prefix_cache: pytest.fail("loaded"))
    dataset_folder(tiny, queries=[{**QUERIES[0], "evidence": ["d9"]}])
    code, _, err = invoke("run", tiny)
    assert code == 2
    assert "queries.jsonl, line 1 names evidence 'd9'" in err


def test_retrieval_prints_the_contracts_shape(invoke: Invoke, tiny: Path) -> None:
    code, out, _ = invoke("retrieval", tiny, "--modes", "bm25,hybrid", "--json")
    assert code == 0
    (dataset,) = one_object(out)["datasets"]
    assert dataset["dataset"] == "tiny"
    assert [list(row) for row in dataset["modes"]] == [["mode", "n", "recall@10", "ndcg@10", "mrr", "ms_p50", "sufficiency@10",
                                                               "sufficiency@20"]] * 2
    assert [(row["mode"], row["n"], row["recall@10"]) for row in dataset["modes"]] == [("bm25", 3, 1), ("hybrid", 3, 1)]


def test_retrieval_table_names_every_mode(invoke: Invoke, tiny: Path) -> None:
    code, out, _ = invoke("retrieval", tiny, "--limit", "2")
    assert code == 0
    assert all(mode in out for mode in ("bm25", "dense", "hybrid"))


def test_retrieval_adds_measures_by_name(invoke: Invoke, tiny: Path) -> None:
    code, out, _ = invoke("retrieval", tiny, "--modes", "bm25", "--measures", "AP,P@1", "--json")
    assert code == 0
    (row,) = one_object(out)["datasets"][0]["modes"]
    assert (row["AP"], row["P@1"]) == (1, 1)
    code, out, _ = invoke("retrieval", tiny, "--modes", "bm25", "--measures", "AP")
    assert (code, "AP" in out) == (0, True)
    code, _, err = invoke("retrieval", tiny, "--measures", "XY@3")
    assert (code, "'XY@3' cannot be used" in err) == (2, True)


def test_retrieval_refuses_unknown_modes(invoke: Invoke, tiny: Path) -> None:
    code, _, err = invoke("retrieval", tiny, "--modes", "clustered")
    assert code == 2
    assert "There are: bm25, dense, sparse, hybrid." in err
