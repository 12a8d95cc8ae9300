"""The searches over sets of sentences as selectors: small pools that can be checked by hand, and input that cannot be used."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from optimizers import SELECTORS, beam, exact, lazy, mcts
from optimizers.coefficients import Coefficients
from optimizers.context import render
from optimizers.packed import Floats, Ints
from optimizers.pool import Candidate, Pool, Unit, units
from optimizers.searching import Search, choose
from optimizers.space import Space
from rag.errors import InputError
from rag.types import Context, Extract, Selection
from tests.fakes import WordCounter, make_chunk

SEARCHES = ("lazy", "beam", "exact", "mcts")
FOUND_BY: dict[str, Search] = {"lazy": lazy.search, "beam": beam.search, "exact": exact.search, "mcts": mcts.search}
COUNTER = WordCounter()


def rendered(extracts: Sequence[Extract]) -> Context:
    return render(extracts, counter=COUNTER)


def go_on() -> bool:
    return False


def candidate(text: str, *, i: int, relevance: float = 0.5, terms: Sequence[str] = (), title: str = "", doc: str = "",
              ordinal: int = 0) -> Candidate:
    """Its sentences point in directions of their own, but for equal texts."""
    chunk = make_chunk(text, id=f"c{i}", doc_id=doc or f"d{i}", title=title)
    chunk = dataclasses.replace(chunk, ordinal=ordinal)
    n = len(chunk.sentences)
    vectors = np.asarray([np.random.default_rng(abs(hash_of(chunk.sentence(j)))).normal(0, 1, 64) for j in range(n)]).reshape(n, 64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return Candidate(chunk=chunk, score=1 / (i + 1), relevance=relevance, sentence_relevance=(relevance,) * n,
                     sentence_tokens=tuple(COUNTER.count_many([chunk.sentence(j) for j in range(n)])),
                     sentence_terms=tuple(frozenset(terms) for _ in range(n)), sentence_vectors=vectors.astype(np.float32),
                     tokens=COUNTER.count(text))


def hash_of(text: str) -> int:
    return sum((place + 1) * ord(letter) for place, letter in enumerate(text))


def run(name: str, pool: Pool, chances: Mapping[Unit, float], *, budget: int = 100,
        by: Coefficients | None = None) -> Selection:
    return choose(pool, budget=budget, render=rendered, stop=go_on, search=FOUND_BY[name], chances=lambda _: chances,
                  coefficients=by or Coefficients(trust=1.0, coverage=0.5, redundancy=0.0, price=0.1))


@pytest.mark.parametrize("name", SEARCHES)
def test_terms_that_are_not_covered_yet_bring_in_the_second_passage(name: str) -> None:
    """The second sentence is the more likely one, but says again what the first covers."""
    pool = Pool((candidate("Ada wrote the first program.", i=0, terms=("ada",)),
                 candidate("Countess Ada wrote letters.", i=1, terms=("ada",)),
                 candidate("Babbage built the engine.", i=2, terms=("babbage",))), {"ada": 1.0, "babbage": 1.0})
    chances = {Unit(0, 0): 0.95, Unit(1, 0): 0.5, Unit(2, 0): 0.4}
    found = run(name, pool, chances, budget=24)
    assert [extract.chunk.id for extract in found.extracts] == ["c0", "c2"]


@pytest.mark.parametrize("name", SEARCHES)
def test_a_sentence_that_adds_nothing_is_left_out_though_the_budget_has_room(name: str) -> None:
    pool = Pool((candidate("Ada wrote it. The weather was fine that day in the south of the country.", i=0),), {})
    found = run(name, pool, {Unit(0, 0): 0.9, Unit(0, 1): 0.01}, budget=1000)
    assert [extract.sentences for extract in found.extracts] == [(0,)]


@pytest.mark.parametrize("name", SEARCHES)
def test_the_best_sentence_is_taken_even_if_it_costs_more_than_it_is_worth(name: str) -> None:
    pool = Pool((candidate("Nothing here helps much.", i=0), candidate("This helps a little bit.", i=1)), {})
    found = run(name, pool, {Unit(0, 0): 0.001, Unit(1, 0): 0.002})
    assert [extract.chunk.id for extract in found.extracts] == ["c1"]
    assert found.utility < 0


@pytest.mark.parametrize("name", SEARCHES)
def test_near_duplicates_never_both_enter(name: str) -> None:
    same = "Ada wrote the first program."
    first, second = candidate(f"{same} More on that.", i=0), candidate(f"Indeed. {same}", i=1)
    found = run(name, Pool((first, second), {}), {Unit(0, 0): 0.6, Unit(0, 1): 0.01, Unit(1, 0): 0.01, Unit(1, 1): 0.6},
                by=Coefficients(price=0.0))
    assert sum(same == extract.chunk.sentence(j) for extract in found.extracts for j in extract.sentences) == 1


@pytest.mark.parametrize("name", SEARCHES)
def test_passages_of_a_document_stand_together_in_its_order_under_one_heading(name: str) -> None:
    pool = Pool((candidate("Late words matter.", i=0, title="Book", doc="b", ordinal=5),
                 candidate("Other words matter.", i=1, title="Paper", doc="p"),
                 candidate("Early words matter.", i=2, title="Book", doc="b", ordinal=1)), {})
    found = run(name, pool, {Unit(0, 0): 0.5, Unit(1, 0): 0.45, Unit(2, 0): 0.4}, by=Coefficients(price=0.01))
    assert [extract.chunk.id for extract in found.extracts] == ["c2", "c0", "c1"]
    assert rendered(found.extracts).text.count("Book") == 1


@pytest.mark.parametrize("name", SEARCHES)
def test_no_candidates_and_no_budget_choose_nothing(name: str) -> None:
    assert SELECTORS[name](Pool((), {}), budget=100, render=rendered, stop=go_on).extracts == ()
    one = Pool((candidate("Ada wrote it.", i=0),), {})
    for budget in (0, 1, 7):
        found = SELECTORS[name](one, budget=budget, render=rendered, stop=go_on)
        assert (found.extracts, found.utility) == ((), 0.0)
        assert found.considered[0].why
    assert [extract.sentences for extract in SELECTORS[name](one, budget=9, render=rendered, stop=go_on).extracts] == [(0,)]


@pytest.mark.parametrize("name", SEARCHES)
def test_five_thousand_candidates_and_equal_texts(name: str) -> None:
    pool = Pool(tuple(candidate(f"Word{i % 2500} is here.", i=i, relevance=0.9 - i / 6000) for i in range(5000)), {"word": 1.0})
    found = SELECTORS[name](pool, budget=120, render=rendered, stop=go_on)
    assert 0 < rendered(found.extracts).tokens <= 120
    assert len({extract.chunk.text for extract in found.extracts}) == len(found.extracts)
    assert found.considered[2500].why == "same text as candidate 1"


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("wrong", [
    {"score": math.nan}, {"relevance": math.inf}, {"sentence_relevance": (0.5, math.nan)}, {"tokens": -3},
    {"sentence_tokens": (3, -1)},
])
def test_scores_that_are_no_numbers_and_negative_tokens_are_refused(name: str, wrong: Mapping[str, object]) -> None:
    good, bad = candidate("One is. Two is.", i=0), candidate("Three is. Four is.", i=1)
    pool = Pool((good, dataclasses.replace(bad, **wrong)), {})
    with pytest.raises(InputError, match=r"Candidate 2 \(c1\) has"):
        run(name, pool, dict.fromkeys(units(pool), 0.5))


@pytest.mark.parametrize("chance", [math.nan, -0.1, 1.1])
def test_a_chance_that_is_none_is_refused(chance: float) -> None:
    pool = Pool((candidate("One is. Two is.", i=0),), {})
    with pytest.raises(InputError, match=r"Candidate 1 \(c0\) has the chance .* of sentence 2"):
        run("lazy", pool, {Unit(0, 0): 0.5, Unit(0, 1): chance})


@pytest.mark.parametrize("name", SEARCHES)
def test_sentences_of_no_tokens_are_not_free(name: str) -> None:
    pool = Pool((dataclasses.replace(candidate("One is. Two is.", i=0), sentence_tokens=(0, 0), tokens=0),), {})
    for budget in range(1, 30):
        found = run(name, pool, dict.fromkeys(units(pool), 0.9), budget=budget)
        assert rendered(found.extracts).tokens <= budget


@pytest.mark.parametrize("name", SEARCHES)
def test_a_candidate_without_sentences_is_never_chosen(name: str) -> None:
    empty = dataclasses.replace(candidate("One.", i=0), chunk=dataclasses.replace(make_chunk("x", id="c0"), sentences=()),
                                sentence_relevance=(), sentence_tokens=(), sentence_terms=(),
                                sentence_vectors=np.zeros((0, 64), np.float32))
    pool = Pool((empty, candidate("Two is here.", i=1)), {})
    assert [extract.chunk.id for extract in run(name, pool, {Unit(1, 0): 0.5}).extracts] == ["c1"]


class SlowWorth:
    """A worth that reads texts: the time that it takes is up after so many batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches
        self.sizes: list[int] = []

    def __call__(self, sets: Sequence[int] | Ints) -> Floats:
        self.left -= 1
        self.sizes.append(len(sets))
        return np.asarray([int(bits).bit_count() - 0.01 * int(bits) for bits in sets], np.float64)

    def over(self) -> bool:
        return self.left <= 0


