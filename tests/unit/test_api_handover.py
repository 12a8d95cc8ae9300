"""Settings go from process to process as they are, and with where they came from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from api.handover import settings_of, settings_row
from rag.collection_settings import layered, write
from rag.settings import Settings, load


def handed(settings: Settings) -> Settings:
    return settings_of(json.loads(json.dumps(settings_row(settings))))


def test_every_value_arrives_with_its_origin(settings: Settings) -> None:
    given = replace(settings, reader_api_key="secret", origin={**settings.origin, "reader_api_key": "THRIFTRAG_READER_API_KEY"})
    assert handed(given) == given
    assert handed(given).origin == given.origin


def test_a_collections_own_settings_win_over_what_nobody_chose_and_yield_to_what_somebody_did(tmp_path: Path) -> None:
    folder = tmp_path / "kb"
    folder.mkdir()
    write(folder, {"candidates": 12, "budget_tokens": 100})
    found = layered(handed(load({"home": tmp_path, "budget_tokens": 300}, environ={})), folder)
    assert (found.candidates, found.budget_tokens) == (12, 300)
