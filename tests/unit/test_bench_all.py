"""`bench all`: every bench is a row, also one that fails; what is finished is not measured again; the table says on what."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eval import bench, bench_all
from eval.bench_all import Outcome, in_own_process, run_all
from rag.errors import InputError
from rag.types import Progress
from tests.unit.cli_fakes import Cli

NAMES = ("alpha", "beta", "gamma")
SUMMARIES = {"alpha": "What alpha is.", "beta": "What beta is.", "gamma": "What gamma is."}
FIGURES: dict[str, object] = {"results": [
    {"name": "ours", "value": 1500.0, "unit": "passages/s", "n": 512, "ratio": 5.0, "ratio_to": "theirs | f32"},
    {"name": "theirs | f32", "value": 0.0123456, "unit": "ms", "n": 9, "ratio": None, "ratio_to": None}]}
FAILURE: dict[str, object] = {"error": {"code": "package_missing", "message": "beta needs ray.", "hint": "pip install ray"}}


@dataclass
class Bench:
    """Measures by hand: the figures, what is given for a name, or nothing once it was stopped."""

    given: dict[str, Mapping[str, object]] = field(default_factory=dict)
    stop_at: str | None = None
    asked: list[str] = field(default_factory=list)
    ticks: list[Progress] = field(default_factory=list)
    time: datetime = datetime(2026, 7, 1, 12, tzinfo=UTC)

    def run(self, out: Path, *, options: dict[str, object] | None = None, again: bool = False) -> Outcome:
        return run_all(NAMES, out, measure=self.measure, options=options or {}, summaries=SUMMARIES, again=again,
                       on_progress=self.ticks.append, now=lambda: self.time, clock=lambda: self.time.timestamp())

    def measure(self, name: str) -> Mapping[str, object] | None:
        if name == self.stop_at:
            return None
        self.asked.append(name)
        self.time += timedelta(seconds=90)
        return self.given.get(name, FIGURES)


def saved(out: Path) -> dict[str, Any]:
    found = json.loads((out / "bench.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_every_bench_is_a_row_and_one_that_fails_is_one_too(tmp_path: Path) -> None:
    found = Bench(given={"beta": FAILURE}).run(tmp_path / "out")
    assert (found.ran, found.kept, found.failed, found.stopped) == (NAMES, (), ("beta",), False)
    report = saved(tmp_path / "out")
    assert report == json.loads(json.dumps(found.report))
    assert {"machine", "versions", "options", "date"} <= set(report)
    assert [(row["bench"], row["seconds"], row["error"] and row["error"]["code"]) for row in report["benches"]] == [
        ("alpha", 90.0, None), ("beta", 90.0, "package_missing"), ("gamma", 90.0, None)]
    assert report["benches"][2]["results"] == FIGURES["results"]


def test_what_is_finished_is_kept_and_what_failed_is_tried_again(tmp_path: Path) -> None:
    Bench(given={"beta": FAILURE}).run(tmp_path)
    second = Bench(time=datetime(2026, 7, 2, tzinfo=UTC))
    found = second.run(tmp_path)
    assert second.asked == ["beta"]
    assert (found.ran, found.kept, found.failed) == (("beta",), ("alpha", "gamma"), ())
    assert [(row["bench"], row["date"][:10]) for row in saved(tmp_path)["benches"]] == [
        ("alpha", "2026-07-01"), ("beta", "2026-07-02"), ("gamma", "2026-07-01")]
    third = Bench()
    assert third.run(tmp_path).ran == ()
    assert third.asked == []


def test_again_measures_everything(tmp_path: Path) -> None:
    Bench().run(tmp_path)
    second = Bench(time=datetime(2026, 7, 2, tzinfo=UTC))
    assert second.run(tmp_path, again=True).ran == NAMES
    assert {row["date"][:10] for row in saved(tmp_path)["benches"]} == {"2026-07-02"}


@pytest.mark.parametrize("changed", ["options", "versions", "machine"])
def test_other_options_versions_or_machines_measure_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    Bench().run(tmp_path, options={"seed": 13})
    if changed != "options":
        monkeypatch.setattr(bench_all, changed, lambda: {"other": "1"})
    second = Bench()
    second.run(tmp_path, options={"seed": 14 if changed == "options" else 13})
    assert second.asked == list(NAMES)


def test_a_run_that_was_stopped_keeps_what_it_had_and_goes_on(tmp_path: Path) -> None:
    first = Bench(stop_at="beta").run(tmp_path)
    assert (first.ran, first.stopped) == (("alpha",), True)
    assert [row["bench"] for row in saved(tmp_path)["benches"]] == ["alpha"]
    second = Bench()
    assert second.run(tmp_path).kept == ("alpha",)
    assert second.asked == ["beta", "gamma"]


def test_a_stop_does_not_lose_what_comes_later_in_the_table(tmp_path: Path) -> None:
    Bench(given={"beta": FAILURE, "alpha": FAILURE}).run(tmp_path)
    Bench(stop_at="beta").run(tmp_path)
    assert [row["bench"] for row in saved(tmp_path)["benches"]] == ["alpha", "gamma"]


def test_progress_names_each_bench_that_runs(tmp_path: Path) -> None:
    Bench(given={"beta": FAILURE}).run(tmp_path)
    second = Bench()
    second.run(tmp_path)
    assert [(tick.done, tick.total, tick.note) for tick in second.ticks] == [(0, 1, "beta")]


def test_the_table_is_dated_and_says_on_what_and_with_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_all, "machine", lambda: {"processor": "Some CPU", "cores": 2})
    monkeypatch.setattr(bench_all, "versions", lambda: {"thriftrag": "1.2.3"})
    Bench(given={"beta": FAILURE}).run(tmp_path, options={"seed": 13})
    lines = (tmp_path / "bench.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Benchmarks of 2026-07-01"
    for line in ("| processor | Some CPU |", "| cores | 2 |", "| thriftrag | 1.2.3 |", "| seed | 13 |",
                 "| alpha | ours | 1,500 | passages/s | 512 | 5.00 | theirs \\| f32 |",
                 "| alpha | theirs \\| f32 | 0.01235 | ms | 9 |  |  |", "| beta | failed: beta needs ray. |  |  |  |  |  |",
                 "| gamma | What gamma is. | 2026-07-01 12:03 | 90 |"):
        assert line in lines


@pytest.mark.parametrize("content", ["{broken", "[]", '{"benches": [{"bench": "alpha"}]}', '{"benches": 3}'])
def test_a_file_of_something_else_is_refused_and_again_replaces_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "bench.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="is not a file of `bench all`"):
        Bench().run(tmp_path)
    assert (tmp_path / "bench.json").read_text(encoding="utf-8") == content
    assert Bench().run(tmp_path, again=True).ran == NAMES


# --- Processes -----------------------------------------------------------------------------------------------------------

def script(text: str) -> list[str]:
    return ["-c", f"import json, os, signal, sys\n{text}"]


def test_figures_of_another_process_are_what_it_printed() -> None:
    assert in_own_process(script(f"print(json.dumps({FIGURES!r}))")) == FIGURES


def test_an_error_of_another_process_is_told_as_it_told_it() -> None:
    assert in_own_process(script(f"print(json.dumps({FAILURE!r})); sys.exit(2)")) == FAILURE


@pytest.mark.parametrize(("text", "expected"), [
    ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"), ("sys.exit(4)", "ended with status 4"),
    ("print('nothing')", "ended with status 0"), ("print('[1]')", "ended with status 0"),
    ("print(json.dumps({'results': []})); sys.exit(1)", "ended with status 1")])
@pytest.mark.skipif(sys.platform == "win32", reason="other signals")
def test_a_process_that_dies_or_says_nothing_is_an_error(text: str, expected: str) -> None:
    found = in_own_process(script(text))
    assert found is not None
    assert found["error"] == {"code": "bench_failed", "message": f"It {expected} without figures.",
                              "hint": "Run the bench alone to see why."}


def test_a_process_that_was_interrupted_or_cancelled_gives_nothing() -> None:
    assert in_own_process(script("sys.exit(130)")) is None
    # Would last for minutes, were it not ended.
    assert in_own_process(script("signal.pause()"), cancelled=lambda: True) is None


def test_a_bench_is_asked_for_by_the_command_that_users_have() -> None:
    found = in_own_process(bench_all.command("no-such-bench", data=[Path("a"), Path("b")], sizes="10,20", seed=7, plots=None,
                                             home=Path("h")))
    assert found is not None
    error = found["error"]
    assert isinstance(error, dict)
    assert error["message"] == "There is no bench 'no-such-bench'."


# --- The command ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    return Cli(monkeypatch, tmp_path)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would have run; beta fails."""
    asked: list[list[str]] = []

    def instead(arguments: list[str], *, cancelled: Callable[[], bool]) -> Mapping[str, object]:
        asked.append(arguments)
        return FAILURE if "beta" in arguments else FIGURES

    monkeypatch.setattr(bench_all, "in_own_process", instead)
    monkeypatch.setattr(bench, "names", lambda: list(NAMES))
    monkeypatch.setattr(bench, "summary", SUMMARIES.get)
    return asked


