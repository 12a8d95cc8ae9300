"""What a selection tells about itself: what each part is worth, why the rest was left out, the next best set, and the way to it."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Sequence

import pytest

from optimizers import SELECTORS, greedy, relevance
from optimizers.coefficients import shipped
from optimizers.context import render
from optimizers.greedy import choose_greedily
from optimizers.packed import packed
from optimizers.pool import Pool, Unit, units
from optimizers.searching import choose
from optimizers.space import Space
from rag.types import Context, Extract, SearchPath, Selection
from tests.fakes import WordCounter
from tests.property.test_budget_law import random_pool
from tests.property.test_search_laws import slow_tokens, slow_worth
from tests.unit.test_searching import FOUND_BY, SEARCHES, SlowWorth, candidate
from tests.unit.test_searching import run as searched

COUNTER = WordCounter()


def rendered(extracts: Sequence[Extract]) -> Context:
    return render(extracts, counter=COUNTER)


def go_on() -> bool:
    return False


def picked(pool: Pool, selection: Selection) -> list[Unit]:
    places = {candidate.chunk.id: i for i, candidate in enumerate(pool.candidates)}
    return sorted(Unit(places[extract.chunk.id], j) for extract in selection.extracts for j in extract.sentences)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_marginal_is_what_the_set_loses_without_the_part(name: str) -> None:
    rng = random.Random(31)
    seen = 0
    for _ in range(40):
        pool = random_pool(rng, COUNTER)
        found = SELECTORS[name](pool, budget=150, render=rendered, stop=go_on)
        arrays, rows = packed(pool, chances=relevance.chances(pool), coefficients=shipped(), budget=150, render=rendered)
        mine = [rows.units.index(unit) for unit in picked(pool, found)]

        def worth(kept: Sequence[int], arrays=arrays) -> float:  # type: ignore[no-untyped-def]
            return slow_worth(arrays, kept, shipped())

        for i, row in enumerate(found.considered):
            if not row.kept:
                assert (row.marginal, row.sentence_marginals) == (None, ())
                continue
            without = [place for place in mine if rows.units[place].candidate != i]
            assert row.marginal == pytest.approx(worth(mine) - worth(without))
            single = [worth(mine) - worth([place for place in mine if rows.units[place] != Unit(i, j)]) for j in row.kept_sentences]
            assert list(row.sentence_marginals) == pytest.approx(single)
            seen += 1
    assert seen > 30


def test_greedy_tells_marginals_of_its_own_utility() -> None:
    rng = random.Random(32)
    for _ in range(60):
        pool = random_pool(rng, COUNTER)
        known = relevance.chances(pool)
        found = SELECTORS["greedy"](pool, budget=150, render=rendered, stop=go_on)
        total = sum(pool.term_weights.values())

        def worth(kept: Sequence[Unit], pool=pool, known=known, total=total) -> float:  # type: ignore[no-untyped-def]
            held = {u: pool.candidates[u.candidate].sentence_terms[u.sentence] for u in kept}
            cover = sum(weight * max((math.sqrt(known[u]) for u in kept if term in held[u]), default=0.0)
                        for term, weight in pool.term_weights.items())
            return 1 - math.prod(1 - known[u] for u in kept) + greedy.GAMMA * cover / total

        mine = picked(pool, found)
        assert found.utility == pytest.approx(worth(mine))
        for i, row in enumerate(found.considered):
            if row.kept:
                assert row.marginal == pytest.approx(worth(mine) - worth([u for u in mine if u.candidate != i]))


def test_the_next_best_is_the_second_of_all_sets_that_were_asked_about() -> None:
    rng = random.Random(33)
    compared = 0
    for _ in range(40):
        pool = random_pool(rng, COUNTER, most=4)
        known = relevance.chances(pool)
        arrays, rows = packed(pool, chances=known, coefficients=shipped(), budget=60, render=rendered)
        n = min(8, len(rows.units))

        def every(space: Space, n: int = n) -> None:
            space.score(range(1, 1 << n))

        found = choose(pool, budget=60, render=rendered, stop=go_on, search=every, chances=lambda _, known=known: known)
        sets = [kept for size in range(1, n + 1) for kept in itertools.combinations(range(n), size)
                if slow_tokens(arrays, kept) <= 60 and slow_worth(arrays, kept, shipped()) > -1e8]
        if len(sets) < 2:
            assert found.next_best is None
            continue
        other = found.next_best
        assert other is not None
        best, second = sorted((slow_worth(arrays, kept, shipped()) for kept in sets), reverse=True)[:2]
        assert (found.utility, other.utility) == pytest.approx((best, second))
        mine = set(picked(pool, found))
        swapped = {Unit(part.rank - 1, j) for part in other.removed for j in part.sentences}
        assert swapped <= mine
        theirs = sorted(rows.units.index(unit) for unit in mine - swapped | {
            Unit(part.rank - 1, j) for part in other.added for j in part.sentences})
        assert slow_worth(arrays, theirs, shipped()) == pytest.approx(other.utility)
        assert slow_tokens(arrays, theirs) == other.tokens
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("name", SEARCHES)
def test_what_was_left_out_says_why(name: str) -> None:
    same = "Ada wrote the first program."
    pool = Pool((candidate(f"{same} More on that.", i=0), candidate(f"Indeed. {same}", i=1),
                 candidate("Nothing here is of any use to anybody who asks.", i=2),
                 candidate("It is " + "very " * 80 + "long.", i=3), candidate("Grace wrote a compiler.", i=4)), {})
    chances = dict.fromkeys(units(pool), 0.01) | {Unit(0, 0): 0.6, Unit(1, 1): 0.6, Unit(4, 0): 0.5}
    rows = searched(name, pool, chances, budget=60).considered
    assert [row.kept for row in rows] == [True, False, False, False, True]
    assert rows[0].why.startswith("1 of 2 sentences: the choice would be worth 0.")
    assert rows[1].why.startswith(("says the same as candidate 1", "its best sentence would add -0."))
    assert rows[2].why.startswith(("its best sentence would add -0.", "no sentence can be worth its tokens"))
    assert rows[3].why == "its shortest sentence takes 84 tokens, more than the budget of 60"
    assert [row.chance for row in rows] == [0.6, 0.6, 0.01, 0.01, 0.5]


def test_greedy_says_why_it_left_something_out() -> None:
    same = "Ada wrote the first program."
    pool = Pool((candidate(same, i=0), candidate(f"{same} Yes.", i=1), candidate("Nothing here is of any use to anybody.", i=2),
                 candidate("It is " + "very " * 80 + "long.", i=3)), {})
    chances = {Unit(0, 0): 0.6, Unit(1, 0): 0.6, Unit(2, 0): 0.001, Unit(3, 0): 0.9}
    rows = choose_greedily(pool, budget=60, render=rendered, stop=go_on, chances=lambda _: chances).considered
    assert [row.kept for row in rows] == [True, False, False, False]
    assert rows[1].why == "says the same as candidate 1"
    assert rows[2].why.startswith("its best sentence would add 0.0004, and its 9 tokens cost 0.0135")
    assert "did not fit" in rows[3].why


@pytest.mark.parametrize("name", SELECTORS)
def test_the_way_is_told_once_and_changes_nothing(name: str) -> None:
    rng = random.Random(34)
    for _ in range(25):
        pool = random_pool(rng, COUNTER)
        ways: list[SearchPath] = []
        watched = SELECTORS[name](pool, budget=90, render=rendered, stop=go_on, watch=ways.append)
        assert watched == SELECTORS[name](pool, budget=90, render=rendered, stop=go_on)
        [way] = ways
        assert way.budget == 90
        assert (way.chosen is None) == (not watched.extracts)
        if way.chosen is not None:
            assert way.chosen[1] == pytest.approx(watched.utility)
            assert way.chosen[0] >= rendered(watched.extracts).tokens
        assert (way.next_best is None) == (watched.next_best is None)
        if way.growth:
            assert way.growth[-1] == way.chosen
            assert [x for x, _ in way.growth] == sorted(x for x, _ in way.growth)
        if name in SEARCHES and way.asked:
            assert max(value for _, value in way.asked) == pytest.approx(watched.utility)
            assert all(tokens <= 90 for tokens, _ in way.asked)
            assert way.greedy is not None
            assert len(way.asked) + way.unlisted == watched.evaluations


def test_a_worth_that_reads_texts_is_not_asked_for_the_trace() -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i) for i in range(6)), {})
    worth = SlowWorth(10_000)
    ways: list[SearchPath] = []
    found = choose(pool, budget=200, render=rendered, stop=go_on, search=FOUND_BY["lazy"], worth=worth, watch=ways.append,
                   chances=lambda held: dict.fromkeys(units(held), 0.5))
    assert sum(worth.sizes) == found.evaluations
    assert ways[0].greedy is None
    # The set function says something else of these sets; what is told is the difference of what was asked about.
    kept = [row for row in found.considered if row.kept]
    assert any(row.marginal is not None for row in kept)
    assert all(row.marginal is None or row.marginal == pytest.approx(1 - 0.01 * 2 ** (row.rank - 1)) for row in kept)


def test_a_selection_is_json() -> None:
    rng = random.Random(35)
    for name in SELECTORS:
        found = SELECTORS[name](random_pool(rng, COUNTER), budget=90, render=rendered, stop=go_on)
        for row in found.considered:
            told = json.loads(json.dumps(row.to_dict()))
            assert {"chance", "marginal", "sentence_marginals"} <= set(told)
            assert len(told["sentence_marginals"]) in (0, len(told["kept_sentences"]))
        if found.next_best is not None:
            assert set(json.loads(json.dumps(found.next_best.to_dict()))) == {"utility", "tokens", "added", "removed"}


@pytest.mark.parametrize(("name", "of"), [("topk", "score"), ("topk_whole", "score"), ("knapsack", "relevance")])
def test_sums_tell_what_each_part_adds(name: str, of: str) -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i, relevance=0.9 - i / 10) for i in range(4)), {})
    found = SELECTORS[name](pool, budget=25, render=rendered, stop=go_on)
    assert [row.marginal for row in found.considered] == [getattr(row, of) if row.kept else None for row in found.considered]
    assert found.utility == pytest.approx(sum(row.marginal or 0.0 for row in found.considered))


def test_the_second_answer_of_carrot_is_its_next_best() -> None:
    pool = Pool(tuple(candidate(f"Name{i} is here.", i=i, relevance=0.9 - i / 10) for i in range(4)), {})
    found = SELECTORS["carrot"](pool, budget=100, render=rendered, stop=go_on)
    assert found.next_best is not None
    assert found.next_best.utility <= found.utility
    assert found.next_best.tokens <= 100
    assert found.next_best.added != found.next_best.removed
