"""The searches over sets of sentences: worth found, sets asked about, time, gap to the best, and what each brings into the context.

The pools are those of `selectors`. No reader is asked and retrieving is not in the figures. Rows:

- on 24 candidates, under each budget: milliseconds of the whole choice (chances, packing, search, order, rendering) at p50 and p95,
  the mean worth, the mean number of sets whose worth was computed, and mean tokens;
- on 12 candidates: how far each is below the best set, as a share of it, and how often branch and bound proved that;
- against the search of CARROT as published, with 10, 25 and 50 iterations, the same worth and the same sentences: the mean worth of
  the best set that it has seen, and of MCTS with a fifth of that many sets, all of them counted (so there are no completions);
- for `sentences`, `greedy` and each search: how often an answer is in the context, recall of the gold passages, tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from eval.bench import Measurement, Options, selectors
from eval.bench.selectors import Asked
from eval.metrics import answer_in_context, evidence_recall
from optimizers import SELECTORS, beam, exact, lazy, mcts, relevance
from optimizers.carrot import CarrotSettings, Tree
from optimizers.coefficients import shipped
from optimizers.context import render
from optimizers.mcts import MctsSettings
from optimizers.packed import packed
from optimizers.pool import Pool, Render
from optimizers.searching import Search
from optimizers.space import Space
from optimizers.utility import SetUtility
from rag.tokens import TokenCounter
from rag.types import OnProgress, Progress

BUDGETS = (64, 128, 256)
ITERATIONS = (10, 25, 50)
SEARCHES: dict[str, Search] = {"lazy": lazy.search, "beam": beam.search, "exact": exact.search, "mcts": mcts.search}
COMPARED = ("sentences", "greedy", *SEARCHES)
_TIMED, _SMALL = 24, 12


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    with selectors.opened(options, candidates=(options.sizes or (_TIMED,))[-1]) as kb:
        rows: list[Measurement] = []
        asked = selectors.asked(kb, options, on_progress)
        small = [Pool(row.pool.candidates[:_SMALL], row.pool.term_weights) for row in asked]
        counter = kb.reader.tokenizer
        for place, budget in enumerate(BUDGETS):
            on_progress(Progress("search", place, len(BUDGETS), "budgets"))
            rows += shown(asked, counter=counter, budget=budget)
            rows += gaps(small, counter=counter, budget=budget)
            rows += against_carrot([row.pool for row in asked], counter=counter, budget=budget)
    return rows


def shown(asked: Sequence[Asked], *, counter: TokenCounter, budget: int) -> list[Measurement]:
    """Time and calls of each selector, and what its contexts hold; on each question all run one after the other."""
    spent: dict[str, list[float]] = {name: [] for name in COMPARED}
    facts: dict[str, list[tuple[float, int, int]]] = {name: [] for name in COMPARED}
    held: dict[str, list[float]] = {name: [] for name in COMPARED}
    found: dict[str, list[float]] = {name: [] for name in COMPARED}
    for row in [*asked[:1], *asked]:        # the first one twice: what compiling and warming up take is dropped below
        for name in COMPARED:
            since = time.perf_counter()
            selection = SELECTORS[name](row.pool, budget=budget, stop=_never, render=_renderer(counter))
            spent[name].append((time.perf_counter() - since) * 1e3)
            context = render(selection.extracts, counter=counter, budget=budget)
            facts[name].append((selection.utility, selection.evaluations, context.tokens))
            has = answer_in_context(context.text, row.question.answers)
            recall = evidence_recall({passage.chunk.doc_id for passage in context.passages}, row.question.evidence)
            held[name] += [] if has is None or len(spent[name]) == 1 else [has]
            found[name] += [] if recall is None or len(spent[name]) == 1 else [recall]
    rows: list[Measurement] = []
    for name in COMPARED if asked else ():
        where = f"{name}, {budget} tokens"
        utility, calls, tokens = (float(value) for value in np.mean(facts[name][1:], axis=0))
        rows += [Measurement(f"{where}: p{percent}", float(np.percentile(spent[name][1:], percent)), "ms", len(asked))
                 for percent in (50, 95)]
        rows += [Measurement(f"{where}: tokens", tokens, "tokens", len(asked))]
        rows += [Measurement(f"{where}: {what}", float(np.mean(values)), "share", len(values))
                 for what, values in (("answer in context", held[name]), ("evidence recall", found[name])) if values]
        if name in SEARCHES:
            rows += [Measurement(f"{where}: worth", utility, "worth", len(asked)),
                     Measurement(f"{where}: asked about", calls, "sets", len(asked))]
    return rows


def gaps(pools: Sequence[Pool], *, counter: TokenCounter, budget: int) -> list[Measurement]:
    """How far below the best each search ends, where branch and bound proved the best and it is worth something."""
    below: dict[str, list[float]] = {name: [] for name in SEARCHES if name != "exact"}
    proven: list[float] = []
    for pool in pools:
        best = _explored(pool, exact.search, counter=counter, budget=budget)
        proven.append(float(best.proven))
        if best.proven and best.value > 0:
            for name, values in below.items():
                values.append((best.value - _explored(pool, SEARCHES[name], counter=counter, budget=budget).value) / best.value)
    where = f"{_SMALL} candidates, {budget} tokens"
    rows = [Measurement(f"exact, {where}: proven", float(np.mean(proven)), "share", len(proven))] if proven else []
    return rows + [Measurement(f"{name}, {where}: {what} gap", float(statistic(values)), "share", len(values))
                   for name, values in below.items() if values for what, statistic in (("mean", np.mean), ("largest", np.max))]


def against_carrot(pools: Sequence[Pool], *, counter: TokenCounter, budget: int) -> list[Measurement]:
    """Both on the same sets with the same worth; pools in which no set is worth anything say nothing and are left out."""
    rows = []
    for iterations in ITERATIONS:
        theirs, ours, calls, ahead = [], [], [], []
        for pool in pools:
            utility = _utility(pool, counter=counter, budget=budget)
            tree = carrot(utility, iterations=iterations)
            limit = len(tree.nodes) // 5
            space = Space(utility, _never, limit=limit)
            mcts.search(space, settings=MctsSettings(policy="alone"))
            values = [node.reward for node in tree.nodes]
            if not values or not space.best:
                continue
            theirs.append(max(values))
            ours.append(space.value)
            calls.append((len(tree.nodes), space.calls))
            ahead.append(float(space.value >= max(values) - 1e-12))
        where = f"{budget} tokens, {iterations} iterations"
        if ours:
            asked = np.mean(calls, axis=0).tolist()
            rows += [Measurement(f"carrot, {where}: worth", float(np.mean(theirs)), "worth", len(theirs)),
                     Measurement(f"carrot, {where}: asked about", asked[0], "sets", len(theirs)),
                     Measurement(f"mcts with a fifth, {where}: worth", float(np.mean(ours)), "worth", len(ours)),
                     Measurement(f"mcts with a fifth, {where}: asked about", asked[1], "sets", len(ours)),
                     Measurement(f"mcts with a fifth, {where}: not below", float(np.mean(ahead)), "share", len(ours))]
    return rows


def carrot(utility: SetUtility, *, iterations: int) -> Tree:
    """The published search over the rows of a packed pool, after so many iterations."""
    prices = utility.tokens([1 << row for row in range(len(utility.prepared.tokens))]).tolist()

    def reward(orders: Sequence[tuple[int, ...]]) -> list[float]:
        # A set with near-duplicates has no worth; so low a number would spoil the averages of this search for good.
        values: list[float] = np.maximum(utility([sum(1 << row for row in order) for order in orders]), -1.0).tolist()
        return values

    tree = Tree(prices, prices, utility.prepared.budget, reward, CarrotSettings(iterations=iterations))
    for _ in range(iterations if prices else 0):
        tree.iterate()
    return tree


def _utility(pool: Pool, *, counter: TokenCounter, budget: int) -> SetUtility:
    arrays, _ = packed(pool, chances=relevance.chances(pool), coefficients=shipped(), budget=budget, render=_renderer(counter))
    return SetUtility(arrays)


def _explored(pool: Pool, search: Search, *, counter: TokenCounter, budget: int) -> Space:
    space = Space(_utility(pool, counter=counter, budget=budget), _never)
    search(space)
    return space


def _renderer(counter: TokenCounter) -> Render:
    return lambda extracts: render(extracts, counter=counter)


def _never() -> bool:
    return False
