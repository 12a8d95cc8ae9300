"""CARROT, first published as CORAG (arXiv 2411.00744): Monte Carlo tree search over ordered combinations of whole chunks.

A node of the tree is an ordered combination; a child appends one chunk that is not in it yet. One iteration:

1. Selection: from the root to the child of the largest utility, until a node that was not expanded yet:

       U(v) = V(v) / N(v)  +  C * sqrt(ln N / N(v))  -  lambda * cost(v) / B

2. Expansion of all its children that the budget B holds, at once.
3. Simulation without a rollout: the reward of every new child, in one batch. It begins with V = its reward and N = 1.
4. Back-propagation of the largest of those rewards alone: V += it and N += 1 for the node and all above it.

After a number of iterations the answer is the node of the largest V/N. It may be far below the budget: more can be worse.
There is nothing random in it. The defaults of `CarrotSettings` are the search as the paper describes it, with C, lambda and the
iterations of the authors' demonstration; `RELEASED` is what their released code does instead, each difference an option.

What the paper does not say: a node that has no children, because nothing more fits, is visited again with its own reward (in
the released code all further iterations are lost to it). What we add: candidates of equal text enter once, and the answer is
the best node whose rendered context holds the budget. The paper's reward is a cross-encoder on the concatenated text; the
registered selector asks no model and uses `rewards.by_concatenation`. With rewards in [0, 1] the published C outweighs every
difference between them: every iteration opens another single chunk, and none looks at three together while there are single
ones to open. A C of 0.1 to 0.3 goes deeper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from optimizers.pool import Clock, Pool, Render, Watch, refused
from optimizers.rewards import Reward, by_concatenation
from optimizers.trace import difference
from optimizers.whole import price, readable, selected, wholes
from rag.types import NextBest, SearchPath, Selection


@dataclass(frozen=True, slots=True)
class CarrotSettings:
    """The defaults are the published search; every other choice of a Literal is a defect or difference of the released code."""

    exploration: float = 2.4            # C
    cost_weight: float = 0.1            # lambda
    iterations: int = 10
    candidates: int | None = None       # the best of the pool that are searched; None: all. The authors retrieve 60
    backup: Literal["best", "every"] = "best"       # every: all new children's rewards go up, and their averages are diluted
    answer: Literal["mean", "own"] = "mean"         # own: the largest reward of a node itself, then visits, then depth
    total: Literal["root", "parent"] = "root"       # N: visits of the root, or of the node's parent
    expand: Literal["fitting", "all"] = "fitting"   # all: children over the budget are opened and paid for too, never answered
    cost: Literal["tokens", "words"] = "tokens"     # words: cost(v) is in words, though B is in tokens
    # As the reward gives them, or brought to [0, 1]: logits by the logistic function, or the single chunks' range stretched.
    scale: Literal["given", "logistic", "range"] = "given"


PUBLISHED = CarrotSettings()
RELEASED = CarrotSettings(backup="every", answer="own", total="parent", expand="all", cost="words")


@dataclass(slots=True, eq=False)
class Node:
    """An ordered combination, by places in the list that is searched."""

    order: tuple[int, ...]
    price: int                          # tokens
    charge: int                         # what U charges, in the unit of `CarrotSettings.cost`
    parent: Node | None
    reward: float = 0.0
    value: float = 0.0                  # V
    visits: int = 0                     # N
    children: list[Node] | None = None  # None: not expanded

    def path(self) -> Iterator[Node]:
        """This node and all above it, the root last."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


@dataclass(slots=True)
class Tree:
    """The state of one search. `nodes`: all that were scored, in the order of their making."""

    prices: Sequence[int]
    charges: Sequence[int]
    budget: int
    reward: Reward
    settings: CarrotSettings
    root: Node = field(default_factory=lambda: Node((), 0, 0, None))
    nodes: list[Node] = field(default_factory=list)
    bounds: tuple[float, float] | None = None

    def iterate(self) -> None:
        node = self._select()
        children = self._expand(node) if node.children is None else []
        if not children:
            self._back_up(node, [node.reward])
        elif self.settings.backup == "best":
            self._back_up(node, [max(child.reward for child in children)])
        else:
            self._back_up(node, [child.reward for child in children])

    def answers(self) -> list[Node]:
        """The nodes that the budget holds by their prices, best first; of equal ones the one that was made earlier."""
        held = [node for node in self.nodes if node.price <= self.budget]
        if self.settings.answer == "mean":
            return sorted(held, key=lambda node: -node.value / node.visits)
        return sorted(held, key=lambda node: (-node.reward, -node.visits, -len(node.order)))

    def worth(self, node: Node) -> float:
        """What decides about an answer: V/N, or its own reward."""
        return node.value / node.visits if self.settings.answer == "mean" else node.reward

    def marginals(self, node: Node | None, allowed: Sequence[int]) -> dict[int, float]:
        """What its reward loses without each of its candidates, where the tree holds that combination in the same order."""
        if node is None:
            return {}
        rewards = {known.order: known.reward for known in self.nodes} | {(): 0.0}
        without = {place: tuple(other for other in node.order if other != place) for place in node.order}
        return {allowed[place]: node.reward - rewards[order] for place, order in without.items() if order in rewards}

    def utility(self, node: Node, *, total: int) -> float:
        settings = self.settings
        explored = settings.exploration * math.sqrt(math.log(total) / node.visits)
        return node.value / node.visits + explored - settings.cost_weight * node.charge / self.budget

    def _select(self) -> Node:
        node = self.root
        while node.children:
            total = self.root.visits if self.settings.total == "root" else node.visits
            node = max(node.children, key=lambda child: self.utility(child, total=total))
        return node

    def _expand(self, node: Node) -> list[Node]:
        node.children = [Node((*node.order, i), node.price + price, node.charge + charge, node)
                         for i, (price, charge) in enumerate(zip(self.prices, self.charges, strict=True)) if i not in node.order
                         if self.settings.expand == "all" or node.price + price <= self.budget]
        if node.children:
            rewards = self._scaled(self.reward([child.order for child in node.children]))
            for child, reward in zip(node.children, rewards, strict=True):
                child.reward = child.value = reward
                child.visits = 1
            self.nodes += node.children
        return node.children

    def _back_up(self, node: Node, rewards: Sequence[float]) -> None:
        for above in node.path():
            above.value += sum(rewards)
            above.visits += len(rewards)

    def _scaled(self, rewards: Sequence[float]) -> Sequence[float]:
        if self.settings.scale == "given":
            return rewards
        if self.settings.scale == "logistic":
            return [0.5 * (1 + math.tanh(reward / 2)) for reward in rewards]
        low, high = self.bounds = self.bounds or (min(rewards), max(rewards))
        return [min(1.0, max(0.0, (reward - low) / (high - low))) if high > low else 1.0 for reward in rewards]


