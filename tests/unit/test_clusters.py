"""Dividing texts, summaries made of their sentences, and words that tell clusters apart."""

from __future__ import annotations

import numpy as np
import pytest

from indexers.clusters_extract import chosen, extracted
from indexers.clusters_labels import labelled
from indexers.clusters_partition import assigned, candidates, divided, silhouette, started
from indexers.encoders import Vectors
from tests.fakes import WordCounter, WordEncoder, make_chunk


def clouds(sizes: list[int], *, dimension: int = 16, seed: int = 1) -> Vectors:
    """Unit vectors around as many axes, those of one axis together."""
    rng = np.random.default_rng(seed)
    rows = np.concatenate([np.eye(dimension)[axis] + 0.05 * rng.standard_normal((size, dimension))
                           for axis, size in enumerate(sizes)])
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def slow_silhouette(vectors: Vectors, labels: list[int]) -> float:
    scores = []
    for i, mine in enumerate(labels):
        away = {name: [1 - float(vectors[i] @ vectors[j]) for j, other in enumerate(labels) if other == name and j != i]
                for name in set(labels)}
        if not away[mine]:
            scores.append(0.0)
            continue
        a, b = np.mean(away[mine]), min(np.mean(found) for name, found in away.items() if name != mine)
        scores.append(float((b - a) / max(a, b)))
    return float(np.mean(scores))


def test_texts_around_three_things_make_three_clusters_the_largest_first() -> None:
    found = divided(clouds([12, 30, 18]), k=None, k_max=6, seed=13)
    assert np.bincount(found.labels).tolist() == [30, 18, 12]
    assert found.silhouette is not None
    assert found.silhouette > 0.8
    assert found.labels.tolist() == [2] * 12 + [0] * 30 + [1] * 18
    assert np.allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-5)


def test_the_same_vectors_and_seed_are_divided_the_same() -> None:
    rows = np.random.default_rng(3).standard_normal((60, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    one, other = (divided(rows, k=4, k_max=4, seed=5) for _ in range(2))
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.centroids, other.centroids)


@pytest.mark.parametrize(("n", "k", "k_max", "tried"), [
    (1, None, 5, []), (4, None, 5, []), (5, None, 5, [2]), (8, None, 5, [2, 3]), (75, None, 5, [2, 3, 4, 5]), (75, 9, 5, [9]),
    (8, 9, 5, [3]), (75, 1, 5, []), (75, None, 1, [])])
def test_as_many_clusters_are_tried_as_the_texts_and_the_budget_allow(n: int, k: int | None, k_max: int, tried: list[int]) -> None:
    assert candidates(n, k=k, k_max=k_max) == tried


def test_many_clusters_are_tried_at_few_sizes_that_hold_the_rule_of_thumb() -> None:
    tried = candidates(5000, k=None, k_max=200)
    assert len(tried) <= 17
    assert tried[0] == 2
    assert tried[-1] == 200
    assert started(5000, k_max=200) == 50
    assert 50 in tried


def test_one_text_and_texts_that_are_the_same_are_one_cluster() -> None:
    one = divided(clouds([1]), k=None, k_max=5, seed=1)
    assert one.labels.tolist() == [0]
    assert one.silhouette is None
    assert one.spread == pytest.approx(0, abs=1e-6)
    same = divided(np.repeat(clouds([1]), 40, axis=0), k=3, k_max=5, seed=1)
    assert same.labels.tolist() == [0] * 40


def test_few_different_texts_leave_no_cluster_empty() -> None:
    found = divided(np.repeat(clouds([1, 1, 1]), 6, axis=0), k=8, k_max=8, seed=1)
    assert len(found.centroids) == 3
    assert np.bincount(found.labels).tolist() == [6, 6, 6]


def test_the_silhouette_is_what_its_definition_says() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((25, 6)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = [*rng.integers(0, 3, 24).tolist(), 7]      # the last one is alone
    assert silhouette(rows, np.asarray(labels)) == pytest.approx(slow_silhouette(rows, labels), abs=1e-6)
    assert silhouette(rows, np.zeros(25, np.int64)) is None


def test_a_text_goes_to_the_nearest_centroid_ties_to_the_first() -> None:
    centroids = np.eye(3, dtype=np.float32)[[0, 1, 1]]
    labels, closeness = assigned(np.eye(3, dtype=np.float32), centroids)
    assert labels.tolist() == [0, 1, 0]
    assert closeness.tolist() == [1, 1, 0]


def test_sentences_cover_what_most_texts_say_within_their_tokens() -> None:
    texts = ["The battery lasts two days.", "Its battery lasts for days.", "The battery lasts very long days.",
             "A red case came along."]
    members = [make_chunk(text, id=f"d{i}:0:0", doc_id=f"d{i}") for i, text in enumerate(texts)]
    encoder, counter = WordEncoder(), WordCounter()
    found = extracted(members, [10, 11, 12, 13], tokens=14, encode=encoder.encode, count=counter.count_many)
    assert found[0][0] in (10, 11, 12)
    assert found[0][1] == 0
    assert sum(counter.count(texts[row - 10]) for row, _ in found) <= 14
    one = extracted(members, [10, 11, 12, 13], tokens=1, encode=encoder.encode, count=counter.count_many)
    assert len(one) == 1        # nothing fits, and a summary is never empty


def test_the_choice_of_sentences_is_greedy_by_coverage_per_token() -> None:
    vectors, costs = clouds([6, 3, 1], dimension=8), [5] * 10
    picked = chosen(vectors, costs, tokens=10)
    assert picked[0] < 6
    assert 6 <= picked[1] < 9
    assert len(picked) == 2
    assert chosen(vectors, costs, tokens=4) == chosen(vectors, costs, tokens=5)[:1] != []
    # Another sentence of the first cloud says the same again, so only the three clouds are taken.
    assert sorted(0 if i < 6 else 1 if i < 9 else 2 for i in chosen(vectors, costs, tokens=1000)) == [0, 1, 2]


def test_short_exclamations_are_no_summary_where_there_are_sentences() -> None:
    members = [make_chunk("Great! The rooms were clean and quiet.", id="a:0:0"), make_chunk("Wow. Super.", id="b:0:0")]
    found = extracted(members, [1, 2], tokens=50, encode=WordEncoder().encode, count=WordCounter().count_many)
    assert found == ((1, 1),)
    only = extracted(members[1:], [2], tokens=50, encode=WordEncoder().encode, count=WordCounter().count_many)
    assert set(only) == {(2, 0), (2, 1)}


def test_labels_are_words_that_one_cluster_has_more_than_the_others() -> None:
    texts = [["The battery drains fast", "battery drained again"], ["The screen is bright", "A bright screen with the battery"]]
    held = [text.lower().split() for cluster in texts for text in cluster]

    def weigh(words: object, rows: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        assert list(rows) == [1, 2, 3, 4]  # type: ignore[call-overload]
        return np.asarray([[float(any(word[:5] == other[:5] for other in text)) for word in words] for text in held])  # type: ignore[attr-defined]

    first, second = labelled(texts, [[1, 2], [3, 4]], weigh=weigh)
    assert {word[:5] for word in first[:2]} == {"drain", "batte"} or first[0].startswith("drain")
    assert set(second[:2]) == {"bright", "screen"}
    assert "the" not in (*first, *second)
    assert labelled([[]], [[]], weigh=weigh) == [()]
