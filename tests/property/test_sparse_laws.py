"""Laws of sparse search: pruning changes no bit, merging changes nothing, eight bits stay within half a step."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexers import sparse
from indexers.impacts import MOST, quantised, restored
from indexers.sparse import SparseIndex
from retrievers.sparse import exhaustive, rerank, score, search, search_batch, search_segments
from tests.sparse_fakes import SCALE, SparseSegment, index_of, made, slow_best, slow_scores

SEED = st.integers(0, 10_000)
SHARE = st.sampled_from([None, 0.0, 0.02, 0.3, 0.9])
# Tokens of three groups, and of none that is full.
VOCABULARY = 70


def mask_of(rng: np.random.Generator, share: float | None, size: int) -> NDArray[np.bool_] | None:
    return None if share is None else rng.random(size) < share


def asked_of(rng: np.random.Generator, vocabulary: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    ids = rng.permutation(np.unique(np.minimum(rng.zipf(1.15, rng.integers(0, 9)) - 1, vocabulary - 1))).astype(np.int32)
    return ids, rng.integers(1, 5, len(ids)).astype(np.float32) / 2


@settings(max_examples=120, deadline=None)
@given(seed=SEED, size=st.integers(0, 400), k=st.integers(1, 60), share=SHARE)
def test_search_is_the_formula_and_the_exhaustive_scan_to_the_last_bit(seed: int, size: int, k: int, share: float | None) -> None:
    rng = np.random.default_rng(seed)
    passages = made(rng, size, vocabulary=VOCABULARY)
    asked, mask = asked_of(rng, VOCABULARY), mask_of(rng, share, size)
    with tempfile.TemporaryDirectory() as folder:
        index = index_of(Path(folder), passages, vocabulary=VOCABULARY)
        found = search(index, asked, k=k, allowed=mask)
        assert found == exhaustive(index, asked, k=k, allowed=mask)
        scores = slow_scores(passages, asked)
        expected = slow_best({at: value for at, value in scores.items() if mask is None or mask[at]}, k=k)
        assert [at for at, _ in found] == [at for at, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-9)
        # The beginning of a longer ranking is the shorter one.
        assert search(index, asked, k=10 * k, allowed=mask)[:k] == found


@settings(max_examples=25, deadline=None)
@given(seed=SEED, k=st.sampled_from([1, 7, 100, 3000]), share=SHARE, weights=st.sampled_from(["few", "many"]))
def test_pruning_over_several_ranges_loses_no_passage(seed: int, k: int, share: float | None, weights: str) -> None:
    """Most ranges are hardly read; impacts differ between ranges, so that what can be left out does, too."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2 * sparse.RANGE, 3 * sparse.RANGE))
    passages = made(rng, size, vocabulary=600, most=6)
    if weights == "many":
        strength = np.repeat(rng.random(1 + size // 1000), 1000)
        passages = [(ids, (some * (0.1 + strength[at] * rng.random(len(ids)))).astype(np.float32))
                    for at, (ids, some) in enumerate(passages)]
    with tempfile.TemporaryDirectory() as folder:
        index = index_of(Path(folder), passages, vocabulary=600)
        mask = mask_of(rng, share, size)
        for _ in range(6):
            ids = rng.permutation(600)[:rng.integers(1, 12)].astype(np.int32)
            ids[:2] = rng.permutation(6)[:len(ids[:2])]
            ids = np.unique(ids)
            asked = ids, rng.gamma(2.0, 1.0, len(ids)).astype(np.float32) + np.float32(0.01)
            assert search(index, asked, k=k, allowed=mask) == exhaustive(index, asked, k=k, allowed=mask)


@settings(max_examples=60, deadline=None)
@given(seed=SEED, sizes=st.lists(st.integers(0, 90), min_size=1, max_size=4), k=st.integers(1, 30), share=SHARE)
def test_a_merge_is_the_index_of_all_that_is_kept(seed: int, sizes: list[int], k: int, share: float | None) -> None:
    rng = np.random.default_rng(seed)
    parts = [made(rng, size, vocabulary=VOCABULARY) for size in sizes]
    keeps = [np.flatnonzero(rng.random(size) < 0.7) for size in sizes]
    with tempfile.TemporaryDirectory() as folder:
        opened = [index_of(Path(folder) / str(at), part, vocabulary=VOCABULARY) for at, part in enumerate(parts)]
        (Path(folder) / "merged").mkdir()
        sparse.merge(Path(folder) / "merged", list(zip(opened, keeps, strict=True)))
        kept = [part[at] for part, keep in zip(parts, keeps, strict=True) for at in keep]
        whole = index_of(Path(folder) / "whole", kept, vocabulary=VOCABULARY)
        merged = SparseIndex(Path(folder) / "merged")
        assert merged.path.read_bytes() == whole.path.read_bytes()
        assert merged.problems() == []
        # Searching the parts, what was not kept being deleted, finds the same rows with the same scores.
        first, segments, rows = 0, [], []
        for index, keep in zip(opened, keeps, strict=True):
            live = np.zeros(index.size, bool)
            live[keep] = True
            segments.append(SparseSegment(np.arange(first, first + index.size), live, index))
            rows += (first + keep).tolist()
            first += index.size
        asked = asked_of(rng, VOCABULARY)
        expected = [(rows[at], value) for at, value in search(merged, asked, k=k)]
        assert search_segments(segments, asked, k=k) == expected
        masks = [mask_of(rng, share, index.size) for index in opened]
        allowed = {row for segment, mask in zip(segments, masks, strict=True)
                   for row in segment.rows[slice(None) if mask is None else mask].tolist()}
        separately = [(int(segment.rows[at]), value) for segment in segments for at, value in search(segment.sparse, asked, k=500)]
        best = sorted((pair for pair in separately if pair[0] in allowed), key=lambda pair: (-pair[1], pair[0]))[:k]
        assert search_segments(segments, asked, k=k, allowed=masks) == best


@settings(max_examples=60, deadline=None)
@given(seed=SEED, size=st.integers(1, 300))
def test_lookups_give_the_scores_of_the_search(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    asked = asked_of(rng, VOCABULARY)
    with tempfile.TemporaryDirectory() as folder:
        index = index_of(Path(folder), made(rng, size, vocabulary=VOCABULARY), vocabulary=VOCABULARY)
        everything = dict(search(index, asked, k=size))
        positions = rng.integers(0, size, rng.integers(0, 2 * size))  # in any order, with repeats
        assert score(index, asked, positions).tolist() == [everything.get(at, 0.0) for at in positions.tolist()]
        found = rerank(index, asked, np.unique(positions))
        assert found == sorted(found, key=lambda pair: (-pair[1], pair[0]))
        assert dict(found) == {at: everything.get(at, 0.0) for at in positions.tolist()}


@settings(max_examples=30, deadline=None)
@given(seed=SEED, threads=st.integers(1, 3))
def test_a_batch_is_its_queries_one_by_one(seed: int, threads: int) -> None:
    rng = np.random.default_rng(seed)
    queries = [asked_of(rng, VOCABULARY) for _ in range(5)]
    with tempfile.TemporaryDirectory() as folder:
        index = index_of(Path(folder), made(rng, 120, vocabulary=VOCABULARY), vocabulary=VOCABULARY)
        mask = mask_of(rng, 0.5, 120)
        assert search_batch(index, queries, k=9, allowed=mask, threads=threads) == \
            [search(index, query, k=9, allowed=mask) for query in queries]


@given(weights=st.lists(st.floats(np.float32(1e-20), np.float32(1e6), width=32), max_size=50),
       scale=st.floats(1e-3, 1e4, allow_nan=False))
def test_impacts_stay_within_half_a_step_of_their_weights(weights: list[float], scale: float) -> None:
    given_ = np.asarray(weights, np.float32)
    impacts, clipped = quantised(given_, scale=scale)
    assert ((impacts >= 1) & (impacts <= MOST)).all()
    assert clipped == sum(weight > np.float32(scale) for weight in weights)
    back = restored(impacts, scale=scale)
    inside = (given_ <= scale) & (given_ >= scale / MOST / 2)
    assert (np.abs(back - given_)[inside] <= scale / MOST / 2 * (1 + 1e-5)).all()
    assert (impacts[given_ >= scale] == MOST).all()
    order = np.argsort(given_)
    assert (np.diff(impacts[order].astype(int)) >= 0).all()


@settings(max_examples=60, deadline=None)
@given(seed=SEED)
def test_scores_are_close_to_real_valued_query_weights(seed: int) -> None:
    """Weights of any size and ratio: the error is at most 2^-23 of the greatest possible score for each token."""
    rng = np.random.default_rng(seed)
    passages = made(rng, 80, vocabulary=VOCABULARY)
    ids = rng.permutation(VOCABULARY)[:rng.integers(1, 30)].astype(np.int32)
    asked = ids, (np.exp(rng.normal(rng.normal(0, 20), rng.random() * 4, len(ids)))).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        index = index_of(Path(folder), passages, vocabulary=VOCABULARY)
        scores = slow_scores(passages, asked)
        found = dict(search(index, asked, k=80))
        assert found.keys() == scores.keys()
        bound = len(ids) * float(asked[1].astype(np.float64).sum()) * SCALE / (1 << 23)
        assert all(abs(found[at] - value) <= bound for at, value in scores.items())
