"""What a selector sees: candidates with their scores and prices, nothing that needs a file, a network or a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rag.errors import InputError
from rag.types import Chunk, Considered, Context, Extract, Led, SearchPath, Selection


@dataclass(frozen=True, slots=True)
class Candidate:
    """One retrieved chunk with what is known about each of its sentences.

    `relevance` and `sentence_relevance` are cosines to the question. `sentence_vectors` has shape (sentences, dimension),
    unit rows. `tokens` and `sentence_tokens` are in the reader's tokens, without heading or marks. `sentence_answers`: the
    cross-encoder's score of each sentence, empty where it did not read the candidate. `led`: what leads to it from others.
    """

    chunk: Chunk
    score: float
    relevance: float
    sentence_relevance: tuple[float, ...]
    sentence_tokens: tuple[int, ...]
    sentence_terms: tuple[frozenset[str], ...]   # the question's terms in each sentence or its heading
    sentence_vectors: NDArray[np.float32]
    tokens: int
    sentence_answers: tuple[float, ...] = ()
    led: Led | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """Candidates in retrieval order, best first, and the weight (idf) of each of the question's terms. `dropped`: candidates that
    the knowledge filter takes out of the choice. `question`: its text, where it is known."""

    candidates: tuple[Candidate, ...]
    term_weights: Mapping[str, float]
    dropped: frozenset[int] = frozenset()
    question: str = ""


class Render(Protocol):
    def __call__(self, extracts: Sequence[Extract]) -> Context:
        """The context exactly as it would be sent, with its tokens. May be over any budget: the caller compares."""


Watch = Callable[[SearchPath], None]


class Selector(Protocol):
    def __call__(self, pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool],
                 watch: Watch | None = None) -> Selection:
        """An ordered choice whose rendering costs at most `budget` tokens; empty where nothing fits or helps.

        Deterministic: ties break by retrieval rank, then by sentence. When `stop` says so, the best so far is returned, and
        marked degraded; nothing if it says so from the start. `watch` is told the way once, at the end; None costs nothing.

        Raises:
            InputError: as `check` does.
        """


@dataclass(slots=True)
class Clock:
    """A `stop` that remembers whether it said so, and why a selection is degraded then. Once it has, it is not asked again."""

    stop: Callable[[], bool]
    stopped: bool = False

    def __call__(self) -> bool:
        self.stopped = self.stopped or self.stop()
        return self.stopped

    @property
    def degraded(self) -> str | None:
        return STOPPED_EARLY if self.stopped else None


STOPPED_EARLY = "stopped: the time for choosing was up before the selector was done; this is the best so far"


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """One sentence of one candidate, by their indexes in the pool."""

    candidate: int
    sentence: int


def units(pool: Pool) -> list[Unit]:
    return [Unit(i, j) for i, candidate in enumerate(pool.candidates) for j in range(len(candidate.chunk.sentences))]


def group(pool: Pool, chosen: Sequence[Unit], *, order: Sequence[int]) -> tuple[Extract, ...]:
    """Chosen sentences as extracts: candidates in `order`, sentences as they stand in the source."""
    by_candidate: dict[int, list[int]] = {}
    for unit in chosen:
        by_candidate.setdefault(unit.candidate, []).append(unit.sentence)
    return tuple(Extract(pool.candidates[i].chunk, tuple(sorted(by_candidate[i]))) for i in order if i in by_candidate)


@dataclass(frozen=True, slots=True)
class Marginals:
    """What a choice would lose without each of its sentences and each of its passages, where that is known."""

    sentences: Mapping[Unit, float]
    passages: Mapping[int, float]


NO_MARGINALS = Marginals({}, {})


def best_of(chances: Mapping[Unit, float]) -> dict[int, float]:
    """The chance of each candidate's likeliest sentence."""
    best: dict[int, float] = {}
    for unit, chance in chances.items():
        best[unit.candidate] = max(best.get(unit.candidate, 0.0), chance)
    return best


