"""Help teaches: every command shows examples that parse, every option is explained, and the guide has it all."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_fakes import Cli, check_golden
from typer.main import get_command

from rag.cli.root import app

GUIDE = Path(__file__).parent.parent.parent / "docs" / "cli.md"
ELSEWHERE = {"eval"}


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group with the words that call it."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        if name not in ELSEWHERE:
            yield from commands(command, (*path, name))


TREE = dict(commands(get_command(app)))
LEAVES = {path: command for path, command in TREE.items() if not hasattr(command, "commands")}


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return Cli(monkeypatch, tmp_path)


def examples(help_text: str) -> list[str]:
    """The lines below `Examples:`, without their comments."""
    lines = help_text.split("Examples:\n")[1].splitlines()
    return [re.split(r"\s+# ", line)[0].strip() for line in lines if line.strip()]


def test_the_tree_is_the_contract() -> None:
    assert {" ".join(path) for path in LEAVES} == {
        "ingest", "ask", "search", "documents list", "documents show", "documents delete", "collections list",
        "collections info", "collections verify", "collections rebuild", "collections compact", "collections delete",
        "reservoir list", "reservoir show", "reservoir stats", "reservoir prune", "reservoir clear", "reservoir export",
        "reservoir calibrate",
        "collections export", "collections import",
        "clusters build", "clusters list", "clusters show", "clusters delete",
        "serve", "mcp", "keys create", "keys list", "keys revoke", "models list", "models pull", "models verify", "config", "bench",
        "tune"}


@pytest.mark.parametrize("path", TREE, ids=" ".join)
def test_help_is_pinned(cli: Cli, path: tuple[str, ...]) -> None:
    done = cli.run(*path, "--help")
    assert done.code == 0
    assert done.err == ""
    check_golden("help-" + ("-".join(path) or "thriftrag"), done.out)


@pytest.mark.parametrize("path", TREE, ids=" ".join)
def test_every_help_has_examples_of_this_command(cli: Cli, path: tuple[str, ...]) -> None:
    shown = examples(cli.run(*path, "--help").out)
    assert shown
    assert all(" ".join(("thriftrag", *path)) in line for line in shown)


# `tune` works on a real collection: its examples are parsed in test_tune_cli; `serve` and `mcp` serve, and keys are there to be
# revoked: theirs in test_api_cli and test_mcp_cli; `reservoir show` needs something remembered: test_cli_reservoir.
UNPARSED = (("tune",), ("serve",), ("mcp",), ("keys", "revoke"), ("reservoir", "show"))


@pytest.mark.parametrize("path", [path for path in LEAVES if path not in UNPARSED], ids=" ".join)
def test_every_example_parses(cli: Cli, path: tuple[str, ...]) -> None:
    """What the fakes answer does not matter, only that the parser and the checks let the command through."""
    cli.collections["handbook"] = cli.kb
    Path("talk.json").write_text("[]", encoding="utf-8")
    for line in examples(cli.run(*path, "--help").out):
        words = shlex.split(line.split("|")[-1].split("<")[0])
        words = words[words.index("thriftrag") + 1:]
        done = cli.run(*words, stdin="A question?" if "-" in words else None)
        told = done.out + done.err
        assert done.code == 0 or "needs a confirmation" in told or "No document" in told, told


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_is_explained(path: tuple[str, ...]) -> None:
    assert all(parameter.help for parameter in LEAVES[path].params if parameter.name != "help")


def test_json_and_home_are_everywhere() -> None:
    for command in LEAVES.values():
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert {"--json", "--home", "--verbose"} <= flags


def test_the_guide_has_every_command_and_option() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    for path, command in LEAVES.items():
        assert f"thriftrag {' '.join(path)}" in guide
        for parameter in command.params:
            assert all(flag in guide for flag in parameter.opts if flag.startswith("--")), parameter.opts


def test_a_group_without_a_command_shows_its_help(cli: Cli) -> None:
    for path in ((), ("documents",), ("collections",), ("models",)):
        done = cli.run(*path)
        assert done.out == cli.run(*path, "--help").out
        assert done.code == 2
        assert done.err == ""
