"""Lines of docs/security.md that no other test holds, and that page itself: the tests it names are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import keys
from tests.api_fakes import Live, live

ROOT = Path(__file__).parents[2]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Live]:
    with live(tmp_path) as running:
        yield running


def test_secrets_are_compared_in_constant_time_whatever_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right, wrong and unknown: each comes to one comparison of two hashes of one length; garbage is not even that."""
    compared: list[tuple[int, int]] = []
    real = keys.hmac.compare_digest

    def noted(kept: bytes, given: bytes) -> bool:
        compared.append((len(kept), len(given)))
        return real(kept, given)

    monkeypatch.setattr(keys.hmac, "compare_digest", noted)
    with live(tmp_path) as served:
        key = served.key()
        head, key_id, secret = key.split("_", 2)
        wrong = "A" * len(secret)
        for typed in (key, f"{head}_{key_id}_{wrong}", f"{head}_{'0' * 12}_{wrong}"):
            keys.check(served.service.database, typed)
        assert compared[-3:] == [(32, 32)] * 3
        assert keys.check(served.service.database, "garbage") is None


def test_every_route_but_health_asks_for_a_scope(served: Live) -> None:
    schema = served.client().get("/openapi.json").json()
    open_to_all = {path for path, operations in schema["paths"].items() for operation in operations.values()
                   if "x-scope" not in operation}
    assert open_to_all <= {"/healthz", "/readyz"}
    served.key()
    stranger = served.client()
    for path, operations in schema["paths"].items():
        for method in operations:
            if path not in open_to_all:
                filled = path.replace("{name}", "default").replace("{document_id}", "pump").replace("{job_id}", "x")
                assert stranger.request(method, filled).status_code == 401, (method, path)


def test_what_the_server_keeps_is_readable_by_its_owner_alone(served: Live) -> None:
    served.key()
    served.client().get("/v1/collections")      # a refusal, for the audit log
    kept = [*served.home.glob("service.sqlite*"), served.home / "audit.jsonl"]
    assert len(kept) >= 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)


def test_nothing_reads_pickles_or_runs_remote_code() -> None:
    wrong = re.compile(r"^\s*(?:import|from) (?:pickle|cPickle|dill|joblib|shelve|marshal)\b|\bpickle\.loads?\(|allow_pickle=True|"
                       r"trust_remote_code=True|weights_only=False|yaml\.load\(|(?<![.\w])eval\(|(?<![.\w])exec\(", re.MULTILINE)
    found = {str(path.relative_to(ROOT)): wrong.findall(path.read_text(encoding="utf-8"))
             for package in ("rag", "indexers", "retrievers", "optimizers", "api", "eval")
             for path in (ROOT / package).rglob("*.py") if wrong.search(path.read_text(encoding="utf-8"))}
    assert found == {}


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    table = page[page.index("## Controls"):page.index("## OWASP")]
    named = set(re.findall(r"(?:`|::)(test_\w+|tests/[\w/]+\.py)", table))
    assert len(named) > 40
    there = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    texts = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    functions = set(re.findall(r"(?m)^def (test_\w+)", texts))
    missing = {name for name in named if not ((ROOT / name).is_file() if "/" in name else name in there | functions)}
    assert missing == set()
