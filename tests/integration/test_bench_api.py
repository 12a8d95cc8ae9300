"""`bench api` with a real server and the real embedder, small: its figures are there and mean what they say."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from eval.bench import Options, api
from rag.models import ModelCache
from rag.settings import load
from rag.types import no_progress


def test_every_part_of_the_bench_has_its_figures(tmp_path: Path, model_cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_PAUSE_S", 0.02)
    monkeypatch.setattr(api, "_KNOWN", 4)
    settings = dataclasses.replace(load({"home": tmp_path / "home", "models": model_cache.root}, environ=os.environ), threads=1)
    options = Options(settings, tmp_path / "scratch", sizes=(160,), limit=12)
    rows = {row.name: row for row in api.run(options, on_progress=no_progress)}
    assert rows["start, 160 chunks: ready"].value > 0
    assert 0 < rows["overhead of the service: p50"].value <= rows["overhead of the service: p95"].value
    for what in ("questions asked before", "new questions"):
        assert rows[f"search, 16 clients, {what}"].value > 0
    assert rows["overload: failed otherwise"].value == 0
    assert rows["overload: refused with 429"].value > 0
    assert rows["overload: of these with Retry-After"].value == 1
    assert rows["overload: admitted"].value + rows["overload: refused with 429"].value == pytest.approx(1)
    assert rows["disconnects: places not given back"].value == 0
