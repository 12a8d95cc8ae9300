"""Vectors that come and go: always as comparing all of them would say, and so with an index in between."""

from __future__ import annotations

import numpy as np
import pytest

from retrievers import nearest
from retrievers.nearest import Nearest


def unit(rng: np.random.Generator, n: int, dimension: int = 16) -> np.ndarray:
    made = rng.normal(size=(n, dimension)).astype(np.float32)
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def slow(kept: dict[int, np.ndarray], query: np.ndarray, k: int) -> list[float]:
    return sorted((float(vector @ query) for vector in kept.values()), reverse=True)[:k]


def test_searches_agree_with_comparing_everything_while_vectors_come_and_go() -> None:
    rng = np.random.default_rng(5)
    index, kept, number = Nearest(16), {}, 0
    assert index.search(unit(rng, 1)[0], 3) == []
    for _ in range(60):
        some = unit(rng, int(rng.integers(1, 40)))
        numbers = list(range(number, number + len(some)))
        number += len(some)
        index.add(numbers, some)
        kept |= dict(zip(numbers, some, strict=True))
        for gone in rng.choice(list(kept), size=min(len(kept) - 1, int(rng.integers(0, 45))), replace=False).tolist():
            index.remove([gone])
            del kept[gone]
        index.remove([10**9])
        query = unit(rng, 1)[0]
        found = index.search(query, 5)
        assert [cosine for _, cosine in found] == pytest.approx(slow(kept, query, 5), abs=2e-3)
        assert all(number in kept for number, _ in found)
        assert len(index) == len(kept)


def test_a_number_told_again_has_its_new_vector() -> None:
    rng = np.random.default_rng(1)
    one, other = unit(rng, 2)
    index = Nearest(16)
    index.add([7], one[None])
    index.add([7], other[None])
    assert len(index) == 1
    assert index.search(other, 2)[0][1] == pytest.approx(1.0, abs=2e-3)


def test_beyond_the_limit_an_index_finds_what_comparing_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "FLAT_UP_TO", 2000)
    rng = np.random.default_rng(2)
    vectors = unit(rng, 5000)
    index = Nearest(16)
    index.add(list(range(4500)), vectors[:4500])
    index.settle()
    assert index._index is not None
    assert index._index.size == 4500
    index.add(list(range(4500, 5000)), vectors[4500:])
    index.remove(range(1000))
    kept = {i: vectors[i] for i in range(1000, 5000)}
    hits = 0
    for query in unit(rng, 40):
        found = index.search(query, 5)
        assert all(number >= 1000 for number, _ in found)
        hits += len({number for number, _ in found} & set(sorted(kept, key=lambda i: -float(kept[i] @ query))[:5]))
    assert hits >= 0.95 * 200


def test_ranks_close_where_most_went() -> None:
    rng = np.random.default_rng(3)
    index, vectors = Nearest(16), unit(rng, 2000)
    index.add(list(range(2000)), vectors)
    index.remove(range(1900))
    index.add([5000], vectors[:1])
    assert index._used < 2000
    assert index.search(vectors[1950], 1)[0][0] == 1950
