"""ROUGE-L against its published example, against the package's figures, and against a slow and obvious version."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest

from eval.rouge import rouge_l, rouge_l_of_all


def longest_common(one: list[str], other: list[str]) -> int:
    """By trying every subsequence, longest first."""
    for length in range(min(len(one), len(other)), 0, -1):
        mine = {tuple(one[i] for i in places) for places in combinations(range(len(one)), length)}
        if mine & {tuple(other[i] for i in places) for places in combinations(range(len(other)), length)}:
            return length
    return 0


@pytest.mark.parametrize(("said", "worth"), [
    # Section 3.1 of the paper: the same words in another order share a shorter subsequence.
    ("police kill the gunman", 0.75),
    ("the gunman kill police", 0.5),
    ("police killed gunman", 6 / 7),
    ("police killed the gunman", 1),
    ("", 0),
])
def test_sentence_level_cases(said: str, worth: float) -> None:
    assert rouge_l(said.split(), ["police", "killed", "the", "gunman"]) == pytest.approx(worth)


def test_nothing_agrees_with_nothing() -> None:
    assert rouge_l([], []) == 1
    assert rouge_l(["a"], []) == 0
    assert rouge_l_of_all([], [[]]) == 1


@pytest.mark.parametrize(("said", "parts", "worth"), [
    ("defined benefit", ["defined contribution", "defined benefit"], 2 / 3),
    ("b c a b", ["a b", "b c"], 1),
    ("b", ["b", "b"], 2 / 3),
    ("x", ["b", "c"], 0),
])
def test_summary_level_counts_no_token_twice(said: str, parts: list[str], worth: float) -> None:
    assert rouge_l_of_all(said.split(), [part.split() for part in parts]) == pytest.approx(worth)


def test_agrees_with_the_slow_version() -> None:
    rng = Random(2)
    for _ in range(300):
        said, wanted = (rng.choices("abc", k=rng.randint(1, 7)) for _ in range(2))
        common = longest_common(said, wanted)
        precision, recall = common / len(said), common / len(wanted)
        worth = 2 * precision * recall / (precision + recall) if common else 0
        assert rouge_l(said, wanted) == pytest.approx(worth)
        assert rouge_l_of_all(said, [wanted]) == pytest.approx(worth), "one part is the sentence level"
