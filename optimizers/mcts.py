"""Monte Carlo tree search over sets of sentences with a cost-aware policy tree, after CARROT (arXiv 2411.00744), done anew.

A node is a set; a child adds one sentence. One iteration:

1. Selection: from the root to the child of the largest

       V(v) / N(v)  +  C * sqrt(ln N(parent) / N(v))  -  lambda * tokens(v) / B

   V/N is the mean reward brought to [0, 1] by the range seen so far, so that C and lambda mean the same on every question.
2. Progressive widening: a node visited N times has at most ceil(WIDEN * N^0.5) children, the best of its policy first.
3. STOP: every node holds a child that adds nothing. Its reward is the set's own worth, known at once, and it is visited once: the
   answer may end anywhere, and nothing is spent on finding that out again.
4. Reward of a new child: the better of its own worth and that of a completion, which adds the sentence of the largest gain per
   tokens^r, disturbed by a seeded noise, while one gains. With a worth that reads texts, its own alone.
5. Back-propagation of that reward along the path.

How it differs from the paper: sets reached in different orders are one node with one reward, because order is no part of this
utility and is decided at the end; rewards are kept and never asked twice; exhausted branches are not entered again, and the search
ends when none is left; it starts from the greedy solution, so that it is never worse; the answer is the best set seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from optimizers import lazy
from optimizers.space import NONE, Space


@dataclass(frozen=True, slots=True)
class MctsSettings:
    exploration: float = 0.2        # C
    cost_weight: float = 0.1        # lambda
    iterations: int = 200
    patience: int = 40              # iterations without a better set before it ends
    widen: float = 2.0
    power: float = 0.5              # r of completions
    noise: float = 0.3              # standard deviation of the logarithm of their factors
    seed: int = 7
    # Children by their own worth, which computes it for all of them; or by what they are worth alone, which costs no calls.
    policy: str = "children"


DEFAULT = MctsSettings()


@dataclass(slots=True, eq=False)
class Node:
    bits: int
    tokens: int
    order: list[int]                # rows to open, best first
    total: float                    # V, in the worth's own unit
    visits: int = 1                 # N: STOP is the first
    children: list[Node] = field(default_factory=list)
    opened: int = 0
    closed: bool = False            # nothing below it is left to see


def search(space: Space, *, settings: MctsSettings = DEFAULT) -> None:
    """See the module."""
    lazy.search(space)
    if space.open() and space.best:
        Tree(space, settings).run()


class Tree:
    """The state of one search."""

    def __init__(self, space: Space, settings: MctsSettings) -> None:
        self.space, self.settings = space, settings
        self.nodes: dict[int, Node] = {}
        self.random = np.random.default_rng(settings.seed)
        singles = [1 << u for u in range(space.rows)]
        self.alone = space.score(singles)
        self.low = min((value for value in self.alone if value > NONE), default=0.0)
        self.root = self.node(0, 0.0)

    def run(self) -> None:
        idle = 0
        for _ in range(self.settings.iterations):
            if self.root.closed or idle >= self.settings.patience or not self.space.open():
                break
            before = self.space.value
            self.iterate()
            idle = 0 if self.space.value > before else idle + 1

    def iterate(self) -> None:
        path = [self.root]
        while True:
            node = path[-1]
            if node.opened < len(node.order) and len(node.children) < self.allowed(node):
                child, reward = self.open_child(node)
                if child is not None:
                    path.append(child)
                    break
            below = [child for child in node.children if not child.closed]
            if not below:
                if node.opened == len(node.order):
                    node.closed = True
                    reward = node.total / node.visits
                    break
                continue
            path.append(max(below, key=lambda child: self.upper(child, of=node)))
        for node in path:
            node.visits += 1
            node.total += reward
            node.closed = node.opened == len(node.order) and all(child.closed for child in node.children)

    def allowed(self, node: Node) -> int:
        if node.children and all(child.closed for child in node.children):
            return len(node.children) + 1
        return math.ceil(self.settings.widen * math.sqrt(node.visits))

    def upper(self, node: Node, *, of: Node) -> float:
        high = max(self.space.value, self.low + 1e-12)
        mean = (node.total / node.visits - self.low) / (high - self.low)
        explored = self.settings.exploration * math.sqrt(math.log(of.visits) / node.visits)
        return mean + explored - self.settings.cost_weight * node.tokens / max(1, self.space.utility.prepared.budget)

    def open_child(self, node: Node) -> tuple[Node | None, float]:
        """The next child by policy that is allowed, with its reward; None if there is no further."""
        while node.opened < len(node.order):
            bits = node.bits | 1 << node.order[node.opened]
            node.opened += 1
            [value] = self.space.score([bits])
            if value == NONE:
                continue
            known = self.nodes.get(bits)
            child = known or self.node(bits, value)
            node.children.append(child)
            return child, value if known else self.reward(child, value)
        return None, 0.0

    def node(self, bits: int, value: float) -> Node:
        node = Node(bits, self.space.spent[bits] if bits else 0, self.order(bits), value)
        self.nodes[bits] = node
        return node

    def order(self, bits: int) -> list[int]:
        rows = [u for u in range(self.space.rows) if not bits >> u & 1 and self.alone[u] > NONE]
        if self.settings.policy == "alone" or not bits:
            worth = [self.alone[u] for u in rows]
        else:
            worth = self.space.score([bits | 1 << u for u in rows])
        ranked = sorted(zip(worth, rows, strict=True), key=lambda row: (-row[0], row[1]))
        return [u for value, u in ranked if value > NONE]

    def reward(self, child: Node, value: float) -> float:
        if self.space.worth is not None or self.settings.policy == "alone":
            return value
        from optimizers.utility_compiled import complete

        noise = np.exp(self.settings.noise * self.random.standard_normal(self.space.rows))
        whole = complete(child.bits, self.settings.power, noise, 0, self.space.utility.prepared)
        return max(value, *self.space.score([int(whole)]))
