"""The BM25 engines that need no Java, against the formula written out slowly."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from indexers import lexical
from rag.errors import ConfigError, SnapshotCorrupt
from retrievers import bm25, bm25_native
from retrievers.bm25 import open_bm25
from tests.lexical_fakes import WordSegment, agree, segments_of, slow_bm25
from tests.unit.test_lexical import at_section, patch

ENGINES = ("native", "rank-bm25")
TEXTS = [f"The {animal} eats {food} in the {place}." + " And sleeps well." * (n % 4)
         for n, (animal, food, place) in enumerate((animal, food, place) for animal in ("cat", "dog", "heron", "otter")
                                                   for food in ("fish", "bread") for place in ("garden", "river", "kitchen"))]
TEXTS += ["Quarterly results rose.", "", "otter otter otter river " + "filler words go on " * 40]
QUESTIONS = ["otter in the river", "the", "quarterly", "fish fish fish bread",
             "Does the heron eat bread? The heron?", "sleep well otter"]


@pytest.fixture
def segments(tmp_path: Path) -> list[WordSegment]:
    return segments_of(tmp_path, [TEXTS[:10], TEXTS[10:11], TEXTS[11:]], first_row=5)


def rows_of(texts: Sequence[str], *, first_row: int = 5, without: Sequence[int] = ()) -> dict[int, str]:
    return {row: text for row, text in enumerate(texts, start=first_row) if row not in without}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("k", [1, 3, 100])
def test_the_best_chunks_are_those_of_the_formula(segments: list[WordSegment], engine: str, k: int) -> None:
    index = open_bm25(segments, engine=engine)
    assert index.engine == engine
    for question in QUESTIONS:
        agree(index.search(question, k=k), slow_bm25(rows_of(TEXTS), question), k=k)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_word_counts_as_often_as_it_is_asked(segments: list[WordSegment], engine: str) -> None:
    index = open_bm25(segments, engine=engine)
    once, thrice = dict(index.search("otter", k=50)), dict(index.search("otter Otter OTTER", k=50))
    assert thrice == pytest.approx({row: 3 * score for row, score in once.items()})


@pytest.mark.parametrize("engine", ENGINES)
def test_only_chunks_that_share_a_word_are_found(segments: list[WordSegment], engine: str) -> None:
    index = open_bm25(segments, engine=engine)
    assert [row for row, _ in index.search("quarterly", k=10)] == [29]
    for question in ("xylophone", "?!", ""):
        assert index.search(question, k=10) == []
    assert index.search("otter", k=0) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_scores_come_in_the_order_of_rows_however_many_are_asked_for(tmp_path: Path, engine: str) -> None:
    index = open_bm25(segments_of(tmp_path, [["b x"] * 3, ["a y"] * 40, ["a z", "b x"]]), engine=engine)
    for k in (1, 2, 7, 41, 60):
        assert [row for row, _ in index.search("a", k=k)] == list(range(3, 44))[:k]
    assert [row for row, _ in index.search("b", k=3)] == [0, 1, 2]


@pytest.mark.parametrize("engine", ENGINES)
def test_deleted_chunks_count_nowhere_and_are_never_found(tmp_path: Path, engine: str) -> None:
    dead = [5, 7, 8, 15, 26, 29, 31]
    index = open_bm25(segments_of(tmp_path, [TEXTS[:10], TEXTS[10:11], TEXTS[11:]], dead=dead, first_row=5), engine=engine)
    living = rows_of(TEXTS, without=dead)
    for question in QUESTIONS:
        agree(index.search(question, k=5), slow_bm25(living, question), k=5)
    assert index.search("quarterly", k=5) == []
    holding = sum("otter" in text.split() for text in living.values())
    expected = math.log(1 + (sum(map(bool, living.values())) - holding + 0.5) / (holding + 0.5))
    assert index.idf(["otter", "quarter", "unseen"]) == pytest.approx({"otter": expected})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mask_is_applied_inside_and_changes_no_score(segments: list[WordSegment], engine: str) -> None:
    index = open_bm25(segments, engine=engine)
    masks = [np.arange(10) % 2 == 0, None, np.arange(16) > 12]
    open_rows = {5, 7, 9, 11, 13, 15, 29, 30, 31}
    for question in QUESTIONS:
        scores = {row: score for row, score in slow_bm25(rows_of(TEXTS), question).items() if row in open_rows}
        agree(index.search(question, k=4, allowed=masks), scores, k=4)
    nothing = [np.zeros(segment.size, bool) for segment in segments]
    assert index.search("the otter", k=5, allowed=nothing) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_no_weight_is_below_zero_however_common_the_word(tmp_path: Path, engine: str) -> None:
    index = open_bm25(segments_of(tmp_path, [["the cat", "the dog"]]), engine=engine)
    assert 0 < index.idf(["the"])["the"] < index.idf(["cat"])["cat"]
    assert all(score > 0 for _, score in index.search("the", k=5))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("texts", [[], [[]], [["", "?"]]])
def test_without_words_nothing_is_found(tmp_path: Path, engine: str, texts: list[list[str]]) -> None:
    index = open_bm25(segments_of(tmp_path, texts), engine=engine)
    assert index.search("anything", k=5) == []
    assert index.idf(["anything"]) == {}


def test_small_collections_take_rank_bm25_and_others_the_native_index(segments: list[WordSegment],
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_bm25(segments, engine="auto").engine == "rank-bm25"
    monkeypatch.setattr(bm25, "SMALL", len(TEXTS) - 1)
    assert open_bm25(segments, engine="auto").engine == "native"


def test_an_unknown_engine_is_refused(segments: list[WordSegment]) -> None:
    with pytest.raises(ConfigError, match="'elastic'"):
        open_bm25(segments, engine="elastic")


def test_common_words_are_looked_up_and_not_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes large collections fast: proven by the lists that are read, because results would be the same without."""
    rng = np.random.default_rng(5)
    texts = ["the " * int(rng.integers(1, 5)) + "rare" * (n % 200 == 0) + f" filler{rng.integers(9)}" for n in range(3000)]
    index = open_bm25(segments_of(tmp_path, [texts[:2000], texts[2000:]]), engine="native")
    read: list[int] = []
    add = bm25_native._Search._add
    monkeypatch.setattr(bm25_native._Search, "_add",
                        lambda self, each, scores: (read.append(len(each.positions)), add(self, each, scores))[1])
    found = index.search("the rare", k=4)
    assert read
    assert max(read) < 50
    agree(found, slow_bm25(dict(enumerate(texts)), "the rare"), k=4)


