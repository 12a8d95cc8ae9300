"""A loop is noticed soon; what only looks like one is left alone."""

from __future__ import annotations

import random

import pytest

from rag.llm.repetition import LONGEST_CYCLE, REPEATS, STRETCH, LoopGuard, TextLoopGuard


def tokens_until_loop(tokens: list[int]) -> int | None:
    """How many tokens it took, or None."""
    guard = LoopGuard()
    return next((index for index, token in enumerate(tokens, start=1) if guard.add(token)), None)


@pytest.mark.parametrize("cycle", range(1, LONGEST_CYCLE + 1))
def test_a_cycle_of_any_watched_length_is_noticed_as_soon_as_the_rule_says(cycle: int) -> None:
    start = [1000, 1001, 1002]
    looped = start + list(range(cycle)) * 50
    found = tokens_until_loop(looped)
    assert found == len(start) + max(REPEATS * cycle, STRETCH)


def test_a_cycle_longer_than_watched_is_left_to_the_token_limit() -> None:
    assert tokens_until_loop(list(range(LONGEST_CYCLE + 1)) * 20) is None


@pytest.mark.parametrize("tokens", [
    [5] * (STRETCH - 1),                                            # a row of dashes, a long number
    [*([7, 8] * (STRETCH // 2))[:-1], 9],                           # nearly
    [1, 2, 3, 4] * 5 + [9] + [1, 2, 3, 4] * 5,                      # broken in between
    [1, 2, 3, 10, 1, 2, 3, 11, 1, 2, 3, 12, 1, 2, 3, 13] * 1,       # a list: alike, not equal
])
def test_what_only_looks_like_a_loop(tokens: list[int]) -> None:
    assert tokens_until_loop(tokens) is None


def test_random_tokens_never_loop() -> None:
    rng = random.Random(3)
    assert tokens_until_loop([rng.randrange(50) for _ in range(5000)]) is None


@pytest.mark.parametrize("loop", ["so on and ", "的", "ha", "\n", "I am sorry, I cannot answer. ", "1, 2, ", "🙂"])
def test_looping_text_is_noticed_however_it_is_split(loop: str) -> None:
    text = "The answer is: " + loop * 300
    found = set()
    for size in (1, 3, 7, 50):
        guard = TextLoopGuard()
        at = next((at for at in range(0, len(text), size) if guard.add(text[at:at + size])), None)
        assert at is not None, f"in pieces of {size}"
        found.add(at // 50)
    assert len(found) <= 2, "about the same place in each"


def test_ordinary_text_is_no_loop() -> None:
    text = ("The warranty lasts 27 months. It covers parts, labour, and travel; it does not cover wear. "
            "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |\n| 1 | 2 | 4 |\n" "Call 0800 000 0000, or 0800 111 1111.")
    guard = TextLoopGuard()
    assert not any(guard.add(character) for character in text)
