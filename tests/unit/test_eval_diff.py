"""`eval diff`: paired by question, honest about what has no partner, and an exit code that continuous integration can use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
import typer

from eval.diff import MACRO, Pair, compare
from eval.report.change import as_markdown
from eval.report.records import load
from eval.statistics import bootstrap_interval
from rag.cli import eval_report
from rag.cli.eval_report import _pairs
from rag.cli.root import Root
from rag.errors import InputError
from tests.report_run import folder, row, unread

BEFORE = [1.0, 1.0, 0.5, 0.0, 1.0, 0.25, 1.0, 1.0]
AFTER = [0.0, 1.0, 0.5, 0.25, 0.0, 0.0, 0.5, 0.0]
Invoke = Callable[..., tuple[int, str, str]]


def run_of(path: Path, scores: list[float], **changes: object) -> Path:
    return folder(path, [row(question=f"q{place}", f1=f1, context_tokens=100 + place, **changes)
                         for place, f1 in enumerate(scores)])


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return run_of(tmp_path / "a", BEFORE), run_of(tmp_path / "b", AFTER, prompt_tokens=90)


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Runs `thriftrag eval ...` with the two commands in the tree, whoever else is in it."""
    app = typer.Typer(cls=Root, rich_markup_mode=None)
    app.command("report")(eval_report.report)
    app.command("diff")(eval_report.diff)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            typer.main.get_command(app).main([*map(str, arguments)])
        told = capsys.readouterr()
        return int(left.value.code or 0), told.out, told.err

    return run


def test_differences_are_paired_by_question_with_the_interval_of_the_differences(pair: tuple[Path, Path]) -> None:
    (found,) = compare(load(pair[0]), load(pair[1]), seed=3).rows
    f1 = found.changes["f1"]
    differences = [after - before for before, after in zip(BEFORE, AFTER, strict=True)]
    expected = bootstrap_interval(differences, seed=3)
    assert expected is not None
    assert (f1.n, f1.before, f1.after) == (8, pytest.approx(100 * fmean(BEFORE)), pytest.approx(100 * fmean(AFTER)))
    assert f1.change == pytest.approx(100 * fmean(differences))
    assert f1.ci == (pytest.approx(100 * expected[0]), pytest.approx(100 * expected[1]))
    assert (found.better, found.worse, found.equal) == (1, 5, 2)
    assert found.changes["context_tokens"].change == 0
    assert found.changes["prompt_tokens"].change == -90
    assert "seconds" not in found.changes, "nothing was timed"


