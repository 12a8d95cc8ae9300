"""Fitting the coefficients of the set function: what counts as serving a question, and that better coefficients are found."""

from __future__ import annotations

import dataclasses

import pytest

from eval.datasets import Question
from optimizers import coefficients, relevance
from optimizers.coefficients import Coefficients
from optimizers.packed import members, packed
from optimizers.pool import Pool
from optimizers.training import utility
from optimizers.training.utility import Case
from tests.fakes import WordCounter
from tests.unit.test_searching import candidate, rendered


def question(text: str, answer: str, evidence: str) -> Question:
    return Question(id="q", text=text, answers=(answer,), evidence=(evidence,), type="span")


POOL = Pool((candidate("Ada wrote the first program. She was a countess.", i=0, terms=("ada",), relevance=0.8),
             candidate("Babbage built the engine. It was never finished.", i=1, terms=("babbage",), relevance=0.3)),
            {"ada": 1.0, "babbage": 1.0})
ADA, BABBAGE = question("Who was Ada?", "a countess", "d0"), question("What did Babbage build?", "the engine", "d1")


def test_a_question_is_served_by_a_sentence_of_a_gold_passage_that_holds_an_answer() -> None:
    [case] = utility.cases(POOL, [ADA, BABBAGE], counter=WordCounter(), budgets=[100])
    arrays, rows = packed(POOL, chances=relevance.chances(POOL), coefficients=utility._GENEROUS, budget=100, render=rendered)
    assert [[(rows.units[row].candidate, rows.units[row].sentence) for row in members(need)] for need in case.needs] == [
        [(0, 1)], [(1, 0)]]
    assert case.arrays.tokens.tolist() == arrays.tokens.tolist()


def test_tokens_count_against_the_quality() -> None:
    [case] = utility.cases(POOL, [ADA], counter=WordCounter(), budgets=[100])
    everything = Coefficients(trust=0.2, coverage=0.0, price=0.0)
    worth, share, tokens = utility.quality([case], everything)
    assert share == 1
    assert worth == pytest.approx(1 - utility.WASTE * tokens / 100)


def test_the_fit_is_no_worse_than_where_it_started_and_keeps_to_its_grid() -> None:
    singles = [*utility.cases(POOL, [ADA], counter=WordCounter(), budgets=[30, 60])]
    pairs = [*utility.cases(POOL, [ADA, BABBAGE], counter=WordCounter(), budgets=[30, 60])]
    start = Coefficients(trust=1.0, coverage=0.0, price=0.5)
    fitted = utility.fit(singles, pairs, start=start)

    def reached(by: Coefficients) -> float:
        return utility.quality(singles, by)[0] + utility.quality(pairs, by)[0]

    assert reached(fitted) > reached(start)
    for name, values in utility.GRID.items():
        assert getattr(fitted, name) in (*values, getattr(start, name))


def test_nothing_to_choose_serves_nobody() -> None:
    [empty] = utility.cases(Pool((), {}), [ADA], counter=WordCounter(), budgets=[30])
    assert utility.quality([Case(empty.arrays, empty.needs)], Coefficients()) == (0.0, 0.0, 0.0)


def test_the_shipped_coefficients_are_those_of_the_formula() -> None:
    shipped = coefficients.shipped()
    assert all(value >= 0 for value in dataclasses.astuple(shipped))
    assert 0 < shipped.trust <= 1
    assert shipped.alike_from < 1
