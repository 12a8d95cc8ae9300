"""Converting writes what loading read: the same data set, once, whole or not at all."""

from __future__ import annotations

import gzip
import json
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from eval import convert as converting
from eval.convert import convert
from eval.datasets import chosen, load
from rag.cli.eval_convert import EXAMPLES
from rag.cli.eval_convert import convert as command
from rag.errors import InputError


def squad(path: Path, *, questions: int = 40) -> Path:
    """Half of the questions can be answered."""
    asked = [{"id": f"s{n}", "question": f"What is number {n}?", "is_impossible": n % 2 == 1,
              "answers": [] if n % 2 else [{"text": f"value {n}", "answer_start": 0}]} for n in range(questions)]
    path.write_text(json.dumps({"data": [{"title": "Numbers", "paragraphs": [
        {"context": f"The value {n} is one of them.", "qas": asked[n::4]} for n in range(4)]}]}), encoding="utf-8")
    return path


def test_the_folder_holds_the_data_set_that_the_source_held(tmp_path: Path) -> None:
    source = squad(tmp_path / "dev.json")
    found = convert(source, tmp_path / "out")
    before, after = load(source), load(tmp_path / "out")
    assert (after.layout, after.name) == ("folder", "out")
    assert (after.passages, after.questions, after.digest) == (before.passages, before.questions, before.digest)
    assert found.digest == after.digest
    assert (found.layout, found.passages, found.questions, found.answerable, found.unanswerable, found.with_evidence) == (
        "squad", 4, 40, 20, 20, 20)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "corpus.jsonl", "queries.jsonl"]


def test_all_answers_needed_and_languages_survive(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "corpus.jsonl").write_text('{"id": "d1", "title": "", "text": "3 und 3"}\n', encoding="utf-8")
    (source / "queries.jsonl").write_text(json.dumps({
        "id": "q1", "question": "Welche?", "answers": ["3", "3"], "evidence": ["d1"], "type": "list", "lang": "de",
        "all_answers_needed": True}) + "\n", encoding="utf-8")
    convert(source, tmp_path / "out")
    assert load(tmp_path / "out").questions == load(source).questions
    assert load(tmp_path / "out").questions[0].language == "de"


def test_a_limit_draws_questions_and_keeps_every_passage(tmp_path: Path) -> None:
    source = squad(tmp_path / "dev.json")
    convert(source, tmp_path / "small", limit=6, seed=7)
    convert(source, tmp_path / "large", limit=15, seed=7)
    small, large = (load(tmp_path / name) for name in ("small", "large"))
    everything = load(source)
    assert len(small.questions) == 6
    assert {question.id for question in small.questions} <= {question.id for question in large.questions}
    assert {question.id for question in small.questions} == {question.id for question in chosen(everything, limit=6, seed=7)}
    assert small.corpus_digest == large.corpus_digest == everything.corpus_digest
    order = [question.id for question in everything.questions]
    assert [question.id for question in large.questions] == sorted((q.id for q in large.questions), key=order.index)


def test_large_files_are_compressed_and_bytes_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "COMPRESS_OVER_BYTES", 1000)
    source = squad(tmp_path / "dev.json")
    convert(source, tmp_path / "one")
    convert(source, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["README.md", "corpus.jsonl", "queries.jsonl.gz"]
    assert len(gzip.decompress((tmp_path / "one/queries.jsonl.gz").read_bytes())) > 1000
    assert (tmp_path / "one/queries.jsonl.gz").read_bytes() == (tmp_path / "two/queries.jsonl.gz").read_bytes()
    assert load(tmp_path / "one").digest == load(source).digest


def test_the_readme_says_what_was_taken_from_where_and_how(tmp_path: Path) -> None:
    source = squad(tmp_path / "dev v2.json")
    found = convert(source, tmp_path / "out", limit=10)
    told = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "- source: dev v2.json (sha256 " in told
    assert "- queries: 10, drawn from 40 with seed 13" in told
    assert f"- digest: {found.digest}" in told
    assert str(tmp_path) not in told
    [line] = [line for line in told.splitlines() if "thriftrag" in line]
    assert shlex.split(line) == ["thriftrag", "eval", "convert", "dev v2.json", "out", "--layout", "squad", "--limit", "10",
                                 "--seed", "13"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    source = squad(tmp_path / "dev.json")
    (tmp_path / "out").mkdir()
    convert(source, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="out is there already"):
        convert(source, tmp_path / "out", limit=3)
    with pytest.raises(InputError, match=r"dev\.json is there already"):
        convert(source, source)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_nothing_is_left_behind_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = squad(tmp_path / "dev.json")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(converting, "sync_tree", full)
    with pytest.raises(OSError, match="No space left"):
        convert(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["dev.json"]


# --- The command ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("THRIFTRAG_HOME", str(tmp_path / "home"))
    app = typer.Typer(rich_markup_mode=None)
    app.command("convert", epilog=EXAMPLES)(command)
    app.command("other")(lambda: None)
    return app


def test_the_command_prints_one_object(tmp_path: Path, app: typer.Typer) -> None:
    source = squad(tmp_path / "dev.json")
    done = CliRunner().invoke(app, ["convert", str(source), str(tmp_path / "out"), "--limit", "10", "--json"])
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert (told["layout"], told["questions"], told["out"], told["languages"]) == ("squad", 10, str(tmp_path / "out"), {"en": 10})


def test_the_command_tells_people_what_it_wrote(tmp_path: Path, app: typer.Typer) -> None:
    done = CliRunner().invoke(app, ["convert", str(squad(tmp_path / "dev.json")), str(tmp_path / "out"), "--limit", "10"])
    assert done.exit_code == 0
    assert "10 of 40" in done.stdout
    assert "en 10" in done.stdout


@pytest.mark.parametrize(("arguments", "expected"), [
    (["--limit", "0"], "--limit '0' is not a whole number from 1"), (["--limit", "ten"], "--limit 'ten' is not"),
    (["--seed", "-1"], "--seed '-1' is not a whole number from 0"), (["--layout", "squat"], "--layout 'squat' is not known"),
    (["--split", "dev"], "has no splits")])
def test_the_command_refuses_before_writing(tmp_path: Path, app: typer.Typer, arguments: list[str], expected: str) -> None:
    done = CliRunner().invoke(app, ["convert", str(squad(tmp_path / "dev.json")), str(tmp_path / "out"), *arguments])
    assert isinstance(done.exception, InputError)
    assert expected in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_the_help_teaches(app: typer.Typer) -> None:
    told = CliRunner().invoke(app, ["convert", "--help"]).stdout
    assert "thriftrag eval convert dev-v2.0.json squad2" in told
