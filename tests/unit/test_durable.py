"""The file primitives that models and collections share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rag.durable import tree_bytes


def test_a_file_that_vanishes_while_a_folder_is_measured_counts_as_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept").write_bytes(b"12345")
    monkeypatch.setattr(os, "walk", lambda _: iter([(str(tmp_path), [], ["kept", "store.sqlite-wal"])]))
    assert tree_bytes(tmp_path) == 5