@pytest.mark.parametrize("name", ["lazy", "beam", "mcts"])
@pytest.mark.parametrize("batches", [1, 2, 4])
def test_a_worth_slower_than_the_deadline_gives_the_best_so_far(name: str, batches: int) -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i) for i in range(6)), {})
    worth = SlowWorth(batches)
    found = choose(pool, budget=200, render=rendered, stop=worth.over, search=FOUND_BY[name], worth=worth,
                   chances=lambda held: dict.fromkeys(units(held), 0.5))
    assert found.extracts
    assert len(worth.sizes) <= batches
    assert found.evaluations == sum(worth.sizes)
    left_out = [row.why for row in found.considered if not row.kept]
    assert all("before the search was stopped" in why for why in left_out)


@pytest.mark.parametrize("name", ["lazy", "beam", "mcts"])
def test_no_more_sets_are_asked_about_than_allowed(name: str) -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i) for i in range(6)), {})
    for limit in (1, 5, 9, 20):
        worth = SlowWorth(10_000)
        found = choose(pool, budget=200, render=rendered, stop=go_on, search=FOUND_BY[name], worth=worth, limit=limit,
                       chances=lambda held: dict.fromkeys(units(held), 0.5))
        assert sum(worth.sizes) == found.evaluations <= limit
        assert found.extracts


