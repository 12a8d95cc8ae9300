"""A collection's own settings: where they stand among the others, and what a broken file says."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from rag.collection_settings import FILE, layered, write
from rag.errors import ConfigError, StorageError
from rag.settings import Settings, load
from rag.thriftrag import ThriftRAG, folder_of
from tests.fakes import ScriptedReader, WordEncoder


@pytest.fixture
def folder(settings: Settings) -> Path:
    path = folder_of("kb", settings=settings)
    path.mkdir(parents=True)
    return path


def opened(settings: Settings | None = None, **overrides: object) -> Settings:
    with ThriftRAG.open("kb", settings=settings, reader=ScriptedReader(), encoder=WordEncoder(), **overrides) as kb:
        return kb.settings


def test_they_win_over_defaults_and_the_users_file_and_yield_to_variables_and_flags(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = home / "collections" / "kb"
    folder.mkdir(parents=True)
    (home / "config.toml").write_text('budget_tokens = 300\ncandidates = 30\nselector = "topk"\n', encoding="utf-8")
    (folder / FILE).write_text('budget_tokens = 192\ncandidates = 12\nselector = "sentences"\nmode = "bm25"\nabstain_below = 0.1\n')
    found = opened(load({"home": home, "selector": "greedy"}, environ={"THRIFTRAG_MODE": "dense"}), candidates=99)
    assert (found.budget_tokens, found.candidates, found.selector) == (192, 99, "greedy")
    assert (found.mode, found.abstain_below) == ("dense", 0.1)
    assert found.origin["budget_tokens"] == str(folder / FILE)
    assert (found.origin["selector"], found.origin["mode"], found.origin["candidates"]) == ("flag", "THRIFTRAG_MODE", "flag")
    rows = {row["name"]: row["origin"] for row in found.rows()}
    assert rows["abstain_below"] == str(folder / FILE)


def test_what_code_has_put_into_the_settings_wins(settings: Settings, folder: Path) -> None:
    write(folder, {"budget_tokens": 192, "selector": "sentences"})
    found = opened(replace(settings, budget_tokens=64))
    assert (found.budget_tokens, found.selector) == (64, "sentences")


def test_another_collection_knows_nothing_of_them(settings: Settings, folder: Path) -> None:
    write(folder, {"budget_tokens": 192})
    assert opened(settings).budget_tokens == 192
    with ThriftRAG.open("other", settings=settings, reader=ScriptedReader(), encoder=WordEncoder()) as kb:
        assert kb.settings.budget_tokens == 256


def test_they_decide_the_answer_and_its_config_hash(settings: Settings, tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("The kettle is blue. The kettle holds two litres of water. The kettle boils in three minutes.\n")
    with ThriftRAG.open("kb", settings=settings, reader=ScriptedReader("blue"), encoder=WordEncoder()) as kb:
        kb.ingest(source)
        before = kb.ask("What colour is the kettle?")
    write(folder_of("kb", settings=settings), {"budget_tokens": 12})
    with ThriftRAG.open("kb", settings=settings, reader=ScriptedReader("blue"), encoder=WordEncoder()) as kb:
        after = kb.ask("What colour is the kettle?")
    assert (before.receipt.budget_tokens, after.receipt.budget_tokens) == (256, 12)
    assert after.receipt.context_tokens <= 12 < before.receipt.context_tokens
    assert before.config != after.config


@pytest.mark.parametrize(("text", "message"), [
    ("budget_tokens = ", "cannot be read as TOML"),
    ("budget_tokens = 0", "budget_tokens = 0 (from {path}) is out of bounds"),
    ('budget_tokens = "many"', "budget_tokens = 'many' (from {path}) is not a int"),
    ('selector = "best"', "selector = 'best' (from {path}) is not one of"),
    ('budget_token = 64', "Unknown setting 'budget_token' from {path}"),
    ('embedder = "other"', "embedder (from {path}) cannot be changed"),
    ("[answers]\nbudget_tokens = 64", "Unknown setting 'answers' from {path}"),
])
def test_a_broken_file_is_named(settings: Settings, folder: Path, text: str, message: str) -> None:
    (folder / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        layered(settings, folder)
    assert message.format(path=folder / FILE) in caught.value.message
    assert str(folder / FILE) in caught.value.message
    assert caught.value.hint


def test_a_broken_value_is_told_even_where_a_flag_wins(settings: Settings, folder: Path) -> None:
    (folder / FILE).write_text("budget_tokens = 0\n")
    with pytest.raises(ConfigError, match="out of bounds"):
        layered(load({"home": settings.home, "budget_tokens": 64}, environ={}), folder)


def test_writing_keeps_what_else_is_set(settings: Settings, folder: Path) -> None:
    write(folder, {"mode": "bm25", "budget_tokens": 64})
    path = write(folder, {"budget_tokens": 192, "abstain_below": 0.25}, comments=["tuned\nfor the kettle"])
    assert path.read_text(encoding="utf-8").startswith("# tuned for the kettle\n")
    assert tomllib.loads(path.read_text(encoding="utf-8")) == {"mode": "bm25", "budget_tokens": 192, "abstain_below": 0.25}
    assert layered(settings, folder).abstain_below == 0.25
    assert list(folder.iterdir()) == [path]


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"settings\.toml cannot be written"):
        write(tmp_path / "nowhere", {"budget_tokens": 64})


def test_a_broken_file_is_not_overwritten(folder: Path) -> None:
    (folder / FILE).write_text("broken")
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        write(folder, {"budget_tokens": 64})
    assert (folder / FILE).read_text() == "broken"