def choose_by_carrot(pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool], watch: Watch | None = None,
                     reward: Reward | None = None, settings: CarrotSettings = PUBLISHED) -> Selection:
    """See the module. `reward` None: by concatenation. `evaluations` counts the texts that the reward read; the utility is the
    answer's V/N, or its own reward where that decides."""
    allowed, why_not = readable(pool)
    clock = Clock(stop)
    if settings.candidates is not None:
        why_not |= dict.fromkeys(allowed[settings.candidates:], f"only the best {settings.candidates} are searched")
        allowed = allowed[:settings.candidates]
    prices = []
    for i in allowed:
        tokens = pool.candidates[i].tokens
        prices.append(tokens if tokens > budget else price(pool.candidates[i], render))
        if prices[-1] > budget:
            why_not[i] = f"its {tokens} tokens, mark and heading are over the budget of {budget}"
    tree = Tree(prices, _charges(pool, allowed, prices, settings), budget,
                _by_place(reward or by_concatenation(pool), pool, allowed), settings)
    for _ in range(settings.iterations if allowed and budget > 0 else 0):
        if clock():
            break
        tree.iterate()
    otherwise = f"not in the best of the {len(tree.nodes)} combinations that were looked at"
    first, second = _held(pool, tree, allowed, render)
    if watch is not None:
        watch(SearchPath(budget=budget, asked=tuple((node.price, node.reward) for node in tree.nodes),
                         chosen=None if first is None else (first.price, tree.worth(first)),
                         next_best=None if second is None else (second.price, tree.worth(second))))
    chosen = [] if first is None else [allowed[place] for place in first.order]
    return selected(pool, chosen, utility=0.0 if first is None else tree.worth(first), evaluations=len(tree.nodes),
                    why_not=why_not, otherwise=otherwise, clock=clock, marginals=tree.marginals(first, allowed),
                    next_best=None if first is None or second is None else _other(pool, tree, first, second, allowed, render))


def _held(pool: Pool, tree: Tree, allowed: Sequence[int], render: Render) -> tuple[Node | None, Node | None]:
    """The best and the second best answer that the budget holds, the second of other candidates."""
    found: list[Node] = []
    for node in tree.answers():
        # Prices leave out the second digit of a mark; what is rendered decides.
        if all(set(node.order) != set(known.order) for known in found) and render(
                wholes(pool, [allowed[place] for place in node.order])).tokens <= tree.budget:
            found.append(node)
            if len(found) == 2:
                break
    return found[0] if found else None, found[1] if len(found) == 2 else None


def _other(pool: Pool, tree: Tree, first: Node, second: Node, allowed: Sequence[int], render: Render) -> NextBest:
    mine, theirs = ([allowed[place] for place in node.order] for node in (first, second))
    added, removed = difference(pool, wholes(pool, mine), wholes(pool, theirs))
    return NextBest(tree.worth(second), render(wholes(pool, theirs)).tokens, added, removed)


def _charges(pool: Pool, allowed: Sequence[int], prices: Sequence[int], settings: CarrotSettings) -> Sequence[int]:
    return prices if settings.cost == "tokens" else [len(pool.candidates[i].chunk.text.split()) for i in allowed]


def _by_place(reward: Reward, pool: Pool, allowed: Sequence[int]) -> Reward:
    """`reward` for places in the list that is searched; refuses values that no search can go by."""
    def asked(orders: Sequence[tuple[int, ...]]) -> Sequence[float]:
        values = reward([tuple(allowed[place] for place in order) for order in orders])
        for order, value in zip(orders, values, strict=True):
            if not math.isfinite(value):
                i = allowed[order[-1]]
                raise refused(pool.candidates[i], i, f"the reward {value} in a combination of {len(order)}")
        return values

    return asked