def test_a_set_that_is_not_proven_the_best_says_so() -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i) for i in range(14)), {})
    chances = {unit: 0.3 + 0.01 * place for place, unit in enumerate(units(pool))}

    def short(space: Space) -> None:
        exact.search(space, nodes=0)
        assert not space.proven

    choose(pool, budget=60, render=rendered, stop=go_on, search=short, chances=lambda _: chances)
    assert "not proven" not in run("exact", pool, chances, budget=60).considered[0].why


def test_branch_and_bound_refuses_a_worth_that_it_has_no_bound_for() -> None:
    pool = Pool((candidate("One is here.", i=0),), {})
    with pytest.raises(ValueError, match="bound"):
        choose(pool, budget=60, render=rendered, stop=go_on, search=exact.search, worth=SlowWorth(9),
               chances=lambda held: dict.fromkeys(units(held), 0.5))


@pytest.mark.parametrize("name", SEARCHES)
def test_a_rendering_over_the_budget_is_not_answered_whatever_the_estimate_says(name: str) -> None:
    """A counter whose tokens grow together: two passages cost more than the sum of both."""
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i) for i in range(6)), {})

    def dear(extracts: Sequence[Extract]) -> Context:
        plain = rendered(extracts)
        return dataclasses.replace(plain, tokens=plain.tokens + 7 * (len({e.chunk.id for e in extracts}) - 1))

    for budget in (9, 18, 30, 45):
        found = choose(pool, budget=budget, render=dear, stop=go_on, search=FOUND_BY[name],
                       chances=lambda held: dict.fromkeys(units(held), 0.5))
        assert 0 < dear(found.extracts).tokens <= budget


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_that_is_stopped_gives_what_it_has(name: str) -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i) for i in range(20)), {})
    for calls in range(8):
        asked = itertools.count()
        found = choose(pool, budget=120, render=rendered, stop=lambda n=calls, c=asked: next(c) >= n, search=FOUND_BY[name],
                       chances=lambda held: dict.fromkeys(units(held), 0.3))
        assert bool(found.extracts) == (calls > 0)
        assert rendered(found.extracts).tokens <= 120
        assert all(row.why for row in found.considered)
