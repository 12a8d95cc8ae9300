"""Shell completion: names from the real home, and silence when they cannot be found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_fakes import Cli

from optimizers import SELECTORS
from rag.cli import complete


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return Cli(monkeypatch, tmp_path)


def test_collections_and_models(cli: Cli, tmp_path: Path) -> None:
    assert complete.collections("") == []
    for name in ("default", "default2", ".default.deleted", "handbook"):
        (tmp_path / "collections" / name).mkdir(parents=True)
    assert complete.collections("de") == ["default", "default2"]
    assert complete.collections("x") == []
    assert complete.models("all") == ["all-minilm-l6-v2"]


def test_fixed_choices() -> None:
    assert complete.selectors("t") == ["topk", "topk_whole"]
    assert complete.selectors("") == list(SELECTORS)
    assert complete.modes("h") == ["hybrid"]
    assert complete.modes("s") == ["sparse"]
    assert complete.fusions("") == ["rrf", "weighted"]


def test_the_next_of_several_origins() -> None:
    assert complete.origins("") == ["dense", "bm25", "sparse"]
    assert complete.origins("dense,") == ["dense,bm25", "dense,sparse"]
    assert complete.origins("bm25,dense,s") == ["bm25,dense,sparse"]
    assert complete.origins("x") == []


def test_a_broken_home_completes_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTRAG_NONSENSE", "1")
    assert complete.models("") == []
    assert complete.collections("") == []


def test_the_shell_gets_commands_and_values() -> None:
    def completed(line: str) -> list[str]:
        env = {**os.environ, "_THRIFTRAG_COMPLETE": "complete_bash", "COMP_WORDS": line,
               "COMP_CWORD": str(len(line.split()) - 1)}
        done = subprocess.run([sys.executable, "-m", "rag.cli"], env=env, capture_output=True, timeout=60, check=True)
        return done.stdout.decode().split()

    assert completed("thriftrag coll") == ["collections"]
    assert "verify" in completed("thriftrag collections ver")
    assert completed("thriftrag ask --selector gr") == ["greedy"]
    assert completed("thriftrag models pull qwen2.5-coder-0") == ["qwen2.5-coder-0.5b-instruct"]
    assert "run" in completed("thriftrag eval r")
