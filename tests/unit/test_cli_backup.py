"""`collections export` and `import`: a real collection through the commands, with an encoder of words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_fakes import Cli

from rag import thriftrag
from rag.cli import session
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from tests.fakes import ScriptedReader, WordEncoder


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    importing = session.import_collection
    made = Cli(monkeypatch, tmp_path)

    def open_kb(chosen: Settings, *, create: bool) -> ThriftRAG:
        return ThriftRAG.open(chosen.collection, create=create, settings=chosen, encoder=WordEncoder(), reader=ScriptedReader())

    monkeypatch.setattr(session, "open_kb", open_kb)
    monkeypatch.setattr(session, "import_collection", importing)
    monkeypatch.setattr(thriftrag, "open_encoder", lambda *_, **__: WordEncoder())
    kb = open_kb(session.settings(collection="kb"), create=True)
    kb.ingest(lines=[json.dumps({"id": f"d{n}", "text": f"Otter {n} swims."}) for n in range(3)])
    return made


def test_out_and_in_again(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "kb.thriftrag"
    done = cli.run("collections", "export", "kb", str(target))
    assert done.code == 0
    assert "Exported 3 documents of collection kb" in done.out
    done = cli.run("collections", "import", str(target), "--as", "copy")
    assert done.code == 0
    assert "Imported 3 documents as collection copy" in done.out
    assert cli.run("collections", "verify", "copy").code == 0


def test_json_is_one_object(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "kb.thriftrag"
    told = cli.run("collections", "export", "kb", str(target), "--json").json
    assert (told["collection"], told["documents"], told["bytes"]) == ("kb", 3, target.stat().st_size)
    told = cli.run("collections", "import", str(target), "--as", "copy", "--json").json
    assert (told["collection"], told["documents"], told["encoder"]) == ("copy", 3, "words@1")


def test_what_cannot_be_is_refused_with_its_code(cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "kb.thriftrag"
    target.write_text("mine")
    assert cli.run("collections", "export", "kb", str(target), "--json").error["code"] == "file_exists"
    assert cli.run("collections", "export", "nothing", str(tmp_path / "x"), "--json").error["code"] == "collection_missing"
    assert cli.run("collections", "import", str(target), "--json").error["code"] == "backup_invalid"
    assert cli.run("collections", "export", "kb", str(target), "--force").code == 0
    assert cli.run("collections", "import", str(target), "--json").error["code"] == "collection_exists"
    assert cli.run("collections", "import", str(target), "--as", "../x", "--json").error["code"] == "input_invalid"
    assert cli.run("collections", "import", str(tmp_path / "missing"), "--json").error["code"] == "backup_missing"
