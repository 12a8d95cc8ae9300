"""The sparse bench on few passages: that it runs, names its rows, and measures what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval.bench import Measurement, Options, _sparse_cost, _sparse_kept, sparse
from eval.datasets import load
from eval.origins.bags import bags
from eval.origins.encoded import Terms
from eval.origins.grown import Grown
from eval.origins.opened import opened
from rag.errors import ConfigError
from rag.settings import Settings
from rag.types import no_progress
from tests import sparse_fakes
from tests.origins_fakes import world

VOCABULARY, SCALE = 40, sparse_fakes.SCALE


def test_pruned_search_is_measured_beside_the_exhaustive_one(settings: Settings, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_FLOAT_QUESTIONS", 12)
    (tmp_path / "scratch").mkdir()
    rng = np.random.default_rng(1)
    passages = bags([each for each in sparse_fakes.made(rng, 250, vocabulary=VOCABULARY) if len(each[0])])
    queries = [each for each in sparse_fakes.made(rng, 20, vocabulary=VOCABULARY) if len(each[0])]
    options = Options(settings, tmp_path / "scratch", sizes=(300, 900), plots=tmp_path / "plots")
    found = sparse.at_sizes(Grown(passages, vocabulary=VOCABULARY, seed=3), sparse.Model(VOCABULARY, SCALE), queries, options,
                            on_progress=no_progress)
    rows = {row.name: row for row in found}
    assert all(row.value > 0 for name, row in rows.items() if "above the scale" not in name)
    for size in (300, 900):
        for name in ("search for 10, p50", "search for 100, p95", "search for 10 in 10% of the passages, p50"):
            pruned, other = rows[f"pruned, {size} passages: {name}"], rows[f"exhaustive, {size} passages: {name}"]
            assert (pruned.ratio, other.ratio_to) == (None, pruned.name)
            assert other.ratio == pytest.approx(other.value / pruned.value)
        for name in ("build", "merge of 4 segments", "open", "on disk"):
            assert f"index, {size} passages: {name}" in rows
        whole = rows[f"full-vocabulary TILDE, {size} passages: on disk"]
        assert (whole.value, whole.ratio_to) == (2 * VOCABULARY, f"index, {size} passages: on disk")
        assert rows[f"pruned, {size} passages: overlap@10 of eight bits with floats"].value > 0.9
    assert "pruned, 900 passages: re-rank 900, p50" in rows
    assert rows["first search of a process, compiling"].value > rows["first search of a process, compiled before"].value
    assert (tmp_path / "plots" / "sparse-search.png").is_file()


def test_overlap_counts_what_rounding_leaves_among_the_best() -> None:
    """Eleven passages of one token, of which the last two become one impact: a tie, which the place decides."""
    weights = [1.0] * 9 + [0.502, 0.501]
    passages = bags([sparse_fakes.passage((1, weight)) for weight in reversed(weights)])
    queries = bags([sparse_fakes.passage((1, 2.0)), sparse_fakes.passage((2, 1.0)), sparse_fakes.passage()])
    terms = Terms(passages, np.ones(11, bool), queries)
    # Questions that find nothing have no overlap.
    assert _sparse_kept.overlaps(terms, scale=1.0).tolist() == [0.9]


def test_what_is_kept_is_told_for_all_sets_together(settings: Settings, tmp_path: Path) -> None:
    own, weights, _ = world(tmp_path, settings)
    model = opened(own, scratch=tmp_path, weights=weights).weighing
    assert model is not None
    rng = np.random.default_rng(2)
    sets = []
    for count in (30, 50):
        passages = bags(sparse_fakes.made(rng, count, vocabulary=model.terms.size))
        sets.append(Terms(passages, rng.random(len(passages.tokens)) < 0.75, bags(sparse_fakes.made(rng, 9, vocabulary=9))))
    (tmp_path / "scratch").mkdir()
    rows = list(_sparse_kept.kept(sets, model.terms, scratch=tmp_path / "scratch"))
    values = {row.name.partition(" passages: ")[2]: row for row in rows if row.name.startswith(model.terms.name)}
    assert all("80 real" in row.name for row in rows)
    assert values["postings"].value == sum(len(each.passages.tokens) for each in sets) / 80
    assert values["postings by expansion"].value == sum(int((~each.own).sum()) for each in sets) / 80
    whole = next(row for row in rows if row.name.startswith("full-vocabulary"))
    assert (whole.value, whole.ratio) == (2 * model.terms.size, pytest.approx(2 * model.terms.size / values["on disk"].value))
    assert values["overlap@10 of eight bits with floats"].n <= 18


def test_the_cost_is_measured_in_rounds(settings: Settings, tmp_path: Path) -> None:
    own, weights, folder = world(tmp_path, settings)
    origins = opened(own, scratch=tmp_path, weights=weights)
    assert origins.weighing is not None
    passages = load(folder).passages[:20]
    rows = {row.name: row for row in _sparse_cost.costs(
        origins.weighing, origins.plain(), [passage.text for passage in passages], passages, settings=own,
        scratch=tmp_path / "scratch", on_progress=no_progress, rounds=2)}
    assert [*rows] == [f"{what}, {name}" for what in ("encode", "ingest") for name in (
        "dense alone", "dense and terms", "time of dense and terms over dense alone")]
    assert all((row.value > 0, row.n) == (True, 2) for row in rows.values())


def test_the_whole_bench_runs_on_real_term_weights(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, weights, folder = world(tmp_path, settings)
    monkeypatch.setattr(sparse, "_QUESTIONS", 6)
    monkeypatch.setattr(sparse, "_COST_TEXTS", 10)
    monkeypatch.setattr(sparse, "costs", lambda *_, **__: iter([Measurement("cost", 1.0, "ratio", 1)]))
    (tmp_path / "scratch").mkdir()
    options = Options(own, tmp_path / "scratch", data=(folder,), sizes=(200,), weights=weights, limit=10)
    names = [row.name for row in sparse.run(options, on_progress=no_progress)]
    model = opened(own, scratch=tmp_path, weights=weights).weighing
    assert model is not None
    assert names[0] == f"{model.terms.name}, 60 real passages: on disk"
    assert "pruned, 200 passages: search for 100, p50" in names
    assert names[-1] == "cost"


def test_without_term_weights_there_is_nothing_to_measure(settings: Settings, tmp_path: Path) -> None:
    own, _, folder = world(tmp_path, settings)
    with pytest.raises(ConfigError, match="no term weights for tiny@") as caught:
        sparse.run(Options(own, tmp_path, data=(folder,)), on_progress=no_progress)
    assert "--weights" in caught.value.hint
