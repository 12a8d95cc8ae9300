"""Laws of dense search for every kind, any mask and any k: exactly as many results as there can be, none that is not allowed,
none twice, best first with ties by position, and scores that do not depend on the kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexers import dense
from indexers.dense import DenseIndex
from indexers.encoders import Vectors

SIZE, DIMENSION = 1100, 16
Mask = NDArray[np.bool_]


def _vectors() -> NDArray[np.float16]:
    """Clusters, with every fifth vector a copy of another, so that scores tie."""
    rng = np.random.default_rng(11)
    vectors = rng.standard_normal((30, DIMENSION))[rng.integers(0, 30, SIZE)] + 0.7 * rng.standard_normal((SIZE, DIMENSION))
    vectors[::5] = vectors[rng.integers(0, SIZE, len(vectors[::5]))]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


VECTORS = _vectors()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DenseIndex]:
    found = {}
    for kind in dense.KINDS:
        folder: Path = tmp_path_factory.mktemp(kind)
        dense.write(folder, VECTORS, kind=kind)
        found[kind] = DenseIndex(folder, VECTORS)
    return found


@pytest.fixture(scope="module", autouse=True)
def _as_if_large() -> object:
    """Searches look at a few lists of many and never compare everything out of thrift, as they do where there are millions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "_PROBES", 2)
        patch.setattr(dense, "_BREADTH", 16)
        patch.setattr(dense, "_BREADTH_PER_RESULT", 1)
        patch.setattr(dense, "_EXACT_PER_ROOT", dict.fromkeys(dense.KINDS, 0))
        patch.setattr(dense, "_EXACT_PER_RESULT", 0)
        yield


@st.composite
def masks(draw: st.DrawFn) -> Mask | None:
    """None, none, all, one, few, one stretch, or a random share of the positions."""
    mask = np.zeros(SIZE, bool)
    shape = draw(st.sampled_from(["absent", "none", "all", "some", "stretch", "share"]))
    if shape == "absent":
        return None
    if shape == "all":
        mask[:] = True
    elif shape == "some":
        mask[draw(st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=12))] = True
    elif shape == "stretch":
        start = draw(st.integers(0, SIZE - 1))
        mask[start:start + draw(st.integers(1, SIZE))] = True
    elif shape == "share":
        mask = np.random.default_rng(draw(st.integers(0, 999))).random(SIZE) < draw(st.floats(0, 1))
    return mask


@st.composite
def queries(draw: st.DrawFn) -> Vectors:
    """Stored vectors, so that copies of them tie, and random directions."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    found = [VECTORS[rng.integers(SIZE)].astype(np.float32) if rng.random() < 0.5 else rng.standard_normal(DIMENSION)
             for _ in range(draw(st.integers(1, 4)))]
    stacked = np.asarray(found, np.float32)
    return stacked / np.linalg.norm(stacked, axis=1, keepdims=True)


WANTED = st.one_of(st.integers(1, 20), st.integers(1, SIZE + 50))


@pytest.mark.parametrize("kind", dense.KINDS)
@settings(max_examples=150, deadline=None)
@given(query=queries(), allowed=masks(), k=WANTED)
def test_exactly_the_results_there_can_be(opened: dict[str, DenseIndex], kind: str, query: Vectors, allowed: Mask | None,
                                          k: int) -> None:
    scores, positions = opened[kind].search(query, k, allowed=allowed)
    mask = np.ones(SIZE, bool) if allowed is None else allowed
    count = min(k, int(mask.sum()))
    assert scores.shape == positions.shape == (len(query), min(k, SIZE))
    assert scores.dtype == np.float32
    assert positions.dtype == np.int64
    assert (positions[:, count:] == -1).all()
    assert np.isneginf(scores[:, count:]).all()
    all_scores, all_positions = opened["flat"].search(query, SIZE)
    for row in range(len(query)):
        found = positions[row, :count].tolist()
        assert len(set(found)) == count
        assert mask[found].all()
        pairs = list(zip((-scores[row, :count]).tolist(), found, strict=True))
        assert pairs == sorted(pairs)
        known = dict(zip(all_positions[row].tolist(), all_scores[row].tolist(), strict=True))
        assert scores[row, :count].tolist() == [known[position] for position in found]


@settings(max_examples=150, deadline=None)
@given(query=queries(), allowed=masks(), k=WANTED)
def test_flat_finds_the_best(opened: dict[str, DenseIndex], query: Vectors, allowed: Mask | None, k: int) -> None:
    """The slow, obvious way; sums differ in the last bits, so vectors that close may change places, but never equal ones."""
    scores, positions = opened["flat"].search(query, k, allowed=allowed)
    mask = np.ones(SIZE, bool) if allowed is None else allowed
    for row, vector in enumerate(query):
        cosines = VECTORS.astype(np.float64) @ vector.astype(np.float64)
        order = sorted(np.flatnonzero(mask).tolist(), key=lambda position: (-cosines[position], position))[:k]
        assert scores[row, :len(order)].tolist() == pytest.approx(cosines[order].tolist(), abs=2e-6)
        found = positions[row, :len(order)]
        assert cosines[found].tolist() == pytest.approx(cosines[order].tolist(), abs=2e-6)
        for position in found.tolist():  # of equal vectors, the first that are allowed
            equal = np.flatnonzero(mask & (VECTORS[position] == VECTORS).all(axis=1))
            before = equal[equal < position]
            assert np.isin(before, found).all()
