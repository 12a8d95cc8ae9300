"""`--where` on ask and search: read before anything is opened, handed on as a filter, and shown where it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_fakes import Cli

from rag.filters import And, In, Range

# What each command calls.
CALLS = {"ask": "ask", "search": "find"}


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return Cli(monkeypatch, tmp_path)


@pytest.mark.parametrize("command", ["ask", "search"])
def test_a_filter_is_handed_on(cli: Cli, command: str) -> None:
    assert cli.run(command, "Who?", "--where", "year >= 2020 and lang in (en, de)").code == 0
    assert cli.kb.called(CALLS[command])["where"] == And((Range("year", gte=2020), In("lang", ("en", "de"))))


@pytest.mark.parametrize("command", ["ask", "search"])
def test_without_one_everything_is_searched(cli: Cli, command: str) -> None:
    assert cli.run(command, "Who?").code == 0
    assert cli.kb.called(CALLS[command])["where"] is None


@pytest.mark.parametrize("command", ["ask", "search"])
def test_a_mistake_is_shown_in_its_place_before_anything_is_opened(cli: Cli, command: str) -> None:
    done = cli.run(command, "Who?", "--where", "year >= 2020 und lang = en")
    assert done.code == 2
    assert cli.opened == []
    assert done.err == ('Error: The filter is not understood at column 14: expected "and", "or" or the end, found \'und\'.\n'
                        "  year >= 2020 und lang = en\n"
                        "               ^\n"
                        "  Fix: Values with spaces or signs in them need quotes.\n")


def test_a_mistake_is_an_error_object_for_scripts(cli: Cli) -> None:
    done = cli.run("search", "Who?", "--json", "--where", "")
    assert done.code == 2
    assert (done.error["code"], done.error["field"], done.error["message"]) == ("filter_invalid", "where", "The filter is empty.")


def test_finding_nothing_names_the_filter(cli: Cli) -> None:
    cli.kb.hits = []
    assert 'among documents where lang = "en"' in cli.run("search", "Who?", "--where", "lang=en").out
    cli.kb.calls.clear()
    assert "among" not in cli.run("search", "Who?").out