def test_a_search_in_a_broken_index_names_it(tmp_path: Path) -> None:
    made = segments_of(tmp_path, [TEXTS])[0]
    start, _ = made.lexical.span(made.lexical.find(["otter"])[0])
    broken = patch(made.lexical, at_section(made.lexical, "positions") + 4 * start, struct.pack("<i", 10**6), reopen=True)
    index = open_bm25([WordSegment(made.folder, made.rows, None, broken)], engine="native")
    with pytest.raises(SnapshotCorrupt, match=lexical.FILE):
        index.search("otter", k=5)


def test_one_index_serves_many_threads(segments: list[WordSegment]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for engine in ENGINES:
        index = open_bm25(segments, engine=engine)
        expected = [index.search(question, k=5) for question in QUESTIONS]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda question: index.search(question, k=5), QUESTIONS * 20))  # noqa: B023  # ends in the loop
        assert found == expected * 20


def test_a_word_that_is_rarer_here_than_elsewhere_loses_nothing(tmp_path: Path) -> None:
    """One segment: two candidates, then a long list that is looked up, then a short one that is read through."""
    here = ["rare p", "rare q"] + ["p filler"] * 58 + ["q filler"] * 4 + ["filler"] * 36
    elsewhere = ["q other"] * 200
    found = open_bm25(segments_of(tmp_path, [here, elsewhere]), engine="native").search("rare p q", k=1)
    agree(found, slow_bm25(dict(enumerate(here + elsewhere)), "rare p q"), k=1)