def test_the_command_runs_every_bench_and_exits_3_if_some_failed(cli: Cli, processes: list[list[str]]) -> None:
    done = cli.run("bench", "all", "--out", "o", "--sizes", "20,10", "--seed", "7")
    assert done.code == 3
    assert done.out == Path("o/bench.md").read_text(encoding="utf-8")
    assert "Bench 2 of 3: beta" in done.err
    assert "Failed, and tried again by the same command: beta." in done.err
    assert processes[0] == ["-m", "rag.cli", "bench", "alpha", "--json", "--seed", "7", "--sizes", "20,10"]
    again = cli.run("bench", "all", "--out", "o", "--sizes", "10,20", "--seed", "7", "--json")
    assert len(processes) == 4
    assert again.json == saved(Path("o"))
    assert "1 benches ran, 2 were finished already" in again.err


def test_settings_that_may_matter_measure_anew(cli: Cli, processes: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    cli.run("bench", "all", "--out", "o")
    monkeypatch.setenv("THRIFTRAG_PRECISION", "f32")
    cli.run("bench", "all", "--out", "o")
    assert len(processes) == 6
    assert saved(Path("o"))["options"]["settings"] == {"precision": "f32"}


@pytest.mark.parametrize(("arguments", "message"), [
    (["all"], "`bench all` needs a folder"), (["store", "--out", "o"], "--out and --again belong to `bench all`"),
    (["store", "--again"], "--out and --again belong"), (["all", "--out", "o", "--sizes", "x"], "--sizes 'x' is not")])
def test_the_command_refuses(cli: Cli, processes: list[list[str]], arguments: list[str], message: str) -> None:
    done = cli.run("bench", *arguments)
    assert done.code == 2
    assert message in done.err
    assert processes == []


def test_a_missing_package_is_named_and_a_defect_of_ours_is_not_hidden(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> Callable[[str], object]:
        def load(name: str) -> object:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return load

    monkeypatch.setattr(bench, "load", missing("ray.data"))
    error = cli.run("bench", "store", "--json").json["error"]
    assert error["code"] == "package_missing"
    assert "needs the package 'ray'" in error["message"]
    monkeypatch.setattr(bench, "load", missing("eval.bench.gone"))
    done = cli.run("bench", "store")
    assert (done.code, "defect" in done.err) == (1, True)
