"""What a selector sees: candidates with their scores and prices, nothing that needs a file, a network or a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rag.types import Chunk, Considered, Context, Extract, Selection


@dataclass(frozen=True, slots=True)
class Candidate:
    """One retrieved chunk with what is known about each of its sentences.

    `relevance` and `sentence_relevance` are cosines to the question. `sentence_vectors` has shape (sentences, dimension),
    unit rows. `tokens` and `sentence_tokens` are in the reader's tokens, without heading or marks.
    """

    chunk: Chunk
    score: float
    relevance: float
    sentence_relevance: tuple[float, ...]
    sentence_tokens: tuple[int, ...]
    sentence_terms: tuple[frozenset[str], ...]   # the question's terms in each sentence or its heading
    sentence_vectors: NDArray[np.float32]
    tokens: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Candidates in retrieval order, best first, and the weight (idf) of each of the question's terms."""

    candidates: tuple[Candidate, ...]
    term_weights: Mapping[str, float]


class Render(Protocol):
    def __call__(self, extracts: Sequence[Extract]) -> Context:
        """The context exactly as it would be sent, with its tokens. May be over any budget: the caller compares."""


class Selector(Protocol):
    def __call__(self, pool: Pool, *, budget: int, render: Render, stop: Callable[[], bool]) -> Selection:
        """An ordered choice whose rendering costs at most `budget` tokens; empty where nothing fits or helps.

        Deterministic: ties break by retrieval rank, then by sentence. When `stop` says so, the best so far is returned.
        """


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


def explain(pool: Pool, extracts: Sequence[Extract], why_not: Callable[[int], str]) -> tuple[Considered, ...]:
    """One row per candidate for the trace; `why_not` gives the reason for a candidate that was left out."""
    kept = {extract.chunk.id: extract for extract in extracts}
    rows = []
    for i, candidate in enumerate(pool.candidates):
        extract = kept.get(candidate.chunk.id)
        if extract is None:
            why = why_not(i)
        else:
            why = "whole" if extract.whole else f"{len(extract.sentences)} of {len(candidate.chunk.sentences)} sentences"
        rows.append(Considered(chunk_id=candidate.chunk.id, source=candidate.chunk.source, rank=i + 1, score=candidate.score,
                               relevance=candidate.relevance, tokens=candidate.tokens, kept=extract is not None, why=why,
                               kept_sentences=extract.sentences if extract else (),
                               sentences=len(candidate.chunk.sentences)))
    return tuple(rows)


def duplicates(pool: Pool) -> dict[int, int]:
    """Candidates whose text stands already in a better one, mapped to that one."""
    first: dict[str, int] = {}
    found: dict[int, int] = {}
    for i, candidate in enumerate(pool.candidates):
        key = candidate.chunk.content_hash or candidate.chunk.text
        if first.setdefault(key, i) != i:
            found[i] = first[key]
    return found