def explain(pool: Pool, extracts: Sequence[Extract], why_not: Callable[[int], str], *, chances: Mapping[Unit, float] | None = None,
            marginals: Marginals = NO_MARGINALS) -> tuple[Considered, ...]:
    """One row per candidate for the trace; `why_not` gives the reason for a candidate that was left out. What was kept says what
    the choice would lose without it, where `chances` decided."""
    kept = {extract.chunk.id: extract for extract in extracts}
    best = best_of(chances or {})
    rows = []
    for i, candidate in enumerate(pool.candidates):
        extract = kept.get(candidate.chunk.id)
        if extract is None:
            why = FILTERED if i in pool.dropped else why_not(i)
        else:
            why = "whole" if extract.whole else f"{len(extract.sentences)} of {len(candidate.chunk.sentences)} sentences"
            if chances is not None and i in marginals.passages:
                lost = marginals.passages[i]
                why += f": the choice would be worth {abs(lost):.4f} {'less' if lost >= 0 else 'more'} without it"
        rows.append(Considered(chunk_id=candidate.chunk.id, source=candidate.chunk.source, rank=i + 1, score=candidate.score,
                               relevance=candidate.relevance, tokens=candidate.tokens, kept=extract is not None, why=why,
                               kept_sentences=extract.sentences if extract else (),
                               sentences=len(candidate.chunk.sentences), chance=best.get(i),
                               marginal=marginals.passages.get(i) if extract else None,
                               sentence_marginals=tuple(marginals.sentences.get(Unit(i, j)) for j in extract.sentences)
                               if extract and marginals.sentences else ()))
    return tuple(rows)


FILTERED = "filtered out: its sentences are too unlikely to answer"


def duplicates(pool: Pool) -> dict[int, int]:
    """Candidates whose text stands already in a better one, mapped to that one."""
    first: dict[str, int] = {}
    found: dict[int, int] = {}
    for i, candidate in enumerate(pool.candidates):
        key = candidate.chunk.content_hash or candidate.chunk.text
        if first.setdefault(key, i) != i:
            found[i] = first[key]
    return found


def check(pool: Pool) -> None:
    """Refuses what no selector can go by.

    Raises:
        InputError: a score, relevance, vector or weight of a term that is no finite number, or a negative count of tokens; it
            names the candidate or the term.
    """
    for i, candidate in enumerate(pool.candidates):
        _check(i, candidate)
    for term, weight in pool.term_weights.items():
        if not math.isfinite(weight):
            raise InputError(f"The question's term {term!r} has the weight {weight}: nothing can be chosen by that.",
                             field="candidates", hint="Repair the index that gave it.")


def check_chances(pool: Pool, chances: Mapping[Unit, float]) -> None:
    """Raises InputError for a chance outside [0, 1]; it names the candidate."""
    for unit, chance in chances.items():
        if not 0 <= chance <= 1:        # NaN is neither
            raise refused(pool.candidates[unit.candidate], unit.candidate, f"the chance {chance} of sentence {unit.sentence + 1}")


def refused(candidate: Candidate, i: int, what: str) -> InputError:
    return InputError(f"Candidate {i + 1} ({candidate.chunk.id}) has {what}: nothing can be chosen by that.", field="candidates",
                      hint="Repair the scorer that gave it.")


def _check(i: int, candidate: Candidate) -> None:
    if not math.isfinite(candidate.score) or not math.isfinite(candidate.relevance):
        raise refused(candidate, i, f"the score {candidate.score} and the relevance {candidate.relevance}")
    if not all(map(math.isfinite, candidate.sentence_relevance)):
        raise refused(candidate, i, f"the relevance {next(v for v in candidate.sentence_relevance if not math.isfinite(v))}")
    if not all(map(math.isfinite, candidate.sentence_answers)):
        raise refused(candidate, i, f"the answer score {next(v for v in candidate.sentence_answers if not math.isfinite(v))}")
    if min(candidate.tokens, *candidate.sentence_tokens, 0) < 0:
        raise refused(candidate, i, f"{min(candidate.tokens, *candidate.sentence_tokens)} tokens")
    # A sum is finite only if all its terms are, and there is no overflow among the coordinates of unit vectors.
    if not math.isfinite(float(candidate.sentence_vectors.sum())):
        raise refused(candidate, i, "a vector of a sentence that is not finite")
