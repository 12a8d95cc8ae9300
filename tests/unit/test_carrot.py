"""The search of CARROT by example: a small tree by hand, what its defects do, and what a reward asks of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import pytest

from optimizers.carrot import PUBLISHED, RELEASED, CarrotSettings, Tree, choose_by_carrot
from optimizers.pool import Pool
from optimizers.rewards import Reward, by_concatenation
from rag.types import Selection
from tests.unit.test_selectors import candidate, kept, rendered

Worth = Callable[[tuple[int, ...]], float]


class Counting:
    """A reward that remembers its batches."""

    def __init__(self, worth: Worth) -> None:
        self._worth = worth
        self.batches: list[list[tuple[int, ...]]] = []

    def __call__(self, orders: Sequence[tuple[int, ...]]) -> Sequence[float]:
        self.batches.append(list(orders))
        return [self._worth(order) for order in orders]


def pool_of(count: int) -> Pool:
    """Chunks of 9 tokens each when rendered."""
    return Pool(tuple(candidate(f"Chunk number {name}.", .5, name=name) for name in "abcdefghijklmnopqrstuvwx"[:count]), {})


def search(pool: Pool, reward: Reward, *, budget: int = 1000, **changes: object) -> Selection:
    return choose_by_carrot(pool, budget=budget, render=rendered, stop=lambda: False, reward=reward,
                            settings=dataclasses.replace(PUBLISHED, **changes))  # type: ignore[arg-type]


def tree(worth: Worth, *, prices: Sequence[int] = (10, 10, 10), budget: int = 100, settings: CarrotSettings = PUBLISHED,
         iterations: int) -> Tree:
    found = Tree(prices, prices, budget, Counting(worth), settings)
    for _ in range(iterations):
        found.iterate()
    return found


def singles(order: tuple[int, ...]) -> float:
    """Three chunks of worth .5, .8 and .2; each further one takes .1."""
    return (.5, .8, .2)[order[0]] - .1 * (len(order) - 1)


def test_three_iterations_by_hand() -> None:
    found = tree(singles, iterations=1)
    assert {node.order: (node.value, node.visits) for node in found.nodes} == {(0,): (.5, 1), (1,): (.8, 1), (2,): (.2, 1)}
    assert (found.root.value, found.root.visits) == (.8, 1)    # only the best child goes up
    found.iterate()     # ln 1 = 0: the best single chunk is opened
    one = found.nodes[1]
    assert [child.order for child in one.children or ()] == [(1, 0), (1, 2)]
    assert (one.value, one.visits, found.root.visits) == (pytest.approx(1.5), 2, 2)
    assert found.utility(one, total=2) == pytest.approx(.75 + 2.4 * math.sqrt(math.log(2) / 2) - .1 * .1)
    assert found.utility(found.nodes[0], total=2) == pytest.approx(.5 + 2.4 * math.sqrt(math.log(2)) - .1 * .1)
    found.iterate()     # so the next single one is opened, and not the second of the best
    assert found.nodes[0].children
    assert found.answers()[0].order == (1,)


def test_the_published_constant_never_looks_at_three_chunks_and_a_small_one_does() -> None:
    bonus = {3: .6, 7: .5, 11: .4, 15: .3}

    def growing(order: tuple[int, ...]) -> float:
        return min(1.0, sum(bonus.get(i, 0.0) for i in order) / 1.8 + .05 * (order[0] == 3))

    deepest = {c: max(len(node.order) for node in tree(growing, prices=[10] * 24, budget=1000, iterations=20,
                                                       settings=CarrotSettings(exploration=c)).nodes) for c in (2.4, 0.1)}
    assert deepest[2.4] == 2
    assert deepest[0.1] > 3


def test_the_reward_reads_one_batch_an_iteration_and_every_text_once() -> None:
    reward = Counting(lambda order: 1 / (1 + sum(order)))
    found = search(pool_of(24), reward, iterations=10)
    assert [len(batch) for batch in reward.batches] == [24] + [23] * 9
    assert found.evaluations == 24 + 9 * 23 == len({order for batch in reward.batches for order in batch})


def test_more_is_not_taken_when_it_is_worth_less() -> None:
    found = search(pool_of(3), Counting(singles), iterations=50)
    assert kept(found) == [("b", (0,))]
    assert found.utility < .8     # the mean of what was seen below it, as published
    assert search(pool_of(3), Counting(singles), iterations=50, answer="own").utility == .8
    assert found.considered[0].why == "not in the best of the 15 combinations that were looked at"


def test_the_order_that_is_worth_more_is_kept() -> None:
    worth = {(0,): .3, (1,): .4, (0, 1): .8, (1, 0): .9}
    assert [doc for doc, _ in kept(search(pool_of(2), Counting(worth.__getitem__), answer="own"))] == ["b", "a"]
    worth = {(0,): .3, (1,): .4, (0, 1): .9, (1, 0): .8}
    assert [doc for doc, _ in kept(search(pool_of(2), Counting(worth.__getitem__), answer="own"))] == ["a", "b"]


def test_children_over_the_budget_are_paid_for_only_by_the_released_code() -> None:
    reward = Counting(lambda order: float(len(order)))
    found = search(pool_of(4), reward, budget=9, iterations=5)
    assert len(found.extracts) == 1
    assert found.evaluations == 4
    wasteful = search(pool_of(4), Counting(lambda order: float(len(order))), budget=9, iterations=5, expand="all", answer="own")
    assert len(wasteful.extracts) == 1
    assert wasteful.evaluations > 4


def test_bad_children_dilute_their_parents_in_the_released_code() -> None:
    def worth(order: tuple[int, ...]) -> float:
        return {(0,): .5, (1,): .45, (0, 1): .9}.get(order, 0.0)

    best = tree(worth, iterations=2, settings=CarrotSettings(backup="best")).nodes[0]
    every = tree(worth, iterations=2, settings=CarrotSettings(backup="every")).nodes[0]
    assert best.value / best.visits == pytest.approx((.5 + .9) / 2)
    assert every.value / every.visits == pytest.approx((.5 + .9 + 0) / 3)


def test_rewards_can_be_brought_to_one_scale() -> None:
    def logits(order: tuple[int, ...]) -> float:
        return (-4.0, 6.0, -900.0)[order[0]]

    def rewards(scale: str) -> list[float]:
        settings = CarrotSettings(scale=scale)  # type: ignore[arg-type]
        return [node.reward for node in tree(logits, iterations=1, settings=settings).nodes]

    assert rewards("given") == [-4.0, 6.0, -900.0]
    assert rewards("logistic") == pytest.approx([1 / (1 + math.exp(4)), 1 / (1 + math.exp(-6)), 0.0])
    assert rewards("range") == pytest.approx([896 / 906, 1.0, 0.0])
    flat = tree(lambda _: 3.0, iterations=1, settings=CarrotSettings(scale="range"))
    assert [node.reward for node in flat.nodes] == [1.0, 1.0, 1.0]


def test_only_the_best_candidates_are_searched_when_asked() -> None:
    found = search(pool_of(6), Counting(lambda order: float(sum(order))), candidates=2, iterations=1)
    assert kept(found) == [("b", (0,))]
    assert found.considered[4].why == "only the best 2 are searched"


def test_words_are_charged_where_the_released_code_does() -> None:
    # Both are worth the same. The first has fewer tokens, the second fewer words, and dear ones are opened last.
    pool = Pool((candidate("Of five words, no more.", .5, name="a"), candidate("a-b-c-d-e-f-g-h.", .5, name="b")), {})
    opened = {}
    for cost in ("tokens", "words"):
        reward = Counting(lambda order: 1.0)
        search(pool, reward, budget=60, exploration=0.0, cost_weight=1.0, iterations=2, cost=cost)
        opened[cost] = reward.batches[1]
    assert opened == {"tokens": [(0, 1)], "words": [(1, 0)]}
    assert (PUBLISHED.cost, RELEASED.cost) == ("tokens", "words")


def test_nothing_is_searched_without_a_budget_or_candidates() -> None:
    reward = Counting(lambda order: 1.0)
    assert search(pool_of(3), reward, budget=0).extracts == ()
    assert search(pool_of(0), reward).extracts == ()
    assert reward.batches == []
    assert kept(search(pool_of(1), reward)) == [("a", (0,))]


def test_a_candidate_of_the_same_text_is_never_asked_about() -> None:
    pool = Pool((candidate("The same.", .5, name="a"), candidate("The same.", .5, name="b"),
                 candidate("Another.", .5, name="c")), {})
    reward = Counting(lambda order: float(len(order)))
    assert sorted(kept(search(pool, reward, answer="own"))) == [("a", (0,)), ("c", (0,))]
    assert {i for batch in reward.batches for order in batch for i in order} == {0, 2}


def test_the_built_in_reward_is_the_cosine_to_the_mean_of_the_sentences() -> None:
    # The question is (1, 0): each cosine is the first part of a vector.
    pool = Pool((candidate("Near.", .8, name="a", vectors=[[.8, .6]]), candidate("Mirrored.", .8, name="b", vectors=[[.8, -.6]]),
                 candidate("Far. Farther.", 0.0, -.6, name="c", vectors=[[0, 1], [-.6, .8]])), {})
    reward = by_concatenation(pool)
    assert reward([(0,), (1,), (2,)]) == pytest.approx([.8, .8, -.6 / math.hypot(.6, 1.8)])
    assert reward([(0, 1), (1, 0)]) == pytest.approx([1.0, 1.0])                # together they are the question
    assert reward([(0, 2)]) == pytest.approx([.2 / math.hypot(.2, 2.4)])       # and what is far takes away
    assert list(reward([])) == []
    assert [doc for doc, _ in kept(choose_by_carrot(pool, budget=100, render=rendered, stop=lambda: False))] == ["a", "b"]
