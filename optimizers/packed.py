"""A pool as arrays that compiled code can search: one row per sentence that may be chosen.

A sentence enters if there can be a set to which it adds more than its tokens cost, by an upper bound of its gain: without the
others the best set is the same. At most `MOST` enter, those of the largest bound, so that a set is the bits of one integer. They
stand by heading, candidate and place in the chunk: the bits of a set in ascending order are its rendering, but for the order of the
passages. What a set costs is estimated from the pool's counts:

    sentences  +  joints between those of one passage  +  a mark per passage  +  each heading once

The estimate is meant to be no less than what the rendering costs, and the rendering decides in the end (`searching`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optimizers.coefficients import PRICE_TOKENS, Coefficients
from optimizers.context import inert
from optimizers.pool import Candidate, Pool, Render, Unit, check_chances, duplicates
from rag.types import Extract

MOST = 60                   # bits of a set: they fit a signed integer of 64 with room to spare
LEAST = 4                   # sentences that enter in any case: whether anything is worth reading is the filter's question
MOST_TERMS = 64             # terms of a question that count, the weightiest
GAP_TOKENS = 2              # the mark of a gap with the spaces around it
CARRIER_EXPONENT = 0.5      # a sentence carries a term by its chance to this power
NEAR_DUPLICATE = 0.95       # cosine from which two sentences say the same, as in `greedy`

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Packed(NamedTuple):
    """Arrays over the n sentences, c candidates and h headings of a search. Candidates of one heading are neighbours."""

    chance: Floats              # (n,) that the sentence holds the answer, in [0, 1]
    tokens: Ints                # (n,) at least GAP_TOKENS, so that no set costs less with one sentence more
    lead: Ints                  # (n,) tokens that joining it to the sentence before it may add
    place: Ints                 # (n,) index in its chunk
    candidate: Ints             # (n,) ascending
    heading: Ints               # (c,) ascending
    mark_tokens: int            # of a passage's number and line ends
    heading_tokens: Ints        # (h,)
    term_start: Ints            # (n + 1,) where each sentence's terms begin in `term`
    term: Ints
    term_weight: Floats         # (terms,), sum at most 1
    likeness: Floats            # (n, n) cosines
    twins: Ints                 # (n,) bits of the sentences that say the same
    budget: int


class Rows(NamedTuple):
    """What the rows of a `Packed` are in the pool."""

    units: tuple[Unit, ...]
    dropped: frozenset[int]     # candidates of whose sentences none entered


def packed(pool: Pool, *, chances: Mapping[Unit, float], coefficients: Coefficients, budget: int,
           render: Render) -> tuple[Packed, Rows]:
    """The pool ready to search. Copies of better candidates and sentences longer than the budget are left out.

    Raises:
        InputError: as `check_chances` does. What is in the pool is not looked at again (`pool.check`).
    """
    twins = duplicates(pool)
    check_chances(pool, chances)
    most = bounds(pool, chances, coefficients)
    ranked = sorted((unit for unit in most if unit.candidate not in twins
                     and pool.candidates[unit.candidate].sentence_tokens[unit.sentence] <= budget),
                    key=lambda unit: (-most[unit], unit))[:MOST]
    admitted = [unit for place, unit in enumerate(ranked) if most[unit] > 0 or place < LEAST]
    headings: dict[tuple[str, str], int] = {}
    for candidate_index in sorted({unit.candidate for unit in admitted}):
        headings.setdefault(_heading(pool.candidates[candidate_index], candidate_index), len(headings))
    by_heading = {i: headings[_heading(pool.candidates[i], i)] for i in {unit.candidate for unit in admitted}}
    units = sorted(admitted, key=lambda unit: (by_heading[unit.candidate], unit))
    candidates = list(dict.fromkeys(unit.candidate for unit in units))
    local = {i: place for place, i in enumerate(candidates)}
    mark, above = _frames(pool, candidates, [by_heading[i] for i in candidates], len(headings), render)
    term_start, terms, weights = _terms(pool, units)
    vectors = np.asarray([pool.candidates[u.candidate].sentence_vectors[u.sentence] for u in units], np.float32)
    likeness = (vectors @ vectors.T).astype(np.float64) if units else np.zeros((0, 0))
    alike = likeness > NEAR_DUPLICATE
    np.fill_diagonal(alike, False)
    arrays = Packed(
        chance=np.asarray([chances[unit] for unit in units], np.float64),
        tokens=_ints(max(GAP_TOKENS, pool.candidates[u.candidate].sentence_tokens[u.sentence]) for u in units),
        lead=_ints(_lead(pool.candidates[u.candidate], u.sentence) for u in units),
        place=_ints(u.sentence for u in units), candidate=_ints(local[u.candidate] for u in units),
        heading=_ints(by_heading[i] for i in candidates), mark_tokens=mark, heading_tokens=above, term_start=term_start,
        term=terms, term_weight=weights, likeness=likeness,
        twins=_ints(sum(1 << int(j) for j in np.flatnonzero(row)) for row in alike), budget=budget)
    left_out = set(range(len(pool.candidates))) - set(candidates)
    return arrays, Rows(tuple(units), frozenset(left_out))


def bounds(pool: Pool, chances: Mapping[Unit, float], coefficients: Coefficients) -> dict[Unit, float]:
    """No set gains more by a sentence: all the relevance and coverage it has, less its tokens but for a gap it may close."""
    total = sum(pool.term_weights.values())
    shares: dict[frozenset[str], float] = {}
    found = {}
    for unit, chance in chances.items():
        candidate = pool.candidates[unit.candidate]
        terms = candidate.sentence_terms[unit.sentence]
        if terms not in shares:
            shares[terms] = sum(pool.term_weights[term] for term in sorted(terms)) / total if total > 0 else 0.0
        paid = max(GAP_TOKENS, candidate.sentence_tokens[unit.sentence]) - GAP_TOKENS
        found[unit] = (coefficients.trust * chance + coefficients.coverage * shares[terms] * math.pow(chance, CARRIER_EXPONENT)
                       - coefficients.price * paid / PRICE_TOKENS)
    return found


def members(bits: int) -> list[int]:
    """The rows of a set, ascending."""
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1)
        bits ^= low
    return found


def _ints(values: object) -> Ints:
    return np.asarray(list(values), np.int64)  # type: ignore[call-overload]  # any iterable of ints


def _heading(candidate: Candidate, i: int) -> tuple[str, str]:
    """Equal for candidates that share a heading in the rendering; those without any share none."""
    chunk = candidate.chunk
    return (chunk.title, chunk.heading) if chunk.title or chunk.heading else ("", str(i))


def _frames(pool: Pool, candidates: Sequence[int], headings: Sequence[int], count: int, render: Render) -> tuple[int, Ints]:
    """Tokens of a mark and of each heading: what a rendering has beside its sentences."""
    above = np.zeros(count, np.int64)
    if not candidates:
        return 0, above
    # A heading is not repeated above the same passage again, so a second copy costs its sentence and a mark.
    alone, sentence = _shortest(pool.candidates[candidates[0]])
    mark = max(0, render([alone, alone]).tokens - render([alone]).tokens - sentence)
    first = dict(zip(reversed(headings), reversed(candidates), strict=True))
    for heading, i in first.items():
        if pool.candidates[i].chunk.title or pool.candidates[i].chunk.heading:
            alone, sentence = _shortest(pool.candidates[i])
            above[heading] = max(0, render([alone]).tokens - sentence - mark)
    return mark, above


def _shortest(candidate: Candidate) -> tuple[Extract, int]:
    """The extract of the shortest sentence that is rendered as it was counted, and its tokens; of any and 0 if none is."""
    for j in sorted(range(len(candidate.sentence_tokens)), key=lambda j: (candidate.sentence_tokens[j], j)):
        text = candidate.chunk.sentence(j)
        if inert(text) == text:
            return Extract(candidate.chunk, (j,)), candidate.sentence_tokens[j]
    return Extract(candidate.chunk, (0,)), 0


def _lead(candidate: Candidate, sentence: int) -> int:
    """A space before anything but a letter is a token of its own in most vocabularies, and so is a line end."""
    if sentence == 0:
        return 0
    chunk = candidate.chunk
    between = chunk.text[chunk.sentences[sentence - 1][1]:chunk.sentences[sentence][0]]
    start = chunk.sentence(sentence)[:1]
    return int("\n" in between or (bool(between) and not start.isalpha()))


def _terms(pool: Pool, units: Sequence[Unit]) -> tuple[Ints, Ints, Floats]:
    """Each sentence's terms and the terms' weights, a share of the question's."""
    total = sum(pool.term_weights.values())
    kept = sorted(pool.term_weights, key=lambda term: (-pool.term_weights[term], term))[:MOST_TERMS] if total > 0 else []
    index = {term: i for i, term in enumerate(kept)}
    starts, terms = [0], []
    for unit in units:
        held = pool.candidates[unit.candidate].sentence_terms[unit.sentence]
        terms += sorted(index[term] for term in held if term in index)
        starts.append(len(terms))
    return _ints(starts), _ints(terms), np.asarray([pool.term_weights[term] / total for term in kept], np.float64)
