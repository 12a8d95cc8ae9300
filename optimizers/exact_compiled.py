"""Branch and bound in machine code: see `exact`."""

from __future__ import annotations

import math

import numpy as np

from optimizers.exact import DEPTH, DONE, NODES, STEPS, State
from optimizers.packed import GAP_TOKENS, Ints
from optimizers.utility import Prepared
from optimizers.utility_compiled import added_benefit, added_tokens, include
from rag.compiled import compiled

_EQUAL = 1e-12


@compiled
def advance(state: State, a: Prepared, banned: Ints, nodes: int) -> None:
    """Looks at up to so many nodes more. Depth first, with the sentence before without it."""
    n, control, best = len(a.tokens), state.control, state.best
    ends = control[NODES] + nodes
    while control[NODES] < ends:
        d = control[DEPTH]
        if d < 0:
            control[DONE] = 1
            return
        if state.step[d] == 0:
            control[NODES] += 1
            bits = state.bits[d]
            value = state.benefit[d] - a.price * state.tokens[d]
            if bits != 0 and value > best[0] + _EQUAL and not held(bits, banned):
                best[0] = value
                control[STEPS] = bits
            if d == n or value + bound(state, d, a) <= best[0] + _EQUAL:
                control[DEPTH] = d - 1
                continue
            state.step[d] = 1
            u = state.order[d]
            more = added_tokens(u, bits, state.passages[d], a)
            if (a.twins[u] & bits) == 0 and state.tokens[d] + more <= a.budget:
                state.benefit[d + 1] = state.benefit[d] + added_benefit(u, bits, state.missing[d], state.covered[d], a)
                state.covered[d + 1, :] = state.covered[d]
                state.missing[d + 1] = include(u, state.missing[d], state.covered[d + 1], a)
                state.passages[d + 1] = state.passages[d] + opens(u, bits, a)
                state.bits[d + 1] = bits | (1 << u)
                state.tokens[d + 1] = state.tokens[d] + more
                state.step[d + 1] = 0
                control[DEPTH] = d + 1
        elif state.step[d] == 1:
            state.step[d] = 2
            state.benefit[d + 1] = state.benefit[d]
            state.covered[d + 1, :] = state.covered[d]
            state.missing[d + 1] = state.missing[d]
            state.passages[d + 1] = state.passages[d]
            state.bits[d + 1] = state.bits[d]
            state.tokens[d + 1] = state.tokens[d]
            state.step[d + 1] = 0
            control[DEPTH] = d + 1
        else:
            control[DEPTH] = d - 1
    control[DONE] = 1 if control[DEPTH] < 0 else 0


@compiled
def held(bits: int, banned: Ints) -> bool:
    return bool(np.any(banned == bits))


@compiled
def opens(u: int, bits: int, a: Prepared) -> int:
    for v in range(len(a.tokens)):
        if (bits >> v) & 1 and a.candidate[v] == a.candidate[u]:
            return 0
    return 1


@compiled
def bound(state: State, d: int, a: Prepared) -> float:
    """No set of the sentences that are not decided yet adds more to the worth of this node.

    What relevance gains together, missing * (1 - e^-x) with x the sum of -ln(1 - helps), lies under each of its tangents, which
    are sums over sentences; the least of a few tangents is taken. What coverage gains is at most the sum of the single gains, and
    at most what the best carrier of each term would add; both are tried. Marks and headings that are not paid yet are charged once
    to all that stand under them. Redundancy is charged with what was chosen only. Where that is more than the budget holds, the
    fractional knapsack of the single gains bounds it too.
    """
    n, terms = len(a.tokens), len(a.weight)
    bits, missing, covered, room = state.bits[d], state.missing[d], state.covered[d], a.budget - state.tokens[d]
    undecided = np.zeros(n, np.bool_)
    for k in range(d, n):
        u = state.order[k]
        undecided[u] = (a.twins[u] & bits) == 0
    opened = np.zeros(a.candidate[n - 1] + 1, np.bool_)
    paid = np.zeros(len(a.heading_tokens), np.bool_)
    for v in range(n):
        if (bits >> v) & 1:
            opened[a.candidate[v]] = True
            paid[a.heading[a.candidate[v]]] = True
    carrier = np.zeros(terms)
    cover, charge = np.zeros(n), np.zeros(n)
    spend = np.zeros(n, np.int64)
    for u in range(n):
        if not undecided[u]:
            continue
        spend[u] = a.tokens[u] - GAP_TOKENS if opened[a.candidate[u]] else a.tokens[u]
        if spend[u] > room:
            undecided[u] = False
            continue
        charge[u] = a.price * spend[u]
        for v in range(n):
            if (bits >> v) & 1:
                charge[u] += a.repeats[u, v]
        for k in range(a.term_start[u], a.term_start[u + 1]):
            t = a.term[k]
            carrier[t] = max(carrier[t], a.carries[u])
            if a.carries[u] > covered[t]:
                cover[u] += a.weight[t] * (a.carries[u] - covered[t])
    most_cover = 0.0
    for t in range(terms):
        most_cover += a.weight[t] * max(0.0, carrier[t] - covered[t])
    least = 1e9
    gains = np.zeros(n)
    for tangent in range(5):
        at = 0.0 if tangent == 0 else 0.4 * 2.0 ** (tangent - 1)
        slope = math.exp(-at)
        base = 0.0 if tangent == 0 else missing * (1 - slope * (1 + at))
        for capped in range(2):
            for u in range(n):
                if undecided[u]:
                    relevance = a.helps[u] if tangent == 0 else -math.log(1 - min(a.helps[u], 1 - 1e-12)) * slope
                    gains[u] = missing * relevance + (0.0 if capped else cover[u]) - charge[u]
            total = base + (most_cover if capped else 0.0)
            whole, used = under_headings(gains, undecided, opened, paid, spend, a)
            if used > room:
                whole = min(whole, fractional(gains, undecided, spend, room))
            least = min(least, total + whole)
    return least


@compiled
def under_headings(gains: np.ndarray, undecided: np.ndarray, opened: np.ndarray, paid: np.ndarray, spend: Ints,
                   a: Prepared) -> tuple[float, int]:
    """The positive gains less the marks and headings that are not paid, and the tokens of those that gain."""
    total, used, above, n = 0.0, 0, 0.0, len(a.tokens)
    passage = 0.0
    for u in range(n):
        if undecided[u] and gains[u] > 0:
            passage += gains[u]
            used += spend[u]
        c = a.candidate[u]
        if u + 1 == n or a.candidate[u + 1] != c:
            if not opened[c]:
                passage = max(0.0, passage - a.price * a.mark_tokens)
            above += passage
            passage = 0.0
            h = a.heading[c]
            if u + 1 == n or a.heading[a.candidate[u + 1]] != h:
                if not paid[h]:
                    above = max(0.0, above - a.price * a.heading_tokens[h])
                total += above
                above = 0.0
    return total, used


@compiled
def fractional(gains: np.ndarray, undecided: np.ndarray, spend: Ints, room: int) -> float:
    """The fractional knapsack of the positive gains."""
    n = len(gains)
    rates = np.zeros(n)
    for u in range(n):
        if undecided[u] and gains[u] > 0:
            rates[u] = gains[u] / max(spend[u], 1e-3)
    total, left = 0.0, float(room)
    for u in np.argsort(-rates):
        if rates[u] <= 0:
            break
        if spend[u] <= left:
            total += gains[u]
            left -= spend[u]
        else:
            total += gains[u] * left / spend[u]
            break
    return total
