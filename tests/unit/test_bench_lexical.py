"""The BM25 benches on few chunks: that they run, name their rows, and make up the chunks they describe."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.bench import Options, bm25, lexical
from rag.settings import Settings
from rag.types import no_progress


def options(settings: Settings, folder: Path, *sizes: int) -> Options:
    (folder / "scratch").mkdir()
    return Options(settings, folder / "scratch", sizes=sizes, plots=folder / "plots")


def test_made_up_chunks_are_the_same_however_they_are_reached() -> None:
    passages = ["one two three four five", "six seven eight", "nine"]
    texts = lexical.Texts(passages, seed=3)
    some = texts.between(0, 2500)
    assert len(some) == 2500
    assert texts.between(1000, 1100) == some[1000:1100]
    assert lexical.Texts(passages, seed=3).between(2048, 2500) == some[2048:]
    assert lexical.Texts(passages, seed=4).between(0, 2500) != some
    assert texts.between(5, 5) == []
    words = {word for text in some for word in text.split()}
    assert {"one", "nine"} < words
    assert any(word.startswith("x") for word in words)


def test_each_engine_is_measured_against_the_native_one(settings: Settings, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "find_spec", lambda _: None)  # Java is for the integration tests
    monkeypatch.setattr(lexical, "_QUESTIONS", 50)
    monkeypatch.setattr(lexical, "_WARMING", 1)
    rows = {row.name: row for row in lexical.run(options(settings, tmp_path, 60, 200), on_progress=no_progress)}
    assert all(row.value > 0 for row in rows.values())
    for size in (60, 200):
        for name in ("open", "search, p50", "search, p95", "search for 96, p50", "search in 10% of the chunks, p50"):
            native, other = rows[f"native, {size} chunks: {name}"], rows[f"rank-bm25, {size} chunks: {name}"]
            assert (native.ratio, other.ratio_to) == (None, native.name)
            assert other.ratio == pytest.approx(other.value / native.value)
        assert rows[f"native, {size} chunks: build"].unit == "chunks/s"
    assert (tmp_path / "plots" / "lexical-search.png").is_file()


def test_parameters_are_compared_by_ranking_quality(settings: Settings, tmp_path: Path) -> None:
    rows = {row.name: row for row in bm25.run(options(settings, tmp_path), on_progress=no_progress)}
    assert len(rows) == 2 * len(bm25.GRID)
    used = rows["k1 1.2, b 0.75, lengths in a byte"]
    assert 0.5 < used.value < 1
    assert used.ratio is None
    assert all(row.ratio == pytest.approx(row.value / used.value) for row in rows.values() if row is not used)
