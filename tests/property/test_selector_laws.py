"""Laws of the selectors over random pools: each agrees with a slow version that follows its definition to the letter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers import SELECTORS
from optimizers.adagres import AdagresSettings, choose_by_adagres
from optimizers.carrot import CarrotSettings, Tree, choose_by_carrot
from optimizers.context import render
from optimizers.knapsack import choose_by_knapsack
from optimizers.mmr import choose_by_mmr
from optimizers.pool import Candidate, Pool, duplicates
from rag.tokens import FileTokenizer, TokenCounter
from rag.types import Context, Extract, whole
from tests.fakes import WordCounter, make_chunk

COUNTER = WordCounter()
WHOLE = ("topk_whole", "mmr", "knapsack", "adagres", "carrot")
Weights = st.floats(0, 1, allow_subnormal=False)
Budgets = st.one_of(st.integers(0, 60), st.integers(0, 400))


def rendered(extracts: Sequence[Extract]) -> Context:
    return render(extracts, counter=COUNTER)


def go_on() -> bool:
    return False


def mean_vector(candidate: Candidate) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    total = np.sum([row.astype(float) for row in candidate.sentence_vectors], axis=0)
    return np.asarray(total / max(float(np.linalg.norm(total)), 1e-9))


def likeness(pool: Pool, i: int, j: int) -> float:
    return float(mean_vector(pool.candidates[i]) @ mean_vector(pool.candidates[j]))


def held(pool: Pool, chosen: Sequence[int], budget: int) -> bool:
    return rendered([whole(pool.candidates[i].chunk) for i in chosen]).tokens <= budget


def kept(pool: Pool, extracts: Sequence[Extract]) -> list[int]:
    places = {candidate.chunk.id: i for i, candidate in enumerate(pool.candidates)}
    assert all(extract.whole for extract in extracts)
    return [places[extract.chunk.id] for extract in extracts]


@st.composite
def pools(draw: st.DrawFn, *, most: int = 7, titles: Sequence[str] = ("",), counter: TokenCounter = COUNTER,
          ties: bool = True) -> Pool:
    """Chunks of one to four sentences with few different relevances and vectors, so that many are equal or alike; without
    `ties` no two are equal, so that rounding decides nothing."""
    candidates = []
    for i in range(draw(st.integers(0, most))):
        lengths = draw(st.lists(st.integers(1, 15), min_size=1, max_size=4))
        # A word of its own for each chunk, except for some: those are duplicates.
        name = f"name{draw(st.sampled_from((i, i, i, 0)))}"
        text = " ".join(" ".join([name.capitalize(), *["word"] * length]) + "." for length in lengths)
        chunk = make_chunk(text, id=f"d{i}:0:0", doc_id=f"d{i}", title=draw(st.sampled_from(titles)))
        n = len(chunk.sentences)
        vectors = np.asarray(draw(st.lists(st.tuples(*[st.integers(-2, 3)] * 3), min_size=n, max_size=n)), np.float32) + 0.1
        relevance = draw(st.sampled_from((-0.2, 0.0, 0.1, 0.25, 0.5, 0.5, 0.75, 0.9)))
        if not ties:
            own = np.random.default_rng(i)
            relevance += own.uniform(0.001, 0.02)
            vectors += own.normal(0, 0.1, vectors.shape).astype(np.float32)
        candidates.append(Candidate(
            chunk=chunk, score=1 / (i + 1), relevance=relevance, tokens=counter.count(text),
            sentence_relevance=tuple(relevance + 0.05 * (j - 1) for j in range(n)),
            sentence_tokens=tuple(counter.count_many([chunk.sentence(j) for j in range(n)])),
            sentence_terms=tuple(frozenset({"word"}) for _ in range(n)),
            sentence_vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
    return Pool(tuple(candidates), {"word": 1.0})


@given(pools(), Budgets)
@settings(deadline=None)
def test_the_knapsack_is_as_good_as_the_best_of_all_sets(pool: Pool, budget: int) -> None:
    different = [i for i in range(len(pool.candidates)) if i not in duplicates(pool)]
    best = max(sum(pool.candidates[i].relevance for i in chosen)
               for size in range(len(different) + 1) for chosen in itertools.combinations(different, size)
               if held(pool, chosen, budget))
    found = choose_by_knapsack(pool, budget=budget, render=rendered, stop=go_on)
    assert found.utility == pytest.approx(best)
    assert found.utility == pytest.approx(sum(pool.candidates[i].relevance for i in kept(pool, found.extracts)))


@given(pools(most=12, titles=("", "One", "Two words")), Budgets)
@settings(deadline=None)
def test_the_knapsack_is_never_worse_than_taking_by_relevance_per_token(pool: Pool, budget: int) -> None:
    prices = [rendered([whole(candidate.chunk)]).tokens for candidate in pool.candidates]
    taken: list[int] = []
    for i in sorted(range(len(prices)), key=lambda i: (-pool.candidates[i].relevance / prices[i], i)):
        if i not in duplicates(pool) and pool.candidates[i].relevance > 0 and sum(prices[j] for j in [*taken, i]) <= budget:
            taken.append(i)
    found = choose_by_knapsack(pool, budget=budget, render=rendered, stop=go_on)
    assert found.utility >= sum(pool.candidates[i].relevance for i in taken) - 1e-9
    more = choose_by_knapsack(pool, budget=budget + 7, render=rendered, stop=go_on)
    assert more.utility >= found.utility - 1e-9


@given(pools(titles=("", "One"), ties=False), Budgets, Weights)
@settings(deadline=None)
def test_mmr_takes_what_its_formula_says(pool: Pool, budget: int, weight: float) -> None:
    remaining = [i for i in range(len(pool.candidates)) if i not in duplicates(pool)]
    taken: list[int] = []
    while remaining:
        worth = {i: weight * pool.candidates[i].relevance
                 - (1 - weight) * max((likeness(pool, i, j) for j in taken), default=0.0) for i in remaining}
        best = max(remaining, key=worth.__getitem__)
        remaining.remove(best)
        if held(pool, [*taken, best], budget):
            taken.append(best)
    found = choose_by_mmr(pool, budget=budget, render=rendered, stop=go_on, weight=weight)
    assert kept(pool, found.extracts) == taken


@given(pools(titles=("", "One")), Budgets)
@settings(deadline=None)
def test_mmr_of_weight_one_is_the_order_of_relevance(pool: Pool, budget: int) -> None:
    taken: list[int] = []
    for i in sorted(range(len(pool.candidates)), key=lambda i: (-pool.candidates[i].relevance, i)):
        if i not in duplicates(pool) and held(pool, [*taken, i], budget):
            taken.append(i)
    found = choose_by_mmr(pool, budget=budget, render=rendered, stop=go_on, weight=1.0)
    assert kept(pool, found.extracts) == taken


@given(pools(titles=("", "One"), ties=False), Budgets, st.sampled_from((0.5, 1.0)), st.sampled_from((0.0, 0.5, 1.0)))
@settings(deadline=None)
def test_adagres_takes_what_its_formula_says(pool: Pool, budget: int, kappa: float, exponent: float) -> None:
    remaining = [i for i in range(len(pool.candidates)) if i not in duplicates(pool)]
    relevance = {i: max(0.0, pool.candidates[i].relevance) for i in remaining}
    like = {(i, j): max(0.0, likeness(pool, i, j)) for i in remaining for j in remaining if i != j}
    beta = 0.0
    if remaining:
        expected = budget / np.mean([pool.candidates[i].tokens for i in remaining])
        between = np.mean(list(like.values())) if like else 0.0
        beta = float(np.mean(list(relevance.values())) / (kappa * max(expected - 1, 0.0) * between + 1e-6))
    taken: list[int] = []
    while remaining:
        gains = {i: relevance[i] - beta * sum(like[i, j] for j in taken) for i in remaining}
        worth = {i: gains[i] / pool.candidates[i].tokens ** exponent for i in remaining}
        best = max(remaining, key=worth.__getitem__)
        if gains[best] <= 0:
            break
        remaining.remove(best)
        if held(pool, [*taken, best], budget):
            taken.append(best)
    found = choose_by_adagres(pool, budget=budget, render=rendered, stop=go_on,
                              settings=AdagresSettings(kappa=kappa, cost_exponent=exponent))
    total = sum(relevance[i] for i in kept(pool, found.extracts)) - beta * sum(
        like[i, j] for i, j in itertools.combinations(kept(pool, found.extracts), 2))
    assert found.utility == pytest.approx(total, abs=1e-7 * max(1.0, beta))
    assert kept(pool, found.extracts) == taken


class Slow:
    """CARROT as a table of visits and values by combination, with nothing kept that could be computed again."""

    def __init__(self, prices: Sequence[int], budget: int, given: CarrotSettings) -> None:
        self.prices, self.budget, self.given = prices, budget, given
        self.visits: dict[tuple[int, ...], int] = {(): 0}
        self.values: dict[tuple[int, ...], float] = {(): 0.0}
        self.expanded: set[tuple[int, ...]] = set()

    def children(self, node: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [child for child in self.visits if len(child) == len(node) + 1 and child[:-1] == node]

    def utility(self, node: tuple[int, ...]) -> float:
        total = self.visits[()] if self.given.total == "root" else self.visits[node[:-1]]
        return (self.values[node] / self.visits[node] + self.given.exploration * math.sqrt(math.log(total) / self.visits[node])
                - self.given.cost_weight * sum(self.prices[i] for i in node) / self.budget)

    def iterate(self) -> None:
        node: tuple[int, ...] = ()
        while self.children(node):
            node = max(self.children(node), key=self.utility)
        new = [] if node in self.expanded else [
            (*node, i) for i in range(len(self.prices)) if i not in node
            and (self.given.expand == "all" or sum(self.prices[j] for j in (*node, i)) <= self.budget)]
        self.expanded.add(node)
        for child in new:
            self.visits[child], self.values[child] = 1, toy(child)
        gained = [toy(child) for child in new] or [toy(node)]
        if self.given.backup == "best":
            gained = [max(gained)]
        for depth in range(len(node) + 1):
            self.visits[node[:depth]] += len(gained)
            self.values[node[:depth]] += sum(gained)


def toy(order: tuple[int, ...]) -> float:
    """In (0, 1), neither additive nor monotone, and different for different orders."""
    if not order:
        return 0.0
    mixed = sum((place + 1.5) * (i + 1) ** 1.3 for place, i in enumerate(order))
    return (mixed * 0.6180339887) % 1.0


carrots = st.builds(CarrotSettings, exploration=st.sampled_from((0.0, 0.2, 2.4)), cost_weight=st.sampled_from((0.0, 0.1, 1.0)),
                    backup=st.sampled_from(("best", "every")), answer=st.sampled_from(("mean", "own")),
                    total=st.sampled_from(("root", "parent")), expand=st.sampled_from(("fitting", "all")))


@given(st.lists(st.integers(1, 30), max_size=5), st.integers(1, 80), st.integers(0, 30), carrots)
@settings(deadline=None)
def test_carrot_keeps_the_visits_and_values_of_its_definition(prices: list[int], budget: int, iterations: int,
                                                              chosen: CarrotSettings) -> None:
    tree = Tree(prices, prices, budget, lambda orders: [toy(order) for order in orders], chosen)
    slow = Slow(prices, budget, chosen)
    for _ in range(iterations):
        tree.iterate()
        slow.iterate()
    assert {node.order: node.visits for node in (tree.root, *tree.nodes)} == slow.visits
    assert {node.order: node.value for node in tree.nodes} == pytest.approx({k: v for k, v in slow.values.items() if k})
    fit = [order for order in slow.visits if order and sum(prices[i] for i in order) <= budget]
    answers = tree.answers()
    assert sorted(node.order for node in answers) == sorted(fit)
    if answers:
        best = max(slow.values[order] / slow.visits[order] if chosen.answer == "mean" else toy(order) for order in fit)
        first = answers[0]
        assert (first.value / first.visits if chosen.answer == "mean" else first.reward) == pytest.approx(best)


@given(pools(most=5), Budgets, carrots)
@settings(deadline=None)
def test_carrot_finds_the_best_order_of_all_when_it_may_look_at_all(pool: Pool, budget: int, chosen: CarrotSettings) -> None:
    everything = CarrotSettings(exploration=chosen.exploration, answer="own", iterations=400, cost_weight=0.0)
    found = choose_by_carrot(pool, budget=budget, render=rendered, stop=go_on, settings=everything,
                             reward=lambda orders: [toy(order) for order in orders])
    different = [i for i in range(len(pool.candidates)) if i not in duplicates(pool)]
    orders = [order for size in range(1, len(different) + 1) for order in itertools.permutations(different, size)
              if held(pool, order, budget)]
    assert found.evaluations <= len(orders)
    if found.evaluations == len(orders):
        assert found.utility == pytest.approx(max(map(toy, orders), default=0.0))
    if found.extracts:
        assert toy(tuple(kept(pool, found.extracts))) == pytest.approx(found.utility)


@pytest.mark.parametrize("name", SELECTORS)
@given(pool=pools(titles=("", "One", "Two words")), budget=Budgets)
@settings(max_examples=50, deadline=None)
def test_a_repeated_text_at_the_end_changes_nothing(name: str, pool: Pool, budget: int) -> None:
    if not pool.candidates:
        return
    copy = make_chunk(pool.candidates[0].chunk.text, id="copy:0:0", doc_id="copy")
    first = pool.candidates[0]
    again = Candidate(chunk=copy, score=0.0, relevance=first.relevance, sentence_relevance=first.sentence_relevance,
                      sentence_tokens=first.sentence_tokens, sentence_terms=first.sentence_terms,
                      sentence_vectors=first.sentence_vectors, tokens=first.tokens)
    longer = Pool((*pool.candidates, again), pool.term_weights)
    before = SELECTORS[name](pool, budget=budget, render=rendered, stop=go_on)
    after = SELECTORS[name](longer, budget=budget, render=rendered, stop=go_on)
    assert before.extracts == after.extracts
    assert after.considered[-1].why == "same text as candidate 1"


@pytest.mark.parametrize("name", WHOLE)
@given(pool=pools(titles=("", "One")), budget=Budgets, calls=st.integers(0, 12))
@settings(max_examples=50, deadline=None)
def test_a_search_that_is_stopped_gives_what_it_has(name: str, pool: Pool, budget: int, calls: int) -> None:
    asked = itertools.count()
    found = SELECTORS[name](pool, budget=budget, render=rendered, stop=lambda: next(asked) >= calls)
    assert rendered(found.extracts).tokens <= budget
    assert all(extract.whole for extract in found.extracts)
    assert calls > 0 or not found.extracts
    assert len(found.considered) == len(pool.candidates)
    assert all(row.why for row in found.considered)


@pytest.mark.parametrize("name", SELECTORS)
def test_marks_of_two_digits_do_not_break_the_budget(name: str, reader_folder: Path) -> None:
    """The reader's tokenizer counts each digit of a mark, so more than nine short passages cost more than their sum."""
    counter = FileTokenizer(reader_folder / "tokenizer.json")

    @settings(max_examples=60, deadline=None)
    @given(pool=pools(most=30, titles=("", "", "One"), counter=counter), budget=st.integers(60, 500))
    def law(pool: Pool, budget: int) -> None:
        found = SELECTORS[name](pool, budget=budget, stop=go_on, render=lambda extracts: render(extracts, counter=counter))
        render(found.extracts, counter=counter, budget=budget)      # raises if over

    law()
