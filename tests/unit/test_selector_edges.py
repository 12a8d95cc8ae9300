"""What every selector does with input at the edges: too little budget, none or thousands of candidates, equal texts, scores that
are no numbers, counts that cannot be, and a time that is up."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from optimizers import SELECTORS
from optimizers.carrot import choose_by_carrot
from optimizers.context import render
from optimizers.greedy import choose_greedily
from optimizers.pool import Pool, Unit, units
from optimizers.searching import choose
from optimizers.space import Space
from rag.errors import InputError
from rag.types import Context, Extract, Selection
from tests.fakes import WordCounter, make_chunk
from tests.unit.test_searching import FOUND_BY, SlowWorth, candidate

COUNTER = WordCounter()
BY_CHANCE = ("greedy", "lazy", "beam", "exact", "mcts")


def rendered(extracts: Sequence[Extract]) -> Context:
    return render(extracts, counter=COUNTER)


def go_on() -> bool:
    return False


def run(name: str, pool: Pool, *, budget: int = 100) -> Selection:
    found = SELECTORS[name](pool, budget=budget, render=rendered, stop=go_on)
    assert rendered(found.extracts).tokens <= budget
    assert len(found.considered) == len(pool.candidates)
    assert all(row.why for row in found.considered)
    return found


@pytest.mark.parametrize("name", SELECTORS)
def test_a_budget_under_every_candidate_chooses_nothing_and_says_why(name: str) -> None:
    pool = Pool(tuple(candidate(f"Ada wrote program number {i}.", i=i, relevance=0.9) for i in range(3)), {})
    least = rendered([Extract(pool.candidates[0].chunk, (0,))]).tokens
    for budget in (0, 1, least - 1):
        found = run(name, pool, budget=budget)
        assert (found.extracts, found.utility, found.next_best, found.degraded) == ((), 0.0, None, None)
        assert not any(row.kept for row in found.considered)
    assert run(name, pool, budget=least).extracts


@pytest.mark.parametrize("name", SELECTORS)
def test_none_and_one_candidate(name: str) -> None:
    assert run(name, Pool((), {})) == Selection((), 0.0, 0, ())
    found = run(name, Pool((candidate("Ada wrote it.", i=0, relevance=0.9),), {}))
    assert [extract.sentences for extract in found.extracts] == [(0,)]
    assert found.next_best is None


@pytest.mark.parametrize("name", SELECTORS)
def test_five_thousand_candidates(name: str) -> None:
    pool = Pool(tuple(candidate(f"Word{i % 2500} is here.", i=i, relevance=0.9 - i / 6000) for i in range(5000)), {"word": 1.0})
    found = run(name, pool, budget=60)
    assert found.extracts
    assert len({extract.chunk.text for extract in found.extracts}) == len(found.extracts)
    assert found.considered[2500].why == "same text as candidate 1"


@pytest.mark.parametrize("name", SELECTORS)
def test_candidates_of_one_text_enter_once(name: str) -> None:
    found = run(name, Pool(tuple(candidate("Ada wrote the first program.", i=i, relevance=0.9) for i in range(12)), {}), budget=500)
    assert [extract.chunk.id for extract in found.extracts] == ["c0"]
    assert {row.why for row in found.considered[1:]} == {"same text as candidate 1"}


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("wrong", [
    {"score": math.nan}, {"relevance": math.inf}, {"sentence_relevance": (0.5, math.nan)}, {"tokens": -3},
    {"sentence_tokens": (3, -1)}, {"sentence_vectors": np.full((2, 64), np.nan, np.float32)}, {"sentence_answers": (0.1, math.nan)},
])
def test_what_is_no_number_and_negative_tokens_are_refused_by_name(name: str, wrong: Mapping[str, object]) -> None:
    good, bad = candidate("One is. Two is.", i=0), candidate("Three is. Four is.", i=1)
    with pytest.raises(InputError, match=r"Candidate 2 \(c1\) has"):
        run(name, Pool((good, dataclasses.replace(bad, **wrong)), {}))


@pytest.mark.parametrize("name", SELECTORS)
def test_a_weight_of_a_term_that_is_no_number_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match="term 'ada' has the weight nan"):
        run(name, Pool((candidate("Ada wrote it.", i=0, terms=("ada",)),), {"ada": math.nan}))


@pytest.mark.parametrize("name", SELECTORS)
def test_sentences_of_no_tokens_are_not_free(name: str) -> None:
    bare = [candidate(f"One{i} is. Two{i} is.", i=i, relevance=0.9) for i in range(3)]
    pool = Pool(tuple(dataclasses.replace(one, sentence_tokens=(0, 0), tokens=0) for one in bare), {})
    for budget in range(40):
        run(name, pool, budget=budget)


@pytest.mark.parametrize("name", SELECTORS)
def test_a_candidate_without_sentences_is_never_chosen(name: str) -> None:
    empty = dataclasses.replace(candidate("One.", i=0, relevance=0.9), sentence_relevance=(),
                                chunk=dataclasses.replace(make_chunk("x", id="c0"), sentences=()),
                                sentence_tokens=(), sentence_terms=(),
                                sentence_vectors=np.zeros((0, 64), np.float32))
    found = run(name, Pool((empty, candidate("Two is here.", i=1)), {}))
    assert [extract.chunk.id for extract in found.extracts] == ["c1"]
    assert "no sentence" in found.considered[0].why


@pytest.mark.parametrize("name", SELECTORS)
def test_a_selector_that_is_stopped_gives_the_best_so_far_and_says_so(name: str) -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i, relevance=0.9) for i in range(20)), {})
    whole = run(name, pool, budget=120)
    assert whole.degraded is None
    for calls in range(4):
        asked = itertools.count()
        found = SELECTORS[name](pool, budget=120, render=rendered, stop=lambda n=calls, c=asked: next(c) >= n)
        assert rendered(found.extracts).tokens <= 120
        assert bool(found.extracts) <= (calls > 0)
        assert next(asked) <= calls + 1        # once it was told to stop, it asks no more
        assert (found.degraded or "").startswith("stopped:")


# --- scorers -----------------------------------------------------------------------------------------------------------------


class SlowChances:
    """A scorer in whose one call all the time goes by."""

    def __init__(self) -> None:
        self.over = False

    def __call__(self, pool: Pool) -> Mapping[Unit, float]:
        self.over = True
        return {unit: 0.9 if unit.candidate == 3 else 0.1 for unit in units(pool)}


@pytest.mark.parametrize("name", BY_CHANCE)
def test_chances_that_took_all_the_time_are_still_used(name: str) -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i) for i in range(6)), {})
    slow = SlowChances()
    if name == "greedy":
        found = choose_greedily(pool, budget=200, render=rendered, stop=lambda: slow.over, chances=slow)
    else:
        found = choose(pool, budget=200, render=rendered, stop=lambda: slow.over, search=FOUND_BY[name], chances=slow)
    assert found.extracts[0].chunk.id == "c3"
    assert found.considered[3].chance == 0.9
    assert (found.degraded or "").startswith("stopped:")


@pytest.mark.parametrize("name", BY_CHANCE)
def test_a_scorer_is_not_asked_when_the_time_was_up_before(name: str) -> None:
    def never(pool: Pool) -> Mapping[Unit, float]:
        raise AssertionError(pool)

    pool = Pool((candidate("Ada wrote it.", i=0),), {})
    if name == "greedy":
        found = choose_greedily(pool, budget=200, render=rendered, stop=lambda: True, chances=never)
    else:
        found = choose(pool, budget=200, render=rendered, stop=lambda: True, search=FOUND_BY[name], chances=never)
    assert found.extracts == ()
    assert found.considered[0].why == "the search was stopped before it began"


@pytest.mark.parametrize("chance", [math.nan, -0.1, 1.1])
def test_greedy_refuses_a_chance_that_is_none(chance: float) -> None:
    pool = Pool((candidate("One is. Two is.", i=0),), {})
    with pytest.raises(InputError, match=r"Candidate 1 \(c0\) has the chance .* of sentence 2"):
        choose_greedily(pool, budget=100, render=rendered, stop=go_on, chances=lambda _: {Unit(0, 0): 0.5, Unit(0, 1): chance})


def test_greedy_goes_by_the_chances_that_it_is_given() -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i) for i in range(6)), {})
    found = choose_greedily(pool, budget=9, render=rendered, stop=go_on, chances=lambda _: {Unit(4, 0): 0.9, Unit(1, 0): 0.2})
    assert [extract.chunk.id for extract in found.extracts] == ["c4"]
    assert [row.chance for row in found.considered] == [None, 0.2, None, None, 0.9, None]


@pytest.mark.parametrize("name", ["lazy", "beam", "mcts"])
def test_a_worth_that_is_no_number_is_refused_by_name(name: str) -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i) for i in range(6)), {})
    with pytest.raises(InputError, match=r"Candidate \d \(c\d\) has the worth nan in a set of 1 sentences"):
        choose(pool, budget=200, render=rendered, stop=go_on, search=FOUND_BY[name],
               worth=lambda sets: np.full(len(sets), math.nan), chances=lambda held: dict.fromkeys(units(held), 0.5))


def test_a_reward_that_is_no_number_is_refused_by_name() -> None:
    pool = Pool((candidate("Ada wrote it.", i=0),), {})
    with pytest.raises(InputError, match=r"Candidate 1 \(c0\) has the reward nan in a combination of 1"):
        choose_by_carrot(pool, budget=200, render=rendered, stop=go_on, reward=lambda orders: [math.nan] * len(orders))


def test_a_worth_that_met_its_limit_says_so() -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i) for i in range(6)), {})
    found = choose(pool, budget=200, render=rendered, stop=go_on, search=FOUND_BY["lazy"], worth=SlowWorth(99), limit=7,
                   chances=lambda held: dict.fromkeys(units(held), 0.5))
    assert found.extracts
    assert (found.degraded or "").startswith("limit: 7 sets")


def test_a_set_over_the_budget_is_shortened_when_the_time_is_up_before_another_was_found() -> None:
    """The counter is dear and the search is stopped after its first round: what it found is cut until it fits."""
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i) for i in range(6)), {})
    rounds: list[Space] = []

    def once(space: Space) -> None:
        if space.open():
            rounds.append(space)
            space.score([0b111])

    def dear(extracts: Sequence[Extract]) -> Context:
        plain = rendered(extracts)
        return dataclasses.replace(plain, tokens=plain.tokens + 90 * (len(extracts) > 2))

    found = choose(pool, budget=60, render=dear, stop=lambda: len(rounds) > 0, search=once,
                   chances=lambda held: dict.fromkeys(units(held), 0.5))
    assert len(found.extracts) == 2
    assert (found.degraded or "").startswith("stopped:")


