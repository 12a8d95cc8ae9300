"""The programs of docs/integrations.md, run as they stand there: real models, a real server, a real agent's tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rag.models import ModelCache

GUIDE = Path(__file__).parents[2] / "docs" / "integrations.md"
SMALL = "qwen2.5-coder-0.5b-instruct"
RECORDS = ({"id": "pump", "title": "Pump", "year": 2021,
            "text": "The Zeta pump is sold with a warranty of 27 months. Its spare parts are kept in Rotterdam."},
           {"id": "otter", "title": "Otter", "year": 2022,
            "text": "Otters sleep on their backs. They hold hands while they sleep."})


@dataclass(frozen=True)
class Guide:
    """The programs, and where they run."""

    programs: tuple[str, ...]
    environment: dict[str, str]
    url: str

    def run(self, part: str) -> str:
        """What the program that has `part` in it prints."""
        [program] = [program for program in self.programs if part in program]
        program = program.replace("http://127.0.0.1:8080", self.url).replace(
            'command="thriftrag", args=[', f'command={sys.executable!r}, env={self.environment!r}, args=["-m", "rag.cli", ')
        done = subprocess.run([sys.executable, "-c", program], env=self.environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory, model_cache: ModelCache) -> Iterator[Guide]:
    home = tmp_path_factory.mktemp("home")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "THRIFTRAG_HOME": str(home), "LANG": "C.UTF-8",
                   "THRIFTRAG_WORKERS": "0", "THRIFTRAG_MODELS": str(model_cache.root), "THRIFTRAG_READER": SMALL,
                   "PYTHONPATH": str(GUIDE.parents[1])}
    subprocess.run([sys.executable, "-m", "rag.cli", "ingest", "-", "-c", "handbook"], env=environment, check=True,
                   capture_output=True, input="\n".join(map(json.dumps, RECORDS)).encode(), timeout=200)
    programs = tuple(re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    with (home / "log.jsonl").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "rag.cli", "serve", "--port", "0", "--json"], stdout=subprocess.PIPE,
                                   stderr=log, text=True, env=environment)
        try:
            assert process.stdout is not None
            yield Guide(programs, environment, json.loads(process.stdout.readline())["url"])
        finally:
            process.kill()
            process.wait()


def test_openai_clients(guide: Guide) -> None:
    told = guide.run("from openai import OpenAI").splitlines()
    assert "27" in told[0]
    assert told[1].startswith("answered The Zeta pump is sold with a warranty of 27 months.")
    assert "Zeta pump" in told[-2]
    assert re.fullmatch(r"\d+ prompt tokens", told[-1])


def test_langchain(guide: Guide) -> None:
    told = guide.run("ThriftAnswers(kb")
    assert "stdin#pump" in told
    assert "And where are its spare parts kept? (27 months, long, warranty, Zeta pump)" in told
    assert told.count("27") >= 3


def test_agents(guide: Guide) -> None:
    assert "27" in guide.run("stdio_client")
