"""The bench of declining: its curve by hand, its questions, and a run on the sample."""

from __future__ import annotations

import pytest

from eval.bench.abstention import SIGNALS, Asked, area, measured, mixed
from eval.datasets import Question
from rag.errors import InputError


def test_the_area_by_hand() -> None:
    assert area([.9, .8, .7, .1], [False, True, False, True]) == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert area([.1, .7, .8, .9], [True, False, True, False]) == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert area([.5, .5], [True, False]) == pytest.approx(.5)     # ties share their risk, whichever comes first
    assert area([1, 1, 0], [True, False, False]) == pytest.approx((.5 + .5 + 1 / 3) / 3)


def question(number: int, *, answers: tuple[str, ...] = (), kind: str = "extractive") -> Question:
    return Question(f"q{number}", f"What is {number}?", answers, (), kind)


def test_answerable_and_unanswerable_questions_come_in_turn() -> None:
    some = [question(at, answers=("x",)) for at in range(5)] + [question(at, kind="unanswerable") for at in range(10, 13)]
    found = mixed(some, limit=10, seed=1)
    assert [each.unanswerable for each in found] == [False, True] * 3
    assert mixed(some, limit=10, seed=1) == found
    assert len(mixed(some, limit=3, seed=1)) == 3
    with pytest.raises(InputError, match="one kind"):
        mixed(some[:5], limit=10, seed=1)


def test_rows_name_each_signal_and_its_bounds() -> None:
    found = [Asked(dict.fromkeys(SIGNALS, at / 4), wrong=at < 2, refused=at == 0) for at in range(4)]
    rows = {row.name: row.value for row in measured("set", found, unanswerable=.5, seed=3)}
    assert rows["set: area, sufficiency"] == rows["set: area, perfect"] == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert rows["set: area, random"] == .5
    assert rows["set: coverage of refusal in words"] == .75
    assert rows["set: risk of refusal in words"] == pytest.approx(1 / 3)
