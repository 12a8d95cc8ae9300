"""Weights of the weighted sum: judged as searches rank, found where the signal is, written as searches read them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from eval.datasets import SEED
from eval.origins.judged import judged
from eval.origins.opened import opened
from eval.origins.scored import Scored
from eval.origins.ways import fused
from rag.errors import ConfigError, InputError
from rag.settings import Settings
from retrievers.fusion_weights import COMBINATIONS, read
from retrievers.training import fusion
from retrievers.training.candidates import candidates, grid, ndcg
from tests.origins_fakes import scored, world

ORIGINS = ("bm25", "dense", "sparse")


def noise(seed: int, *, telling: str, questions: int = 12, chunks: int = 60) -> Scored:
    """Documents of two chunks. Gold is high in `telling`, the other origins say nothing."""
    rng = np.random.default_rng(seed)
    tables = {name: rng.random((questions, chunks)) for name in ORIGINS}
    tables["bm25"][tables["bm25"] < 0.5] = 0
    letters = [chr(0x4e00 + at // 2) for at in range(chunks)]
    gold = []
    for question in range(questions):
        at = int(rng.integers(chunks))
        tables[telling][question, at] += 0.8
        gold.append(letters[at] + letters[(at + 7) % chunks])
    lists = {name: table.tolist() for name, table in tables.items()}
    return scored(**lists, documents="".join(letters), gold=gold)


def test_settings_divide_the_whole_weight() -> None:
    assert grid(2, steps=2).tolist() == [[0, 1], [0.5, 0.5], [1, 0]]
    every = grid(3, steps=10)
    assert len(every) == len(np.unique(every, axis=0)) == 66
    assert every.sum(1) == pytest.approx(1)
    assert (every >= 0).all()


@pytest.mark.parametrize("origins", [("bm25", "dense"), ORIGINS])
def test_quality_is_that_of_the_ranking_a_search_gives(origins: tuple[str, ...]) -> None:
    one = noise(3, telling="sparse")
    settings = grid(len(origins), steps=4)
    for weights in settings:
        slow = judged(one.chunks, partial(fused, one, origins=origins, weights=dict(zip(origins, weights, strict=True))))
        fast = [float(ndcg(found, weights[None, :])[0]) for question in range(len(one.chunks.questions))
                if (found := candidates(one, question, origins=origins)) is not None]
        assert fast == pytest.approx(slow.values["nDCG@10"])
    together = ndcg(candidates(one, 0, origins=origins), settings)  # type: ignore[arg-type]
    assert together.shape == (len(settings),)


def test_weight_goes_to_the_origin_that_knows() -> None:
    for telling in ORIGINS:
        found = fusion.fit(ORIGINS, {str(seed): noise(seed, telling=telling) for seed in range(4)}, steps=10)
        assert max(found.weights, key=found.weights.__getitem__) == telling
        assert sum(found.weights.values()) == pytest.approx(1)
        assert found.mean("best for it") >= found.mean("fitted on others") > found.mean("equal")
        assert all(values["best for it"] >= values[f"{origin} alone"] for values in found.left_out.values() for origin in ORIGINS)


def test_a_set_left_out_has_no_say_in_its_own_weights() -> None:
    """One set where sparse tells, two where BM25 does: weights for the first come from the others."""
    sets = {"a": noise(1, telling="sparse"), "b": noise(2, telling="bm25"), "c": noise(3, telling="bm25")}
    found = fusion.fit(("bm25", "sparse"), sets, steps=10)
    assert found.left_out["a"]["fitted on others"] < found.left_out["a"]["best for it"] - 0.1


def test_questions_without_terms_say_nothing_of_sparse() -> None:
    one = noise(3, telling="sparse")
    none = replace(one, without_terms=np.ones(12, bool))
    assert candidates(none, 0, origins=ORIGINS) is None
    assert candidates(none, 0, origins=("bm25", "dense")) is not None


def test_the_table_is_read_by_searches(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, weights, first = world(tmp_path, settings)
    _, _, second = world(tmp_path / "other", settings)
    out = tmp_path / "fusion.json"
    origins = opened(own, scratch=tmp_path / "scratch", weights=weights)
    found = fusion.run([first, second.rename(second.with_name("others"))], origins, limit=8, seed=SEED, command="python x")
    out.write_text(json.dumps(found), encoding="utf-8")
    table = read(out)
    assert set(table) == set(COMBINATIONS)
    assert all(sum(each.values()) == pytest.approx(1, abs=1e-3) for each in table.values())
    fitted = json.loads(out.read_text(encoding="utf-8"))["combinations"]["dense+sparse"]["fitted"]
    assert (fitted["command"], fitted["data"]) == ("python x", {"words": 8, "others": 8})
    assert set(fitted["sets left out"]) == {"words", "others"}


def test_what_cannot_be_fitted_is_refused(settings: Settings, tmp_path: Path) -> None:
    own, weights, folder = world(tmp_path, settings)
    with pytest.raises(ConfigError, match="no term weights"):
        fusion.run([folder, folder], opened(own, scratch=tmp_path), limit=8, seed=SEED, command="")
    with pytest.raises(InputError, match="named 'words'"):
        fusion.run([folder, folder], opened(own, scratch=tmp_path, weights=weights), limit=8, seed=SEED, command="")
    with pytest.raises(ConfigError, match="two data sets"):
        fusion.run([folder], opened(own, scratch=tmp_path, weights=weights), limit=8, seed=SEED, command="")


def test_the_command_ends_with_a_sentence_for_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THRIFTRAG_EMBEDDER", "no-such-model")
    assert fusion.main(["--data", str(tmp_path), "--out", str(tmp_path / "x.json"), "--home", str(tmp_path)]) == 1
    assert "no-such-model" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
