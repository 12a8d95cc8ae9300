"""The impact index: its file, its laws of well-formedness, its errors, and searches whose scores are worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexers import sparse
from indexers.impacts import NOTHING, Impacts, quantised
from indexers.sparse import SparseIndex
from indexers.sparse_file import FILE, RANGE
from rag.errors import InputError, SnapshotCorrupt, SnapshotMismatch
from retrievers.sparse import exhaustive, matched, rerank, score, search, search_batch, search_segments
from tests.sparse_fakes import SCALE, SparseSegment, index_of, made, passage, query

VOCABULARY = 100


@pytest.fixture
def index(tmp_path: Path) -> SparseIndex:
    """Scale 4: weight 4 is impact 255, 2 is 128 (127.5, halves to even), 0.8 is 51, 0.001 is 1."""
    return index_of(tmp_path / "index", [passage((3, 4.0), (7, 0.8)), passage((7, 2.0)), NOTHING, passage((3, 0.001), (99, 0.8)),
                                         passage((7, 2.0))], vocabulary=VOCABULARY)


def step(scale: float = SCALE) -> float:
    return scale / 255


def test_scores_are_the_sum_of_query_weights_times_impacts(index: SparseIndex) -> None:
    found = search(index, query((7, 1.0), (3, 2.0)), k=10)
    assert found == [(0, (51 + 2 * 255) * step()), (1, 128 * step()), (4, 128 * step()), (3, 2 * step())]
    assert exhaustive(index, query((7, 1.0), (3, 2.0)), k=10) == found
    assert search(index, query((3, 2.0), (7, 1.0)), k=3) == found[:3]


def test_equal_scores_come_by_position_and_cuts_keep_the_first(index: SparseIndex) -> None:
    assert [at for at, _ in search(index, query((7, 0.5)), k=1)] == [1]
    assert [at for at, _ in search(index, query((7, 0.5)), k=2)] == [1, 4]
    assert [at for at, _ in search(index, query((7, 0.5)), k=2, allowed=np.asarray([True, False, True, True, True]))] == [4, 0]


def test_what_finds_nothing(index: SparseIndex, tmp_path: Path) -> None:
    nothing = np.zeros(0, np.int32), np.zeros(0, np.float32)
    assert search(index, nothing, k=5) == exhaustive(index, nothing, k=5) == []
    assert search(index, query((5, 1.0), (98, 3.0)), k=5) == []      # in the vocabulary, in no passage
    assert search(index, query((7, 1.0)), k=0) == []
    assert search(index, query((7, 1.0)), k=5, allowed=np.zeros(5, bool)) == []
    assert search_segments([], query((7, 1.0)), k=5) == []
    assert score(index, nothing, np.asarray([0, 1])).tolist() == [0.0, 0.0]
    empty = index_of(tmp_path / "empty", [], vocabulary=VOCABULARY)
    assert (empty.size, search(empty, query((7, 1.0)), k=5), empty.problems(), list(empty.bags())) == (0, [], [], [])
    wordless = index_of(tmp_path / "wordless", [NOTHING, NOTHING], vocabulary=VOCABULARY)
    assert (wordless.size, search(wordless, query((7, 1.0)), k=5)) == (2, [])


def test_a_token_of_little_weight_still_finds_its_passages(index: SparseIndex) -> None:
    """Beside a weight 10^12 times larger, of which whole numbers up to 2^23 could hold nothing."""
    found = search(index, query((7, 1e12), (99, 1.0)), k=5)
    assert [at for at, _ in found] == [1, 4, 0, 3]
    assert found[3][1] > 0


def test_the_smallest_step_decides_between_ranges(tmp_path: Path) -> None:
    """A passage of a later range that is better by one unit takes the place; one that is as good does not."""
    filler = [NOTHING] * (RANGE - 1)
    last = [passage((1, 4.0)), passage((1, 4.0), (2, 0.001))]
    index = index_of(tmp_path / "index", [passage((1, 4.0)), *filler, *last], vocabulary=VOCABULARY)
    asked = query((1, 1e12), (2, 1.0))
    assert [at for at, _ in search(index, asked, k=1)] == [RANGE + 1]
    assert [at for at, _ in search(index, asked, k=2)] == [RANGE + 1, 0]
    without = np.arange(index.size) <= RANGE
    assert [at for at, _ in search(index, asked, k=1, allowed=without)] == [0]


def test_ties_come_by_row_whatever_the_order_of_the_segments(tmp_path: Path) -> None:
    made_of = [index_of(tmp_path / str(number), [passage((7, 1.0))] * 4, vocabulary=VOCABULARY) for number in range(2)]
    segments = [SparseSegment(np.arange(4, 8), None, made_of[0]), SparseSegment(np.arange(4), None, made_of[1])]
    for k in (1, 3, 6, 20):
        assert [row for row, _ in search_segments(segments, query((7, 2.0)), k=k)] == list(range(min(k, 8)))
    masks = [None, np.asarray([False, True, False, True])]
    assert [row for row, _ in search_segments(segments, query((7, 2.0)), k=3, allowed=masks)] == [1, 3, 4]


def test_a_query_may_have_the_whole_vocabulary(index: SparseIndex) -> None:
    everything = np.arange(VOCABULARY, dtype=np.int32), np.full(VOCABULARY, 0.3, np.float32)
    assert [at for at, _ in search(index, everything, k=5)] == [0, 1, 4, 3]
    assert search(index, everything, k=5) == exhaustive(index, everything, k=5)


def test_candidates_are_scored_by_lookup_in_any_order(index: SparseIndex) -> None:
    asked = query((7, 1.0), (3, 2.0))
    assert score(index, asked, np.asarray([3, 0, 2, 0])).tolist() == [2 * step(), 561 * step(), 0.0, 561 * step()]
    assert rerank(index, asked, np.asarray([4, 2, 1, 0])) == [(0, 561 * step()), (1, 128 * step()), (4, 128 * step()), (2, 0.0)]
    assert rerank(index, asked, np.zeros(0, np.int64)) == []


def test_matches_say_which_token_has_which_impact(index: SparseIndex) -> None:
    assert matched(index, query((99, 1.0), (3, 2.0), (7, 1.0)), np.asarray([3, 0])).tolist() == [[51, 1, 0], [0, 255, 51]]


def test_what_was_written_is_read(index: SparseIndex) -> None:
    assert (index.size, index.vocabulary, index.scale, index.clipped, index.facts.postings) == (5, VOCABULARY, SCALE, 0, 6)
    positions, impacts = index.postings(7)
    assert (positions.tolist(), impacts.tolist()) == ([0, 1, 4], [51, 128, 128])
    assert index.postings(8)[0].tolist() == []
    tokens, weights = index.passage(3)
    assert (tokens.tolist(), weights.tolist()) == ([3, 99], pytest.approx([step(), 0.8]))
    assert index.passage(2)[0].tolist() == []
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            index.passage(outside)
    assert index.problems() == []


def test_weights_above_the_scale_are_cut_and_counted(tmp_path: Path) -> None:
    assert [int(impact) for impact in quantised(np.asarray([4.0, 5.0, 1e30], np.float32), scale=4.0)[0]] == [255, 255, 255]
    folder = tmp_path / "index"
    folder.mkdir()
    facts = sparse.write(folder, [passage((1, 4.0), (2, 4.001)), passage((1, 9.0))], vocabulary=VOCABULARY, scale=SCALE)
    assert facts.clipped == SparseIndex(folder).clipped == 2
    merged = tmp_path / "merged"
    merged.mkdir()
    assert sparse.merge(merged, [(SparseIndex(folder), np.asarray([0]))]).clipped == 2


def test_passages_are_written_as_they_come_range_by_range(tmp_path: Path) -> None:
    written = []

    def passages() -> Iterator[Impacts]:
        for taken in range(1, 2 * RANGE + 6):
            if taken % RANGE == 1:
                written.append((tmp_path / "index" / FILE).stat().st_size)
            yield passage((taken % 50, 1.0), (60 + taken % 3, 0.5))

    (tmp_path / "index").mkdir()
    sparse.write(tmp_path / "index", passages(), vocabulary=VOCABULARY, scale=SCALE)
    index = SparseIndex(tmp_path / "index")
    assert written[0] < RANGE < written[1] < written[2]    # what is written is not held
    assert [len(bag.counts) for bag in index.bags()] == [RANGE, RANGE, 5]
    assert index.postings(49)[0].tolist() == list(range(48, 2 * RANGE + 5, 50))
    assert index.problems() == []
    keep = np.asarray([0, 3, RANGE, 2 * RANGE + 4])
    assert [bag.tokens.tolist() for bag in index.bags(keep)] == [[1, 61, 4, 61], [(RANGE + 1) % 50, 60 + (RANGE + 1) % 3],
                                                                 [(2 * RANGE + 5) % 50, 60 + (2 * RANGE + 5) % 3]]


def test_many_passages_take_three_bytes_a_term_and_a_little(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    passages = [(np.sort(rng.choice(30_522, 120, replace=False)).astype(np.int32), rng.random(120).astype(np.float32) + 0.01)
                for _ in range(RANGE // 2)]
    index = index_of(tmp_path / "index", passages, vocabulary=30_522)
    assert index.path.stat().st_size / index.size < 3 * 120 + 9 * 30_522 / index.size + 5


WRONG = [
    (passage((3, 1.0), (3, 1.0)), "Passage 1 has 3, which does not come after"),
    (passage((4, 1.0), (3, 1.0)), "Passage 1 has 3, which does not come after"),
    (passage((3, 1.0), (100, 1.0)), "Passage 1 has 100, which is not of the vocabulary of 100 tokens"),
    (passage((-1, 1.0)), "Passage 1 has -1, which is not of the vocabulary"),
    (passage((3, 0.0)), "Passage 1 has 0.0, which is no positive"),
    (passage((3, -2.0)), "Passage 1 has -2.0, which is no positive"),
    (passage((3, np.nan)), "Passage 1 has nan, which is no positive"),
    (passage((3, np.inf)), "Passage 1 has inf, which is no positive"),
    ((np.asarray([3, 4], np.int32), np.ones(1, np.float32)), r"Passage 1 has token ids of shape \(2,\) with weights of shape \(1,"),
    ((np.asarray([3.5]), np.ones(1, np.float32)), "not integers"),
]


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_weights_that_are_none_are_refused_by_passage_and_never_open(tmp_path: Path, wrong: Impacts, said: str) -> None:
    with pytest.raises(InputError, match=said):
        sparse.write(tmp_path, [passage((9, 1.0)), wrong], vocabulary=VOCABULARY, scale=SCALE)
    with pytest.raises(SnapshotCorrupt):
        SparseIndex(tmp_path)


@pytest.mark.parametrize(("vocabulary", "scale"), [(0, 1.0), (-3, 1.0), (100, 0.0), (100, -1.0), (100, np.nan), (100, np.inf)])
def test_a_model_without_vocabulary_or_scale_is_refused(tmp_path: Path, vocabulary: int, scale: float) -> None:
    with pytest.raises(InputError, match=str(vocabulary if vocabulary < 1 else scale)):
        sparse.write(tmp_path, [], vocabulary=vocabulary, scale=scale)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("asked", "said"), [
    (query((100, 1.0)), "from 100 to 100"), (query((-1, 1.0), (3, 1.0)), "from -1 to 3"), (query((3, 0.0)), "from 0.0 to 0.0"),
    (query((3, np.nan)), "nan"), (query((3, np.inf)), "inf"), (query((3, -1.0)), "from -1.0"),
    (query((3, 1.0), (3, 2.0)), "only 1 distinct"), ((np.zeros(2, np.int32), np.ones(1, np.float32)), r"shape \(2,\)"),
])
def test_queries_of_another_model_or_without_weights_are_refused(index: SparseIndex, asked: Impacts, said: str) -> None:
    for ask in (lambda: search(index, asked, k=5), lambda: search_batch(index, [query((3, 1.0)), asked], k=5, threads=2),
                lambda: score(index, asked, np.asarray([0]))):
        with pytest.raises(InputError, match=said):
            ask()


@pytest.mark.parametrize("mask", [np.ones(4, bool), np.ones((5, 1), bool), np.ones(5, np.int8)])
def test_masks_of_another_index_are_refused(index: SparseIndex, mask: np.ndarray) -> None:
    with pytest.raises(InputError, match="for 5 passages"):
        search(index, query((3, 1.0)), k=5, allowed=mask)


@pytest.mark.parametrize("positions", [[5], [-1], [0, 900]])
def test_positions_that_are_not_there_are_refused(index: SparseIndex, positions: list[int]) -> None:
    with pytest.raises(InputError, match="in an index of 5"):
        score(index, query((3, 1.0)), np.asarray(positions))


def test_segments_of_different_models_are_not_mixed(index: SparseIndex, tmp_path: Path) -> None:
    for name, vocabulary, scale in (("words", VOCABULARY + 1, SCALE), ("scale", VOCABULARY, 2 * SCALE)):
        other = index_of(tmp_path / name, [passage((3, 1.0))], vocabulary=vocabulary, scale=scale)
        (tmp_path / f"merged-{name}").mkdir()
        with pytest.raises(SnapshotMismatch, match=str(other.vocabulary) if name == "words" else str(other.scale)):
            sparse.merge(tmp_path / f"merged-{name}", [(index, np.arange(5)), (other, np.arange(1))])
        with pytest.raises(SnapshotMismatch, match="rebuild"):
            search_segments([SparseSegment(np.arange(5), None, index), SparseSegment(np.arange(5, 6), None, other)],
                            query((3, 1.0)), k=5)


@pytest.mark.parametrize("keep", [[1, 0], [0, 0], [5], [-1, 2]])
def test_merges_refuse_positions_that_do_not_ascend_or_are_not_there(index: SparseIndex, tmp_path: Path, keep: list[int]) -> None:
    with pytest.raises(ValueError, match="ascend"):
        sparse.merge(tmp_path, [(index, np.asarray(keep))])


def test_an_index_is_never_written_over(index: SparseIndex) -> None:
    with pytest.raises(FileExistsError):
        sparse.write(index.path.parent, [], vocabulary=VOCABULARY, scale=SCALE)
    assert index.size == SparseIndex(index.path.parent).size


def test_the_command_line_does_without_the_compiler() -> None:
    code = "import sys, rag.cli, indexers.sparse, retrievers.sparse, indexers.sparse_export; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "False\n"


def test_where_nothing_can_be_cached_it_works_all_the_same(index: SparseIndex, tmp_path: Path) -> None:
    """A read-only installation without a home: numba then finds no place for its cache."""
    code = ("import sys; from unittest import mock; from numba.core import caching\n"
            "caching.FunctionCache._impl_class._locator_classes = []\n"
            "import numpy as np; from pathlib import Path\n"
            "from indexers.sparse import SparseIndex; from retrievers.sparse import score\n"
            "asked = np.asarray([3], np.int32), np.ones(1, np.float32)\n"
            "print(score(SparseIndex(Path(sys.argv[1])), asked, np.asarray([0])).tolist())")
    done = subprocess.run([sys.executable, "-c", code, str(index.path.parent)], capture_output=True, text=True, timeout=240,
                          check=False)
    assert done.stdout == "[4.0]\n", done.stderr


class TestCorruptFiles:
    """Structure is checked when the file opens and when a search meets it; contents by `problems` and the store's checksum."""

    @pytest.fixture
    def whole(self, tmp_path: Path) -> SparseIndex:
        return index_of(tmp_path / "whole", made(np.random.default_rng(3), 300, vocabulary=VOCABULARY), vocabulary=VOCABULARY)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SnapshotCorrupt, match="cannot be opened"):
            SparseIndex(tmp_path)

    @pytest.mark.parametrize("kept", [0, 1, 64, 127, 128, 192, 1024, -1, -64])
    def test_cut_off(self, whole: SparseIndex, kept: int) -> None:
        whole.path.write_bytes(whole.path.read_bytes()[:kept])
        with pytest.raises(SnapshotCorrupt, match=r"sparse\.bin"):
            SparseIndex(whole.path.parent)

    def test_grown(self, whole: SparseIndex) -> None:
        whole.path.write_bytes(whole.path.read_bytes() + b"x")
        with pytest.raises(SnapshotCorrupt, match="no whole index"):
            SparseIndex(whole.path.parent)

    def test_another_format_says_what_to_do(self, whole: SparseIndex) -> None:
        raw = bytearray(whole.path.read_bytes())
        raw[8] = 2
        whole.path.write_bytes(raw)
        with pytest.raises(SnapshotMismatch, match=r"format 2; this version reads 1.*rebuild"):
            SparseIndex(whole.path.parent)

    def test_every_bit_of_header_and_directory_is_held_to_a_checksum(self, whole: SparseIndex) -> None:
        raw = whole.path.read_bytes()
        directory = len(raw) - 64
        for at in (*range(128), *range(directory, directory + 24)):
            changed = bytearray(raw)
            changed[at] ^= 1 << at % 8
            whole.path.write_bytes(changed)
            with pytest.raises((SnapshotCorrupt, SnapshotMismatch)):
                SparseIndex(whole.path.parent)

    def test_no_flipped_byte_of_the_lists_crashes_a_search_and_each_is_a_problem(self, whole: SparseIndex) -> None:
        raw, layout = whole.path.read_bytes(), whole.views.layout[0]
        asked = np.arange(VOCABULARY, dtype=np.int32), np.ones(VOCABULARY, np.float32)
        ends = [(4 * at, 4 * (at + count)) for at, count in zip(layout[:3], (5, layout[6], layout[6] + 1), strict=True)]
        ends += [(layout[3], layout[3] + layout[6]), (2 * layout[4], 2 * (layout[4] + layout[7])),
                 (layout[5], layout[5] + layout[7])]
        rng = np.random.default_rng(0)
        refused = unnoticed = 0
        for number in range(300):
            begin, end = ends[number % 6]
            changed = bytearray(raw)
            changed[int(rng.integers(begin, end))] ^= int(rng.integers(1, 256))
            whole.path.write_bytes(changed)
            index = SparseIndex(whole.path.parent)
            try:
                found = [search(index, asked, k=400), exhaustive(index, asked, k=400)]
                score(index, asked, np.arange(300))
                assert all(0 <= at < 300 for some in found for at, _ in some)
                (whole.path.parent / str(number)).mkdir()
                sparse.merge(whole.path.parent / str(number), [(index, np.arange(0, 300, 2))])
            except SnapshotCorrupt:
                refused += 1
            # Another passage or impact that keeps the order and the largest contradicts nothing: only the store's checksum knows.
            unnoticed += not index.problems()
            assert number % 6 > 3 or index.problems()
        assert refused > 100
        assert unnoticed < 75
