"""The set function in machine code: see `utility` for the formula and `packed` for the arrays.

A set is an integer whose bits are rows; rows of one candidate are neighbours, and so are candidates of one heading.
"""

from __future__ import annotations

import numpy as np

from optimizers.packed import GAP_TOKENS, Floats, Ints
from optimizers.utility import NEVER, Prepared
from rag.compiled import compiled


@compiled
def join(before: int, after: int, a: Prepared) -> int:
    """Tokens that stand between two chosen sentences of one candidate; -1 for a side where there is none."""
    if before < 0 or after < 0:
        return 0
    if a.place[after] == a.place[before] + 1:
        return int(a.lead[after])
    return GAP_TOKENS


@compiled
def cost(bits: int, a: Prepared) -> int:
    """Estimated tokens of a set."""
    total, last, passages, heading = 0, -1, 0, -1
    for u in range(len(a.tokens)):
        if not (bits >> u) & 1:
            continue
        c = a.candidate[u]
        if last >= 0 and a.candidate[last] == c:
            total += join(last, u, a)
        else:
            passages += 1
            total += a.mark_tokens + (1 if passages > 9 else 0)     # the second digit of a mark
            if a.heading[c] != heading:
                heading = a.heading[c]
                total += a.heading_tokens[heading]
        total += a.tokens[u]
        last = u
    return int(total)


@compiled
def measure(sets: Ints, a: Prepared, values: Floats, tokens: Ints) -> None:
    """Worth and tokens of each set, into the two arrays given."""
    covered = np.zeros(len(a.weight))
    rows = np.empty(len(a.tokens), np.int64)
    for i in range(len(sets)):
        bits = sets[i]
        tokens[i] = cost(bits, a)
        covered[:] = 0.0
        missing, total, count, clash = 1.0, 0.0, 0, False
        for u in range(len(a.tokens)):
            if not (bits >> u) & 1:
                continue
            clash = clash or (a.twins[u] & bits) != 0
            missing *= 1 - a.helps[u]
            for k in range(a.term_start[u], a.term_start[u + 1]):
                t = a.term[k]
                if a.carries[u] > covered[t]:
                    total += a.weight[t] * (a.carries[u] - covered[t])
                    covered[t] = a.carries[u]
            for k in range(count):
                total -= a.repeats[u, rows[k]]
            rows[count] = u
            count += 1
        values[i] = NEVER if clash else total + 1 - missing - a.price * tokens[i]


@compiled
def added_tokens(u: int, bits: int, passages: int, a: Prepared) -> int:
    """What row u adds to the estimated tokens of a set of so many passages that does not hold it."""
    c = a.candidate[u]
    before, after = -1, -1
    for v in range(u - 1, -1, -1):
        if a.candidate[v] != c:
            break
        if (bits >> v) & 1:
            before = v
            break
    for v in range(u + 1, len(a.tokens)):
        if a.candidate[v] != c:
            break
        if (bits >> v) & 1:
            after = v
            break
    if before >= 0 or after >= 0:
        return int(a.tokens[u] + join(before, u, a) + join(u, after, a) - join(before, after, a))
    total = a.tokens[u] + a.mark_tokens + (1 if passages >= 9 else 0)
    for v in range(len(a.tokens)):
        if (bits >> v) & 1 and a.heading[a.candidate[v]] == a.heading[c]:
            return int(total)
    return int(total + a.heading_tokens[a.heading[c]])


@compiled
def added_benefit(u: int, bits: int, missing: float, covered: Floats, a: Prepared) -> float:
    """What row u adds to the worth of a set before its cost."""
    gain = missing * a.helps[u]
    for k in range(a.term_start[u], a.term_start[u + 1]):
        t = a.term[k]
        if a.carries[u] > covered[t]:
            gain += a.weight[t] * (a.carries[u] - covered[t])
    for v in range(len(a.tokens)):
        if (bits >> v) & 1:
            gain -= a.repeats[u, v]
    return float(gain)


@compiled
def include(u: int, missing: float, covered: Floats, a: Prepared) -> float:
    """Adds row u to what is covered; what is missing after it."""
    for k in range(a.term_start[u], a.term_start[u + 1]):
        covered[a.term[k]] = max(covered[a.term[k]], a.carries[u])
    return float(missing * (1 - a.helps[u]))


@compiled
def complete(bits: int, power: float, noise: Floats, closed: int, a: Prepared) -> int:
    """Rows added to a set one by one while one gains and fits, each time the one of the largest gain per tokens^power.

    `noise`, one factor for each row, tells equal completions apart: 1 for none. Rows of `closed` (bits) are never added.
    """
    n = len(a.tokens)
    covered = np.zeros(len(a.weight))
    missing, spent, passages, last = 1.0, 0, 0, -1
    blocked = closed | bits
    for u in range(n):
        if (bits >> u) & 1:
            missing = include(u, missing, covered, a)
            blocked |= a.twins[u]
            if last < 0 or a.candidate[last] != a.candidate[u]:
                passages += 1
            last = u
    spent = cost(bits, a)
    while True:
        best, best_rate, best_tokens, opens = -1, 0.0, 0, 0
        for u in range(n):
            if (blocked >> u) & 1:
                continue
            more = added_tokens(u, bits, passages, a)
            if spent + more > a.budget:
                continue
            gain = added_benefit(u, bits, missing, covered, a) - a.price * more
            if gain <= 0:
                continue
            rate = noise[u] * gain / max(more, 1) ** power
            if rate > best_rate:
                best, best_rate, best_tokens = u, rate, more
        if best < 0:
            return bits
        opens = 1
        for v in range(n):
            if (bits >> v) & 1 and a.candidate[v] == a.candidate[best]:
                opens = 0
        bits |= 1 << best
        blocked |= (1 << best) | a.twins[best]
        passages += opens
        spent += best_tokens
        missing = include(best, missing, covered, a)
