"""The sparse bench on few passages: that it runs, names its rows, and makes up the passages it describes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval.bench import Options, sparse
from eval.datasets import load
from rag.settings import Settings
from rag.types import no_progress
from tests.conftest import SAMPLE


def test_made_up_passages_are_the_same_however_they_are_reached() -> None:
    texts = [f"{passage.title}\n{passage.text}" for passage in load(SAMPLE).passages]
    passages = sparse.Passages(texts, seed=3)
    some = list(passages.between(0, 9000))
    for (ids, weights), (others, same) in zip(passages.between(8100, 8300), some[8100:8300], strict=True):
        assert (ids.tolist(), weights.tolist()) == (others.tolist(), same.tolist())
    other = next(sparse.Passages(texts, seed=4).between(0, 1))
    assert other[0].tolist() != some[0][0].tolist()
    assert list(passages.between(5, 5)) == []
    assert all((np.diff(ids) > 0).all() and (weights > 0).all() and ids.max() < sparse.VOCABULARY for ids, weights in some)
    assert 80 < np.mean([len(ids) for ids, _ in some]) < 150


def test_questions_have_six_to_twelve_weighted_tokens() -> None:
    passages = sparse.Passages(["alpha beta gamma delta epsilon zeta eta theta iota kappa"] * 3 + ["lambda mu"], seed=3)
    rng = np.random.default_rng(0)
    for words in (["alpha"], ["beta", "gamma", "unheard"], ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"]):
        ids, weights = passages.query(words, rng)
        assert set(passages.tokens(words).tolist()) <= set(ids.tolist())
        assert len(set(ids.tolist())) == len(ids) <= 12
        assert (weights > 0).all()


def test_pruned_search_is_measured_beside_the_exhaustive_one(settings: Settings, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_QUESTIONS", 12)
    monkeypatch.setattr(sparse, "_FLOAT_QUESTIONS", 12)
    (tmp_path / "scratch").mkdir()
    options = Options(settings, tmp_path / "scratch", sizes=(300, 900), plots=tmp_path / "plots")
    rows = {row.name: row for row in sparse.run(options, on_progress=no_progress)}
    assert all(row.value > 0 for name, row in rows.items() if "above the scale" not in name)
    for size in (300, 900):
        for name in ("search for 10, p50", "search for 100, p95", "search for 10 in 10% of the passages, p50"):
            pruned, other = rows[f"pruned, {size} passages: {name}"], rows[f"exhaustive, {size} passages: {name}"]
            assert (pruned.ratio, other.ratio_to) == (None, pruned.name)
            assert other.ratio == pytest.approx(other.value / pruned.value)
        for name in ("build", "merge of 4 segments", "open", "on disk"):
            assert f"index, {size} passages: {name}" in rows
        whole = rows[f"full-vocabulary TILDE, {size} passages: on disk"]
        assert (whole.value, whole.ratio_to) == (61_044, f"index, {size} passages: on disk")
        assert rows[f"pruned, {size} passages: overlap@10 of eight bits with floats"].value > 0.9
    assert "pruned, 900 passages: re-rank 900, p50" in rows
    assert rows["first search of a process, compiling"].value > rows["first search of a process, compiled before"].value
    assert (tmp_path / "plots" / "sparse-search.png").is_file()
