"""`thriftrag tune` from end to end with a scripted reader: what it prints, writes, refuses and exits with."""

from __future__ import annotations

import json
import os
import shlex
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from eval.tune import pairs as files
from rag.cli import edge, tune
from rag.settings import Settings, load
from rag.thriftrag import ThriftRAG, folder_of
from tests.fakes import WordEncoder
from tests.tune_fakes import COLOURS, LighthouseReader, filled, lines, opened

Invoke = Callable[..., tuple[int, str, str]]
SMALL = ("--budgets", "8,40,200", "--selectors", "topk,greedy", "--candidates", "24", "--questions", "6")


@pytest.fixture
def reader() -> LighthouseReader:
    return LighthouseReader()


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """Settings with a home of their own, in which nothing is too far from a question to be answered."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text("abstain_below = 0.0\n")
    return load({"home": tmp_path / "home", "models": tmp_path / "models"}, environ={})


@pytest.fixture
def invoke(home: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], reader: LighthouseReader) -> Invoke:
    """Runs `thriftrag tune ...`; gives exit code, stdout and stderr."""
    monkeypatch.setattr(tune, "_open_reader", lambda settings: reader)
    monkeypatch.setattr(tune, "_open_collection", opened)
    monkeypatch.setenv("COLUMNS", "160")
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(epilog=tune.EXAMPLES)(tune.tune)
    command = get_command(app)

    def run(*arguments: object) -> tuple[int, str, str]:
        argv = [*map(str, arguments), "--home", str(home.home)]
        code = edge.guarded(lambda: command.main(args=argv, prog_name="thriftrag tune", standalone_mode=False), argv=argv)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


@pytest.fixture
def lighthouses(home: Settings) -> Settings:
    filled(home)
    return home


def one_object(out: str) -> dict[str, Any]:
    found = json.loads(out)
    assert isinstance(found, dict)
    return found


def test_it_makes_pairs_tries_configurations_and_recommends(invoke: Invoke, lighthouses: Settings) -> None:
    code, out, err = invoke(*SMALL)
    assert code == 0
    assert "Making 5 more pairs: at most" in err
    assert "6 of 6 pairs kept" in err
    assert "Trying 7 configurations on 6 questions" in err
    assert "budget 40 (greedy, 24 candidates)" in out
    assert "naive top-5" in out
    assert "budget 256 (greedy, 24 candidates), current" in out
    assert "Budget 40 (" in out
    assert "of the quality of naive top-5" in out
    assert "Careful: 6 questions are too few" in out
    assert out.rstrip().endswith("Next: the same command with --apply, to use these settings from now on.")
    assert len(files.read(folder_of("default", settings=lighthouses) / "tune" / "pairs.jsonl")) == 6


def test_a_second_run_costs_no_reader_call_and_finds_the_same(invoke: Invoke, lighthouses: Settings,
                                                              reader: LighthouseReader) -> None:
    _, first, _ = invoke(*SMALL, "--json")
    calls = reader.calls
    code, second, _ = invoke(*SMALL, "--json")
    assert code == 0
    assert reader.calls == calls
    same, again = one_object(first), one_object(second)
    assert again["reader_calls"]["made"] == 0
    for name in ("recommendation", "frontier", "pairs", "question_metrics"):
        assert again[name] == same[name]


def test_json_is_one_object_with_the_whole_frontier(invoke: Invoke, lighthouses: Settings) -> None:
    code, out, _ = invoke(*SMALL, "--json")
    found = one_object(out)
    assert code == 0
    assert found["recommendation"]["settings"]["budget_tokens"] == 40
    assert found["recommendation"]["n"] == 6
    assert found["pairs"] == {"kept": 6}
    assert found["applied"] is None
    assert {row["budget"] for row in found["frontier"]} == {8, 40, 200, 256, 2000}
    assert {"relevance", "overlap", "coverage", "diversity", "question_words", "answer_words"} == set(found["question_metrics"])


def test_apply_makes_later_answers_use_it(invoke: Invoke, lighthouses: Settings) -> None:
    code, out, _ = invoke(*SMALL, "--apply")
    path = folder_of("default", settings=lighthouses) / "settings.toml"
    assert code == 0
    assert f"Written to {path}" in out
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    assert written["budget_tokens"] == 40
    assert set(written) == {"budget_tokens", "selector", "candidates", "mode"}
    with ThriftRAG.open("default", settings=lighthouses, reader=LighthouseReader(), encoder=WordEncoder()) as kb:
        answer = kb.ask("What colour was the Holm lighthouse painted?")
    assert (answer.text, answer.receipt.budget_tokens) == ("amber", 40)


def test_what_overrides_the_applied_settings_is_told(invoke: Invoke, lighthouses: Settings,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTRAG_BUDGET_TOKENS", "128")
    _, _, err = invoke(*SMALL, "--apply")
    assert "budget_tokens is set by THRIFTRAG_BUDGET_TOKENS, which wins" in err


def test_own_pairs_are_used_as_they_are(invoke: Invoke, lighthouses: Settings, reader: LighthouseReader, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    rows = [{"question": f"What colour was the {name} lighthouse?", "answer": colour} for name, colour in COLOURS.items()]
    own.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    before = own.read_bytes()
    code, out, err = invoke(*SMALL, "--pairs", own, "--json")
    assert code == 0
    assert one_object(out)["recommendation"]["n"] == 10
    assert "Making" not in err
    assert own.read_bytes() == before


def test_dropped_pairs_stay_dropped_and_are_replaced(invoke: Invoke, lighthouses: Settings, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    assert invoke(*SMALL, "--pairs", path, "--pairs-only")[0] == 0
    made = files.read(path)
    text = path.read_text(encoding="utf-8").replace('"keep": true', '"keep": false', 1)
    path.write_text(text, encoding="utf-8")
    _, out, _ = invoke(*SMALL, "--pairs", path, "--pairs-only", "--json")
    assert one_object(out) == {"file": str(path), "pairs": {"kept": 6, "dropped": 1}}
    assert [pair.id for pair in files.read(path)][:6] == [pair.id for pair in made]


def test_bounds_are_kept(invoke: Invoke, lighthouses: Settings, reader: LighthouseReader) -> None:
    code, out, _ = invoke(*SMALL, "--max-calls", "30", "--json")
    found = one_object(out)
    assert reader.calls <= 30
    assert found["reader_calls"]["made"] == reader.calls
    assert found["plan"]["calls"] <= 30
    assert code in (0, 3)
    assert found["recommendation"]["n"] < 6


def test_bounds_too_tight_for_anything_are_told(invoke: Invoke, lighthouses: Settings, reader: LighthouseReader) -> None:
    code, _, err = invoke(*SMALL, "--max-calls", "1")
    assert code == 1
    assert reader.calls == 0
    assert "ended the work before one pair was made" in err


def test_an_empty_collection_a_missing_one_and_one_without_text(invoke: Invoke, home: Settings) -> None:
    code, _, err = invoke("-c", "nowhere", *SMALL)
    assert (code, "There is no collection 'nowhere'" in err) == (1, True)
    filled(home, lines(["Holm"]))
    with opened(home, LighthouseReader()) as kb:
        kb.delete("Holm")
    code, _, err = invoke(*SMALL)
    assert (code, "The collection is empty" in err) == (1, True)
    filled(home, [json.dumps({"id": "t", "title": "", "text": "Year 1964 1965\nCars 12,000 13,500"})])
    code, _, err = invoke(*SMALL)
    assert (code, "running text" in err) == (1, True)


def test_a_collection_of_one_passage_is_tuned_with_a_warning(invoke: Invoke, home: Settings) -> None:
    filled(home, lines(["Holm"]))
    code, out, err = invoke(*SMALL)
    assert code == 0
    assert "1 of 1 pair kept" in err
    assert "Careful: 1 questions are too few" in out


def test_no_pair_that_survives_is_explained(invoke: Invoke, lighthouses: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "_open_reader", lambda settings: LighthouseReader(heart=list(COLOURS)))
    code, out, err = invoke(*SMALL, "--json")
    assert code == 1
    error = one_object(out)["error"]
    assert error["code"] == "nothing_to_tune"
    assert "10: the reader answers it without any passage" in error["message"]
    assert "--pairs FILE" in error["hint"]
    assert "10 dropped: the reader answers it without any passage" in err


def test_no_right_answer_is_no_recommendation(invoke: Invoke, lighthouses: Settings, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "What colour was the Holm lighthouse?", "answer": "plaid"}\n')
    code, out, _ = invoke(*SMALL, "--pairs", own, "--apply")
    assert code == 1
    assert "No settings can be recommended" in out
    assert not (folder_of("default", settings=lighthouses) / "settings.toml").exists()


def test_a_reader_that_is_gone_fails_and_the_rest_is_kept(invoke: Invoke, lighthouses: Settings,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "_open_reader", lambda settings: LighthouseReader(fails_at=8))
    code, _, err = invoke(*SMALL)
    assert (code, "The reader is gone." in err) == (1, True)
    assert len(files.read(folder_of("default", settings=lighthouses) / "tune" / "pairs.jsonl")) == 2


def test_ctrl_c_keeps_all(invoke: Invoke, lighthouses: Settings, reader: LighthouseReader) -> None:
    def interrupt() -> None:
        if reader.calls == 8:
            os.kill(os.getpid(), signal.SIGINT)

    reader.before = interrupt
    code, _, err = invoke(*SMALL)
    assert code == 130
    assert "run the same command again to go on" in err
    calls = reader.calls
    assert invoke(*SMALL)[0] == 0
    assert reader.calls > calls


@pytest.mark.parametrize(("arguments", "message"), [
    (["--questions", "0"], "--questions '0' is not a positive whole number"),
    (["--budgets", "64,x"], "--budgets 'x' is not a positive whole number"),
    (["--budgets", ","], "nothing to try"),
    (["--selectors", "best"], "The selector 'best' is unknown"),
    (["--modes", "clustered"], "The mode 'clustered' is unknown"),
    (["--candidates", "100000"], "out of bounds"),
    (["--keep", "1.5"], "--keep '1.5' is not a share"),
    (["--keep", "nan"], "--keep 'nan' is not a share"),
    (["--max-calls", "-3"], "--max-calls '-3' is not a positive whole number"),
    (["--max-seconds", "soon"], "--max-seconds 'soon' is not a number"),
    (["--seed", "x"], "--seed 'x' is not a whole number"),
    (["--review"], "--review needs a terminal"),
    (["--pairs", "."], "cannot be read"),
])
def test_what_cannot_be_used_is_refused_before_any_call(invoke: Invoke, lighthouses: Settings, reader: LighthouseReader,
                                                        arguments: list[str], message: str) -> None:
    code, _, err = invoke(*arguments)
    assert code == 2
    assert message in err
    assert reader.calls == 0


def test_a_plot_is_drawn(invoke: Invoke, lighthouses: Settings, tmp_path: Path) -> None:
    assert invoke(*SMALL, "--plot", tmp_path / "new" / "frontier.png")[0] == 0
    assert (tmp_path / "new" / "frontier.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = invoke(*SMALL, "--plot", tmp_path / "frontier.xyz")
    assert (code, "cannot be drawn" in err) == (2, True)


def test_a_broken_collection_file_is_named(invoke: Invoke, lighthouses: Settings) -> None:
    path = folder_of("default", settings=lighthouses) / "settings.toml"
    path.write_text("budget_tokens = 0\n")
    code, _, err = invoke(*SMALL)
    assert (code, str(path) in err) == (2, True)


def test_every_example_of_the_help_parses() -> None:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(tune.tune)
    command = get_command(app)
    shown = [line.split("#")[0] for line in tune.EXAMPLES.splitlines() if "thriftrag tune" in line]
    assert len(shown) == 5
    for line in shown:
        words = shlex.split(line)[2:]
        assert command.make_context("tune", words).params["collection"] == "handbook"
    assert all(parameter.help for parameter in command.params)
