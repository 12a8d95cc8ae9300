"""`thriftrag serve` and `thriftrag keys` from the command line: what they refuse, print and leave behind."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest
from cli_fakes import Cli
from test_cli_help import LEAVES, examples
from typer.main import get_command

from api import server
from api.database import Database
from api.keys import check
from rag.cli.root import app


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return Cli(monkeypatch, tmp_path)


def test_a_key_is_shown_once_listed_without_its_secret_and_revoked(cli: Cli, tmp_path: Path) -> None:
    made = cli.run("keys", "create", "web", "--scopes", "read,write", "--collections", "a,b", "--per-minute", "60",
                   "--usd-per-day", "1.5", "--json")
    row = made.json
    assert (row["name"], row["scopes"], row["collections"], row["per_minute"], row["usd_per_day"]) == (
        "web", ["read", "write"], ["a", "b"], 60, 1.5)
    database = Database(tmp_path)
    found = check(database, str(row["key"]))
    assert found is not None
    assert found.id == row["id"]
    listed = cli.run("keys", "list", "--json")
    assert [key["id"] for key in listed.json["keys"]] == [row["id"]]
    assert str(row["key"]).split("_", 2)[2] not in listed.out + cli.run("keys", "list").out
    revoked = cli.run("keys", "revoke", str(row["id"]), "--json").json
    assert revoked["revoked"] == row["id"]
    assert check(database, str(row["key"])) is None
    database.close()
    actions = [json.loads(line)["action"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert actions == ["key.create", "key.revoke"]


def test_a_key_is_alone_on_stdout_for_scripts(cli: Cli) -> None:
    made = cli.run("keys", "create", "web")
    assert made.out.strip().startswith("trk_")
    assert "not shown again" in made.err


@pytest.mark.parametrize(("arguments", "field"), [
    (("create", "a b"), "name"), (("create", "x", "--scopes", "root"), "scopes"), (("create", "x", "--tenant", "../y"), "tenant"),
    (("create", "x", "--per-minute", "-1"), "per_minute"), (("revoke", "nothing"), "id")])
def test_keys_that_cannot_be_are_refused(cli: Cli, arguments: tuple[str, ...], field: str) -> None:
    done = cli.run("keys", *arguments, "--json")
    assert (done.code, done.error["field"]) == (2, field)


def test_no_keys_is_no_failure(cli: Cli) -> None:
    done = cli.run("keys", "list")
    assert (done.code, done.out) == (0, "There are no keys. Next: thriftrag keys create NAME\n")


@pytest.mark.parametrize(("arguments", "code", "field"), [
    (("--host", "0.0.0.0"), "keys_needed", "host"), (("--port", "70000"), "config_invalid", "port"),
    (("--host", "no such host"), "keys_needed", "host")])
def test_addresses_that_cannot_be_are_refused(cli: Cli, arguments: tuple[str, ...], code: str, field: str) -> None:
    done = cli.run("serve", *arguments, "--json")
    assert (done.code, done.error["code"], done.error["field"]) == (2, code, field)


def test_an_unknown_server_setting_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTRAG_SERVE_ASK_TREADS", "3")
    done = cli.run("serve", "--json")
    assert (done.code, done.error["code"]) == (2, "unknown_setting")
    assert "ask_threads" in str(done.error["hint"])
    assert cli.run("collections", "list", "--json").code == 0       # no other command minds


def test_a_port_that_is_taken_is_named(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = cli.run("serve", "--port", str(taken.getsockname()[1]), "--json")
    assert (done.code, done.error["code"]) == (2, "address_unusable")


def test_serving_prints_its_address_answers_and_ends_in_order(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread calls what was printed and then sends the signal that a service manager sends."""
    seen: list[int] = []
    original = server.Draining

    def started(service: object, *, on_listening: object) -> server.Draining:
        made = original(service, on_listening=on_listening)  # type: ignore[arg-type]

        def call() -> None:
            while not made.started:
                threading.Event().wait(0.01)
            host, port = made.servers[0].sockets[0].getsockname()
            seen.append(httpx.get(f"http://{host}:{port}/readyz", timeout=60).status_code)
            made.handle_exit(signal.SIGTERM, None)

        threading.Thread(target=call, daemon=True).start()
        return made

    monkeypatch.setattr(server, "Draining", started)
    done = cli.run("serve", "--port", "0", "--json")
    assert (done.code, seen) == (0, [200])
    assert str(done.json["url"]).startswith("http://127.0.0.1:")
    assert done.json["keys"] is False


def test_every_example_parses(cli: Cli) -> None:
    for path in (("serve",), ("keys", "revoke")):
        for line in examples(cli.run(*path, "--help").out):
            words = shlex.split(line)[1:]
            command = LEAVES[path]
            command.make_context(" ".join(path), words[len(path):])
    assert get_command(app).commands["keys"].commands.keys() == {"create", "list", "revoke"}  # type: ignore[attr-defined]
