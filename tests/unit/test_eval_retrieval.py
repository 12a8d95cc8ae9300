"""Retrieval is measured by document, over questions with gold documents, in the contract's shape."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from eval import retrieval
from eval.datasets import load
from rag.errors import ConfigError, InputError
from rag.types import Hit
from tests.eval_fakes import CORPUS, QUERIES, FakeBase, World, chunk_of, dataset_folder


class Ranked(FakeBase):
    """Returns chunks of these documents, whatever is asked."""

    ranking: Sequence[str] = ("d3", "d3", "d1", "d2")

    def search(self, query: str, *, mode: str, k: int) -> list[Hit]:
        self._world.searched.append((query, mode, k))
        return [Hit(chunk_of({**CORPUS[0], "id": doc_id}), 1.0, {}) for doc_id in self.ranking[:k]]


def ticking(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


def test_measures_every_question_by_its_documents_best_chunk(tmp_path: Path) -> None:
    questions = retrieval.with_evidence(load(dataset_folder(tmp_path / "tiny")), limit=None)
    assert sorted(question.id for question in questions) == ["q1", "q2", "q4"]
    world, clock = World(), ticking(0.004)
    found = retrieval.measure(questions, Ranked(world, "c", None), mode="bm25", clock=lambda: next(clock))
    assert found is not None
    # d1 is the second document, d2 the third, d3 the first.
    assert found.mrr == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    assert found.ndcg_at_10 == pytest.approx((0.6309297536 + 0.5 + 1) / 3)
    assert list(found.to_dict()) == ["mode", "n", "recall@10", "ndcg@10", "mrr", "ms_p50", "sufficiency@10", "sufficiency@20"]
    assert (found.mode, found.n, found.recall_at_10, found.sufficiency_at_10) == ("bm25", 3, 1, 1)
    assert found.ms_p50 == pytest.approx(4)
    asked = [(query, k) for query, _, k in world.searched]
    assert asked[:3] == [("Who led the Normans?", 10), ("Who led the Normans?", 10), ("Who led the Normans?", 100)]
    assert len(asked) == 1 + 2 * 3, "one search before the clock runs, then two for each question"


def test_evidence_that_is_not_found_costs_recall_and_sufficiency(tmp_path: Path) -> None:
    folder = dataset_folder(tmp_path / "tiny", queries=[{**QUERIES[0], "evidence": ["d1", "d2"]}])
    kb = Ranked(World(), "c", None)
    kb.ranking = ("d3", "d1")
    found = retrieval.measure(retrieval.with_evidence(load(folder), limit=None), kb, mode="dense")
    assert found is not None
    assert (found.recall_at_10, found.sufficiency_at_10, found.sufficiency_at_20) == (0.5, 0, 0)


def test_sufficiency_is_told_for_ten_and_twenty_documents(tmp_path: Path) -> None:
    kb = Ranked(World(), "c", None)
    kb.ranking = [*(f"other{place}" for place in range(14)), "d1"]
    found = retrieval.measure(retrieval.with_evidence(load(dataset_folder(tmp_path / "tiny", queries=QUERIES[:1])), limit=None),
                              kb, mode="dense")
    assert found is not None
    assert (found.sufficiency_at_10, found.sufficiency_at_20, found.mrr) == (0, 1, 1 / 15)
    assert (found.to_dict()["sufficiency@10"], found.to_dict()["sufficiency@20"]) == (0, 1)


def test_further_measures_are_those_of_ir_measures_by_their_names(tmp_path: Path) -> None:
    questions = retrieval.with_evidence(load(dataset_folder(tmp_path / "tiny")), limit=None)
    further = retrieval.measures_named(["P@1", "AP", "RR", "P@1"])
    found = retrieval.measure(questions, Ranked(World(), "c", None), mode="bm25", further=further)
    assert found is not None
    assert dict(found.further) == pytest.approx({"P@1": 1 / 3, "AP": (1 / 2 + 1 / 3 + 1) / 3, "RR": found.mrr})
    assert list(found.to_dict())[-3:] == ["P@1", "AP", "RR"]


def test_a_question_for_which_nothing_is_found_counts_zero() -> None:
    further = retrieval.measures_named(["R@10"])
    assert retrieval.means({"a": ["x"], "b": []}, {"a": ["x"], "b": ["y"]}, further) == {"R@10": 0.5}


@pytest.mark.parametrize("name", ["precise", "R@", "R@x", ""])
def test_an_unknown_measure_is_refused_with_where_the_names_are(name: str) -> None:
    with pytest.raises(InputError, match=f"measure '{name}' cannot be used") as caught:
        retrieval.measures_named(["R@10", name])
    assert "ir-measur.es" in caught.value.hint


def test_further_measures_without_the_package_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(ConfigError, match="ir-measures") as caught:
        retrieval.measures_named(["AP"])
    assert "thriftrag[eval]" in caught.value.hint


def test_a_cancelled_measurement_gives_nothing(tmp_path: Path) -> None:
    questions = retrieval.with_evidence(load(dataset_folder(tmp_path / "tiny")), limit=None)
    assert retrieval.measure(questions, Ranked(World(), "c", None), mode="dense", cancelled=lambda: True) is None


def test_limit_counts_questions_with_evidence(tmp_path: Path) -> None:
    data = load(dataset_folder(tmp_path / "tiny", queries=[QUERIES[2], *QUERIES[:2]]))
    assert [question.id for question in retrieval.with_evidence(data, limit=1)] == ["q1"]


def test_data_without_evidence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No question of tiny names its evidence"):
        retrieval.with_evidence(load(dataset_folder(tmp_path / "tiny", queries=[QUERIES[2]])), limit=None)


@pytest.mark.parametrize(("names", "message"), [
    (["clustered"], "'clustered' is not built yet"), (["bm26"], "'bm26' is unknown"), ([], "No retrieval mode")])
def test_unknown_modes_are_refused_with_what_there_is(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        retrieval.modes_named(names)
    assert "bm25, dense, sparse, hybrid" in caught.value.hint
