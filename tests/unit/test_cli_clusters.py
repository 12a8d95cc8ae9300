"""`thriftrag clusters`, `ingest --clusters` and `search --mode clustered` on a real collection with models by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rag.cli import session
from rag.cli.root import app
from rag.errors import ModelUnavailable
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from tests.fakes import ScriptedReader, WordEncoder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    said = ["The battery of the phone lasts long", "Its bright screen shows sharp colours"]
    rows = [{"id": f"r{i}", "text": f"{said[i % 2]} number{i}.", "product": "phone" if i < 8 else "lamp"} for i in range(12)]
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Run:
    reader = ScriptedReader("The battery lasts long.")

    def opened(chosen: Settings, *, create: bool) -> ThriftRAG:
        return ThriftRAG.open(chosen.collection, create=create, settings=settings, reader=reader, encoder=WordEncoder())

    def called(*args: str, fails: Exception | None = None) -> tuple[int, str, str]:
        reader._fails, reader.closed = fails, False
        done = CliRunner().invoke(app, [*args, "--home", str(settings.home)])
        return done.exit_code, done.stdout, done.stderr

    monkeypatch.setattr(session, "open_kb", opened)
    return called


def test_clusters_are_built_listed_shown_searched_and_deleted(run: Run, reviews: Path) -> None:
    assert run("ingest", str(reviews))[0] == 0
    code, out, _ = run("clusters", "list")
    assert code == 0
    assert "Next: thriftrag clusters build" in out
    code, out, _ = run("clusters", "build")
    assert code == 0
    assert out.startswith("12 texts in 2 clusters: 1 group divided, 2 summaries made, 0 reader calls")
    code, out, _ = run("clusters", "build", "--group-by", "product", "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["groups"], report["texts"], report["left_out"]) == (2, 12, 0)
    listed = json.loads(run("clusters", "list", "--json")[1])["clusterings"]
    assert [(each["name"], each["groups"], each["current"]) for each in listed] == [("all", 1, True), ("metadata.product", 2, True)]
    assert "metadata.product" in run("clusters", "list")[1]
    code, out, _ = run("clusters", "show")
    assert code == 0
    assert "50% of 12 texts" in out
    assert "battery" in out
    shown = json.loads(run("clusters", "show", "product", "--group", "lamp", "--json")[1])["clusters"]
    assert {each["group"] for each in shown} == {"lamp"}
    assert sum(each["texts"] for each in shown) == 4
    assert all(each["members"] and each["labels"] is not None and each["text"] for each in shown)
    code, out, _ = run("search", "What do people say?", "--mode", "clustered", "--json")
    assert code == 0
    assert json.loads(out)["hits"][0]["chunk_id"].startswith("cluster:all:")
    assert run("clusters", "delete", "product")[0] == 0
    assert [each["name"] for each in json.loads(run("clusters", "list", "--json")[1])["clusterings"]] == ["all"]


def test_ingesting_brings_clusters_up_to_date(run: Run, reviews: Path) -> None:
    code, out, _ = run("ingest", str(reviews), "--clusters")
    assert code == 0
    assert "Clusters: 12 texts in 2 clusters" in out
    new = json.dumps({"id": "new", "text": "The battery of the phone lasts long number4."}) + "\n"
    reviews.write_text(reviews.read_text(encoding="utf-8") + new, encoding="utf-8")
    code, out, _ = run("ingest", str(reviews), "--clusters", "--json")
    assert code == 0
    assert [(each["texts"], each["assigned"]) for each in json.loads(out)["clusters"]] == [(13, 1)]
    assert "clusters" not in json.loads(run("ingest", str(reviews), "--json")[1])


@pytest.mark.parametrize("args", [
    ("clusters", "build", "--k", "none"), ("clusters", "build", "--k", "0"), ("clusters", "build", "--summaries", "magic"),
    ("clusters", "build", "--summary-tokens", "200"), ("clusters", "show", "nothing"), ("clusters", "delete", "nothing"),
    ("clusters", "build", "--group-by", "colour"), ("search", "x", "--mode", "clustered")])
def test_a_mistake_is_told_with_its_fix(run: Run, reviews: Path, args: tuple[str, ...]) -> None:
    run("ingest", str(reviews))
    code, out, err = run(*args)
    assert code == 2
    assert out == ""
    assert "Fix:" in err


def test_clusters_and_a_dry_run_do_not_go_together(run: Run, reviews: Path) -> None:
    assert run("ingest", str(reviews), "--clusters", "--dry-run")[0] == 2
    assert run("ingest", str(reviews), "--clusters", "--watch")[0] == 2


def test_a_reader_that_is_away_says_that_the_same_command_goes_on(run: Run, reviews: Path) -> None:
    lines = [json.loads(line) for line in reviews.read_text(encoding="utf-8").splitlines()]
    reviews.write_text("".join(json.dumps({**row, "text": row["text"] * 3}) + "\n" for row in lines), encoding="utf-8")
    run("ingest", str(reviews))
    code, _, err = run("clusters", "build", "--summaries", "llm", fails=ModelUnavailable("Nothing answers.", hint="Start it."))
    assert code == 1
    assert "the same command goes on" in err
    assert run("clusters", "build", "--summaries", "llm")[0] == 0
