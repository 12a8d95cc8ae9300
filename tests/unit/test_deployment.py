"""The files of docs/deploy and the configuration reference are about this version: what they name is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from api import reference
from api.settings import ServerSettings
from rag import settings
from rag.cli.root import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "docs" / "deploy"
PAGE = ROOT / "docs" / "configuration.md"
FILES = [path for path in sorted(DEPLOY.iterdir()) if path.is_file()]
SECRET = re.compile(r"(?im)^[ \t-]*\"?\w*(?:_key|secret|password|token)\w*\"?[ \t]*[:=][ \t]*['\"]?([^\s$'\"{}]+)")


def instructions(text: str) -> list[tuple[str, str]]:
    """Those of a Dockerfile, continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def test_the_configuration_page_is_of_this_version() -> None:
    page = PAGE.read_text(encoding="utf-8")
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(reference.renewed(page), encoding="utf-8")
    assert reference.renewed(page) == page, "run: python -m api.reference docs/configuration.md"
    for name in [*(row.name for row in settings.described()), *ServerSettings.model_fields]:
        assert f"| `{name}`" in page


def test_the_page_shows_no_value_of_a_secret_and_needs_its_marks() -> None:
    assert all(row.default == "" for row in settings.described() if row.secret)
    with pytest.raises(ValueError, match="lacks"):
        reference.renewed("# no marks")
    assert reference.main(["one", "two"]) == 2


def test_the_image_is_made_from_what_is_there() -> None:
    steps = instructions((DEPLOY / "Dockerfile").read_text())
    copied = [words for kind, rest in steps if kind == "COPY" and "--from" not in rest for words in rest.split()[:-1]]
    assert copied
    for name in copied:
        assert (ROOT / name).exists(), name
    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} == {line for line in allowed if line.startswith("!")}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= set(copied)


def test_the_image_runs_as_nobody_in_particular_and_holds_no_secret() -> None:
    steps = instructions((DEPLOY / "Dockerfile").read_text())
    kinds = [kind for kind, _ in steps]
    assert [rest for kind, rest in steps if kind == "USER"] == ["10001:10001"]
    assert kinds.index("USER") < kinds.index("ENTRYPOINT")
    assert "HEALTHCHECK" in kinds
    assert "ARG" not in kinds
    assert '"/models"' in next(rest for kind, rest in steps if kind == "VOLUME")


def test_what_the_image_starts_is_a_command_with_these_options() -> None:
    import typer

    command = typer.main.get_command(app)
    steps = dict(instructions((DEPLOY / "Dockerfile").read_text()))
    words = re.findall(r'"([^"]+)"', steps["CMD"])
    serve = command.commands[words[0]]  # type: ignore[attr-defined]  # the group of all commands
    known = {option for parameter in serve.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def variables(text: str) -> set[str]:
    return set(re.findall(r"\bTHRIFTRAG_[A-Z_]*[A-Z]\b", text))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path) -> None:
    known = {f"THRIFTRAG_{row.name.upper()}" for row in settings.described()}
    served = {f"THRIFTRAG_SERVE_{name.upper()}" for name in ServerSettings.model_fields} | {"THRIFTRAG_SERVE"}
    assert variables(path.read_text()) <= known | served | {"THRIFTRAG_CONFIG"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_holds_a_secret(path: Path) -> None:
    assert SECRET.findall(path.read_text()) == []


def test_the_composition_is_sound() -> None:
    composed = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = composed["services"]
    assert set(services) == {"api", "vllm", "qdrant"}
    for name, service in services.items():
        assert set(service["networks"]) <= set(composed["networks"]), name
        assert "no-new-privileges:true" in service["security_opt"]
        for volume in service["volumes"]:
            assert volume.split(":")[0] in composed["volumes"]
        assert set(service.get("depends_on", {})) <= set(services)
        assert "privileged" not in service
    build = services["api"]["build"]
    assert ((DEPLOY / build["context"]).resolve(), (ROOT / build["dockerfile"]).resolve()) == (ROOT, DEPLOY / "Dockerfile")
    assert [service["ports"] for service in services.values() if "ports" in service] == [["127.0.0.1:8080:8080"]]
    assert composed["networks"]["inside"]["internal"] is True
    assert services["qdrant"]["networks"] == ["inside"]
    assert services["api"]["read_only"] is True


def test_the_composition_asks_for_what_its_example_lists() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    listed = {line.split("=")[0] for line in (DEPLOY / "example.env").read_text().splitlines() if "=" in line and line[0] != "#"}
    assert asked == listed


def test_the_unit_is_accepted_by_systemd(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    text = (DEPLOY / "thriftrag.service").read_text()
    assert "ExecStart=/opt/thriftrag/bin/thriftrag serve\n" in text
    unit = tmp_path / "thriftrag.service"
    unit.write_text(text.replace("/opt/thriftrag/bin/thriftrag serve", "/bin/true"))
    assert verified(unit) == (0, "")
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystem=perhaps"))
    assert "perhaps" in verified(unit)[1]


def verified(unit: Path) -> tuple[int, str]:
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60,
                          check=False)
    return done.returncode, done.stderr


def test_the_unit_waits_longer_than_the_server_drains() -> None:
    text = (DEPLOY / "thriftrag.service").read_text()
    stop = int(re.findall(r"TimeoutStopSec=(\d+)", text)[0])
    grace = int(re.findall(r"stop_grace_period: (\d+)s", (DEPLOY / "compose.yaml").read_text())[0])
    assert min(stop, grace) > ServerSettings().drain_s
