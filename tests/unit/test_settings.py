"""Settings: layers, provenance, bounds, and typos that must not pass in silence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from rag.errors import ConfigError
from rag.settings import Settings, listed, load, names


def test_flags_win_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('budget_tokens = 100\ncandidates = 7\nselector = "topk"\n')
    settings = load({"budget_tokens": 300}, environ={"THRIFTRAG_HOME": str(tmp_path), "THRIFTRAG_CANDIDATES": "9"})
    assert (settings.budget_tokens, settings.candidates, settings.selector, settings.naive_k) == (300, 9, "topk", 5)
    origin = {row["name"]: row["origin"] for row in settings.rows()}
    assert (origin["budget_tokens"], origin["candidates"], origin["naive_k"]) == ("flag", "THRIFTRAG_CANDIDATES", "default")
    assert origin["selector"] == str(tmp_path / "config.toml")


@pytest.mark.parametrize("environ", [{"THRIFTRAG_BUDGET_TOKEN": "5"}, {"THRIFTRAG_BUGDET_TOKENS": "5"}])
def test_an_unknown_key_names_the_nearest(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'budget_tokens'"):
        load({}, environ=environ)


def test_an_unknown_key_in_the_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("selektor = 'topk'\n")
    with pytest.raises(ConfigError, match=r"selektor.*config\.toml.*'selector'"):
        load({}, environ={"THRIFTRAG_HOME": str(tmp_path)})


@pytest.mark.parametrize(("name", "value"), [
    ("budget_tokens", "many"), ("budget_tokens", 0), ("budget_tokens", 1.5), ("abstain_below", "nan"), ("abstain_below", 2),
    ("selector", "best"), ("price_prompt", -1), ("candidates", True), ("mode", "clustered"),
    ("origins", "dense,words"), ("origins", ","), ("origins", True), ("fusion", "sum"),
])
def test_an_impossible_value_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        load({name: value}, environ={})
    assert caught.value.field == name
    assert caught.value.hint


def test_a_list_is_the_same_however_it_is_written() -> None:
    written = [load({"origins": text}, environ={}) for text in ("sparse,dense", " Dense , SPARSE ,dense,", "dense,sparse")]
    assert {settings.origins for settings in written} == {"dense,sparse"}
    assert len({settings.config_hash() for settings in written}) == 1
    assert listed("dense,sparse") == ("dense", "sparse")
    assert load({}, environ={"THRIFTRAG_ORIGINS": "bm25"}).origins == "bm25"


def test_a_broken_or_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("budget_tokens = = 3")
    with pytest.raises(ConfigError, match=r"config\.toml.*line 1"):
        load({}, environ={"THRIFTRAG_HOME": str(tmp_path)})
    with pytest.raises(ConfigError, match="not a file"):
        load({}, environ={"THRIFTRAG_CONFIG": str(tmp_path / "nowhere.toml")})


def test_secrets_are_never_shown() -> None:
    settings = load({"reader_api_key": "sk-secret"}, environ={})
    assert "sk-secret" not in str(settings.rows())
    assert settings.reader_api_key == "sk-secret"
    assert "sk-secret" not in repr(settings)


def test_the_config_hash_changes_with_answers_only() -> None:
    base = load({}, environ={})
    assert dataclasses.replace(base, selector="topk").config_hash() != base.config_hash()
    assert dataclasses.replace(base, naive_k=3).config_hash() == base.config_hash()


def test_every_setting_says_what_it_means() -> None:
    rows = load({}, environ={}).rows()
    assert [row["name"] for row in rows] == names()
    assert all(row["doc"] for row in rows)
    assert all(field.metadata.get("doc") for field in dataclasses.fields(Settings) if field.name != "origin")


def test_paths_are_absolute_wherever_the_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load({"home": "runs/here"}, environ={"THRIFTRAG_MODELS": "cache"})
    assert (settings.home, settings.models) == (tmp_path / "runs" / "here", tmp_path / "cache")
