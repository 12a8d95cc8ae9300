"""Whatever bytes arrive, as a body or as a file, the service answers with a status below 500 in time, and nothing is left behind.

`pytest tests/property/test_api_fuzz.py --fuzz 10000` sends 10,000 bodies and 1,000 files.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api_fakes import QUESTION, RECORDS, Live, live, wait_until
from tests.conftest import SAMPLE

SEED = 13
JSON = {"content-type": "application/json"}
ROUTES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/ask", {"question": QUESTION, "budget_tokens": 64, "max_cost_usd": 0.5, "deadline_s": 9.5, "selector": "topk",
                 "fallback": "none", "filters": {"year": {"gte": 2020}, "not": {"lang": ["en"]}}, "trace": False}),
    ("/v1/search", {"query": "otters sleep", "k": 3, "mode": "hybrid", "filters": {"or": [{"year": 1999}, {"id": "pump"}]}}),
    ("/v1/collections", {"name": "handbook"}), ("/v1/feedback", {"answer_id": "x", "rating": "up", "comment": "fine"}))
ODD: tuple[Any, ...] = (None, True, -1, 0, 1e308, 10**30, "", " ", "\x00", "\u202e", "\ud800", "a" * 5000, [], {}, [[[]]],
                        {"and": []}, {"year": {"gte": None}}, {"year": {"gte": 1, "lt": "z"}}, [1, "a", None], float("nan"))
PIECES = (b"\x00", b"\xff\xfe", b'"', b"{", b"]", b"\\u0000", b"<!--", b"\xf0\x9f\x98\x80", b"-1e999")
PER_UPLOAD = 10


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("home"), settings={"workers": 1, "max_file_s": 20}, upload_mb=20) as running:
        yield running


def spoiled(content: bytes, rng: random.Random) -> bytes:
    """With a few bytes changed, cut, doubled or moved."""
    found = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(found) + 1)
        match rng.randrange(5):
            case 0:
                found[at:at + 1] = bytes([rng.randrange(256)])
            case 1:
                del found[at:at + rng.randint(1, 40)]
            case 2:
                found[at:at] = found[max(0, at - 30):at]
            case 3:
                found[at:at] = rng.choice(PIECES)
            case _:
                found = found[:at] if rng.random() < 0.3 else found
    return bytes(found)


def bodies(count: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """One in eight is right, half of the others are JSON with values that are wrong, and half are hardly JSON."""
    for _ in range(count):
        path, valid = rng.choice(ROUTES)
        body = dict(valid)
        if rng.random() < 1 / 8:
            yield path, json.dumps(body).encode()
            continue
        for _ in range(rng.randint(1, 3)):
            body[rng.choice([*body, "extra", "stream", "collection"])] = rng.choice(ODD)
        text = json.dumps(body).encode()
        yield path, text if rng.random() < 0.5 else spoiled(text, rng)


def handles() -> int:
    """Open files and connections of this process, where the system says."""
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0


def test_no_body_makes_a_500_a_hang_or_a_leak(served: Live, fuzz: int) -> None:
    client = served.client()
    rng = random.Random(SEED)
    for path, body in bodies(20, rng):              # what is opened at first use is no leak
        client.post(path, content=body, headers=JSON)
    served.quiet()
    before, threads = handles(), threading.active_count()
    statuses: dict[int, int] = {}
    for path, body in bodies(fuzz, rng):
        response = client.post(path, content=body, headers=JSON)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        assert response.status_code < 500, (path, body[:500], response.text)
        if response.status_code >= 400:
            assert set(response.json()["error"]) == {"code", "message", "hint", "field", "request_id"}, response.text
    served.quiet()
    assert statuses.get(200, 0) > 0
    assert statuses.get(422, 0) > fuzz / 4
    assert client.get("/readyz").status_code == 200
    assert not served.service._under_way
    assert threading.active_count() <= threads + sum(lane.threads for lane in served.service.lanes)
    # Collections that the fuzz made and opened hold their files; more than that is a leak.
    wait_until(lambda: handles() <= before + 12 * len(served.service.shelf._open) + 8)


def test_no_file_makes_a_500_a_hang_or_a_leak(served: Live, fuzz: int) -> None:
    client = served.client()
    rng = random.Random(SEED)
    originals = sorted(path for path in (SAMPLE / "files").iterdir() if path.is_file() and path.stat().st_size < 400_000)
    assert len({path.suffix for path in originals}) >= 4
    jobs: list[str] = []
    for start in range(0, max(PER_UPLOAD, fuzz // 10), PER_UPLOAD):
        chosen = [rng.choice(originals) for _ in range(PER_UPLOAD)]
        files = [("files", (f"{start + at}{path.suffix}", spoiled(path.read_bytes(), rng))) for at, path in enumerate(chosen)]
        accepted = client.post("/v1/collections/default/documents", files=files)
        assert accepted.status_code in (202, 429), accepted.text
        if accepted.status_code == 202:
            jobs.append(accepted.headers["location"])
            wait_until(lambda: client.get(jobs[-1]).json()["ended"] is not None, limit_s=280)
    assert {client.get(job).json()["state"] for job in jobs} <= {"done", "failed"}
    for job in jobs:
        assert (client.get(job).json()["error"] or {}).get("code") != "internal_error"
    assert served.ask().status_code == 200
    assert {path.name for path in (served.home / "uploads").rglob("*") if path.is_file()} == set()
    listed = {row["id"] for row in client.get("/v1/collections/default/documents", params={"limit": 1000}).json()["documents"]}
    assert {str(row["id"]) for row in RECORDS} <= listed, "what was there before is still there"
