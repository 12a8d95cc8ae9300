"""`thriftrag mcp` before it speaks: what it would offer, and what it refuses."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Cli

from tests.api_fakes import make_collection, make_settings
from tests.fakes import WordEncoder


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return Cli(monkeypatch, tmp_path)


def test_json_tells_what_agents_would_be_offered(cli: Cli, tmp_path: Path) -> None:
    home = tmp_path / "agents"
    for name in ("handbook", "secret"):
        make_collection(make_settings(home), WordEncoder(), name=name)
    done = cli.run("mcp", "--json", "--home", str(home), "-c", "handbook", "--budget", "512")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert [row["name"] for row in told["collections"]] == ["handbook"]
    assert (told["default"], told["most_budget_tokens"], told["tools"]) == ("handbook", 512, ["collections", "search", "ask"])


def test_what_cannot_be_is_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.run("mcp", "--budget", "0").code == 2
    assert cli.run("mcp", "-c", "../etc").code == 2
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "api.mcp_server":
            raise ModuleNotFoundError("No module named 'mcp'", name="mcp")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    done = cli.run("mcp")
    assert done.code != 0
    assert "thriftrag[mcp]" in done.err
