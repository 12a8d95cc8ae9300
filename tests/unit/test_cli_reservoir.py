"""`thriftrag reservoir` on a collection that has answered questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_fakes import Cli

from rag.cli import session
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from retrievers.reservoir import Case
from tests.memory_fakes import FACTS, LIKE, QUESTION, open_kb, trust, write


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings) -> Iterator[Cli]:
    made = Cli(monkeypatch, tmp_path / "cli")
    with open_kb(settings, answer_cache="on") as kb:
        kb.ingest(write(tmp_path / "docs", FACTS))
        trust(kb).ask(QUESTION)
        kb.ask(LIKE)
        monkeypatch.setattr(session, "open_kb", lambda chosen, create: _Lent(kb))
        yield made


class _Lent:
    """The collection, which a command must not close."""

    def __init__(self, kb: ThriftRAG) -> None:
        self.kb = kb

    def __enter__(self) -> ThriftRAG:
        return self.kb

    def __exit__(self, *_: object) -> None:
        pass


def test_list_and_show_tell_what_is_remembered(cli: Cli) -> None:
    assert QUESTION in " ".join(cli.run("reservoir", "list").out.split())
    [row] = cli.run("reservoir", "list", "--json").json["questions"]  # type: ignore[misc]
    shown = cli.run("reservoir", "show", str(row["number"]), "--json").json
    assert shown["name"] == QUESTION
    assert shown["passages"]
    passages = cli.run("reservoir", "list", "--what", "knowledge", "--json").json["knowledge"]
    one = next(each for each in passages if each["name"].startswith(shown["passages"][0]))  # type: ignore[index,union-attr]
    text = cli.run("reservoir", "show", str(one["number"]), "--what", "knowledge").out
    assert "warranty of the kettle lasts two years" in " ".join(text.split())


def test_what_is_not_there_is_named(cli: Cli) -> None:
    missing = cli.run("reservoir", "show", "4711", "--json")
    assert (missing.code, missing.error["code"]) == (2, "entry_missing")
    wrong = cli.run("reservoir", "list", "--what", "dreams", "--json")
    assert (wrong.code, wrong.error["field"]) == (2, "what")


def test_stats_count_and_say_what_the_trigger_goes_by(cli: Cli) -> None:
    found = cli.run("reservoir", "stats", "--json").json
    assert (found["questions"], found["answers"]) == (1, 1)
    assert found["knowledge_hits"] or found["answers_hits"]
    assert "own traffic" in str(found["trigger_questions"])


def test_export_writes_every_entry_with_its_text(cli: Cli) -> None:
    assert cli.run("reservoir", "export", "memory.jsonl").code == 0
    rows = [json.loads(line) for line in Path("memory.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["what"] for row in rows} == {"questions", "knowledge", "answers"}
    assert any("lasts two years" in row.get("text", "") for row in rows if row["what"] == "knowledge")
    assert cli.run("reservoir", "export", "-").out.count("\n") == len(rows)
    assert cli.run("reservoir", "export", "-", "--json").code == 2
    assert cli.run("reservoir", "export", "no/such/folder.jsonl").code == 1


def test_clear_forgets_everything_and_prune_nothing_that_stands(cli: Cli) -> None:
    assert cli.run("reservoir", "prune", "--json").json == {"pruned": 0}
    assert cli.run("reservoir", "clear", "--json").json["cleared"]
    assert "remembers no questions" in cli.run("reservoir", "list").out


def test_calibrate_fits_from_cases_and_says_when_there_are_too_few(cli: Cli) -> None:
    few = cli.run("reservoir", "calibrate", "--reset")
    assert few.code == 0
    assert "nothing yet" in few.out
    assert "at least" in cli.run("reservoir", "calibrate").out
    memory = session.open_kb(None, create=False).kb.memory()  # type: ignore[arg-type,attr-defined]
    for i in range(400):
        memory.reservoir.observe("questions", Case(f"q{i}", (i / 400, 0.5, 0.1), i > 130 + 10 * (i % 3)))
    found = cli.run("reservoir", "calibrate", "--error", "0.05", "--json").json
    row = found["models"]["questions"]  # type: ignore[index,call-overload]
    assert (row["cases"], row["fitted"], row["serves"]) == (400, True, True)
    assert "own traffic" in row["goes_by"]