def test_the_order_of_rows_changes_nothing_and_b_minus_a_is_minus_a_minus_b(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    lines = (pair[1] / "results.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    shuffled = folder(tmp_path / "c", [])
    (shuffled / "results.jsonl").write_text("".join(reversed(lines)), encoding="utf-8")
    assert compare(load(pair[0]), load(shuffled)).rows == compare(load(pair[0]), load(pair[1])).rows
    forth, back = (compare(load(one), load(other)).rows[0].changes["f1"].change for one, other in (pair, pair[::-1]))
    assert forth == pytest.approx(-back)


def test_only_questions_of_both_runs_count_and_the_others_are_told(tmp_path: Path) -> None:
    first, second = run_of(tmp_path / "a", [1.0, 1.0, 1.0]), run_of(tmp_path / "b", [1.0, 1.0])
    found = compare(load(first), load(second))
    assert (found.rows[0].changes["f1"].n, found.only) == (2, (1, 0))
    assert "Rows without a partner: 1 of A, 0 of B." in as_markdown(found)


def test_tokens_and_money_rest_on_questions_that_were_read_in_both(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", [row(question="q1", cost_usd=0.002), unread(question="q2")])
    second = folder(tmp_path / "b", [row(question="q1", cost_usd=0.001), row(question="q2")])
    changes = compare(load(first), load(second)).rows[0].changes
    assert (changes["cost_usd"].n, changes["cost_usd"].change) == (1, pytest.approx(-1.0))
    assert changes["context_tokens"].n == 2
    assert changes["f1"].n == 1


def test_over_several_data_sets_the_macro_mean_comes_first(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", [row(dataset="one", f1=0.0)] + [row(dataset="two", question=f"q{n}", f1=0.0) for n in range(9)])
    second = folder(tmp_path / "b", [row(dataset="one", f1=1.0)] + [row(dataset="two", question=f"q{n}", f1=0.0) for n in range(9)])
    rows = compare(load(first), load(second)).rows
    assert [one.dataset for one in rows] == [MACRO, "one", "two"]
    assert rows[0].changes["f1"].change == pytest.approx(50), "each data set counts the same, whatever its size"


def test_other_systems_and_budgets_can_be_paired(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", [row(system="thrift", budget=budget, f1=1.0) for budget in (128, 256)])
    second = folder(tmp_path / "b", [row(system="topk", budget=budget, f1=0.0) for budget in (128, 256)])
    both = compare(load(first), load(second), pairs=[Pair("thrift", "topk")])
    assert [(one.system, one.budget) for one in both.rows] == [("thrift -> topk", "128"), ("thrift -> topk", "256")]
    (one,) = compare(load(first), load(second), pairs=[Pair("thrift", "topk", (128, 256))]).rows
    assert (one.budget, one.changes["f1"].change) == ("128 -> 256", -100)


def test_a_system_that_no_budget_binds_meets_each_budget(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", [row(system="gold", budget=None)])
    second = folder(tmp_path / "b", [row(system="topk", budget=budget) for budget in (128, 256)])
    found = compare(load(first), load(second), pairs=[Pair("gold", "topk")])
    assert [one.budget for one in found.rows] == ["- -> 128", "- -> 256"]


def test_what_the_runs_were_made_with_is_compared(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", [row()], run={"reader": "small", "version": "1"},
                   summary={"versions": {"numpy": "1", "ray": "2"}})
    second = folder(tmp_path / "b", [row()], run={"reader": "large", "version": "1"}, summary={"versions": {"numpy": "2"}})
    (second / "run.json").write_text(json.dumps({"run": {"reader": "large", "version": "1"}, "datasets": {"alpha": "9"}}))
    assert compare(load(first), load(second)).made == (
        ("run: reader", "small", "large"), ("versions: numpy", "1", "2"), ("versions: ray", "2", "-"),
        ("data set alpha: digest", "0", "9"))


def test_flips_are_the_largest_changes_both_ways(pair: tuple[Path, Path]) -> None:
    flips = compare(load(pair[0]), load(pair[1])).flips
    assert [(one.question, one.change) for one in flips] == [
        ("q3", 25), ("q0", -100), ("q4", -100), ("q7", -100), ("q6", -50), ("q5", -25)]


def test_a_fall_counts_only_when_its_whole_interval_is_beyond_the_points(tmp_path: Path) -> None:
    steady = compare(load(run_of(tmp_path / "a", [0.5] * 20)), load(run_of(tmp_path / "b", [0.4] * 20)))
    assert [one.system for one in steady.fallen(9)] == ["topk"]
    assert steady.fallen(10.001) == []
    noisy = compare(load(run_of(tmp_path / "c", [1.0, 0.0] * 10)), load(run_of(tmp_path / "d", [0.0, 1.0] * 9 + [0.0, 0.0])))
    assert noisy.rows[0].changes["f1"].change < 0
    assert noisy.fallen(0) == []


def test_the_command_prints_markdown_or_one_object(invoke: Invoke, pair: tuple[Path, Path]) -> None:
    code, out, _ = invoke("diff", *pair)
    assert code == 0
    assert out.startswith("# What changed")
    code, out, _ = invoke("diff", *pair, "--json")
    told = json.loads(out)
    assert code == 0
    assert set(told["rows"][0]["f1"]) == {"n", "a", "b", "change", "ci"}
    assert (told["rows"][0]["worse"], len(told["flips"])) == (5, 6)


def test_the_command_exits_1_on_a_fall_and_says_what_fell(invoke: Invoke, tmp_path: Path) -> None:
    first, second = run_of(tmp_path / "a", [0.5] * 20), run_of(tmp_path / "b", [0.4] * 20)
    code, _, err = invoke("diff", first, second, "--fail-below", "5")
    assert code == 1
    assert err.startswith("F1 of topk at 128 on alpha fell by 10.0 points [10.0, 10.0], more than 5; n = 20.")
    assert invoke("diff", first, second, "--fail-below", "50")[0] == 0
    assert invoke("diff", second, first, "--fail-below", "0")[0] == 0


def test_a_check_that_can_check_nothing_is_no_pass(invoke: Invoke, tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a", [unread()]), folder(tmp_path / "b", [unread()])
    assert invoke("diff", first, second)[0] == 0
    code, _, err = invoke("diff", first, second, "--fail-below", "1")
    assert code == 2
    assert "has nothing to judge" in err


@pytest.mark.parametrize(("typed", "pair"), [
    ("thrift", Pair("thrift", "thrift")), (" thrift = topk ", Pair("thrift", "topk")), ("topk@64", Pair("topk", "topk", (64, 64))),
    ("thrift@128=thrift:origins=dense@256", Pair("thrift", "thrift:origins=dense", (128, 256))),
    ("thrift:second_look=off+candidates=12=topk", Pair("thrift:second_look=off+candidates=12", "topk"))])
def test_pairs_are_read_with_variants_in_them(typed: str, pair: Pair) -> None:
    assert _pairs(typed) == (pair,)


@pytest.mark.parametrize(("options", "said"), [
    (["--systems", "a=b=c"], "names no pair of systems"),
    (["--systems", "topk@64=topk"], "names no pair of systems"),
    (["--systems", "topk@x=topk@y"], "names no pair of systems"),
    (["--systems", "=topk"], "names no pair of systems"),
    (["--systems", "topk=mmr"], "has no system 'mmr'"),
    (["--fail-below", "much"], "is not a number of points"),
    (["--fail-below", "nan"], "is not a number of points"),
    (["--fail-below", "-1"], "is not a number of points"),
    (["--seed", "x"], "is not a whole number"),
])
def test_what_cannot_be_compared_is_refused(invoke: Invoke, pair: tuple[Path, Path], options: list[str], said: str) -> None:
    code, out, err = invoke("diff", *pair, *options)
    assert (code, out) == (2, "")
    assert said in err


def test_runs_with_nothing_in_common_are_refused_with_what_they_have(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a", [row(system="thrift")]), folder(tmp_path / "b", [row(dataset="beta", budget=64)])
    with pytest.raises(InputError, match="have no data set, system, budget and question in common") as refused:
        compare(load(first), load(second))
    assert "alpha with thrift at 128" in refused.value.hint
    assert "beta with topk at 64" in refused.value.hint


def test_the_report_command_writes_and_names_its_files(invoke: Invoke, tmp_path: Path) -> None:
    rows = [row(system=system, question=f"q{place}", f1=float(place > 1 or system == "thrift"))
            for system in ("topk", "thrift") for place in range(4)]
    path = folder(tmp_path / "run", rows)
    code, out, _ = invoke("report", path, "--system", "thrift", "--budget", "128", "--json")
    told = json.loads(out)
    assert code == 0
    assert Path(told["html"]).read_text(encoding="utf-8").count("thrift against topk at 128 tokens") == 1
    assert [Path(plot).is_file() for plot in told["plots"]] == [True] * len(told["plots"]) != []
    assert (path / "summary.json").is_file()
    code, _, err = invoke("report", path, "--budget", "many")
    assert code == 2
    assert "--budget 'many' is not a whole number" in err
    code, _, err = invoke("report", tmp_path / "none")
    assert code == 2
    assert "is not a folder" in err
