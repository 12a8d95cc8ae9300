"""Which candidates the cross-encoder reads, and what it says put into the pool."""

from __future__ import annotations

import dataclasses

from indexers.store import passage_text
from optimizers import relevance
from optimizers.crossencoder.encoder import CrossEncoder, Read
from optimizers.pool import Candidate, Pool, best_of, duplicates


def read(pool: Pool, question: str, *, encoder: CrossEncoder, pairs: int) -> Pool:
    """The pool with `sentence_answers` for the `pairs` candidates of the most promising sentence; copies are not read again."""
    chosen = first_cut(pool, pairs=pairs)
    scores = encoder.score(question, [as_read(pool.candidates[i]) for i in chosen])
    said = {i: tuple(map(float, own)) for i, own in zip(chosen, scores, strict=True)}
    return dataclasses.replace(pool, candidates=tuple(
        dataclasses.replace(candidate, sentence_answers=said.get(i, ())) for i, candidate in enumerate(pool.candidates)))


def first_cut(pool: Pool, *, pairs: int) -> list[int]:
    """Indexes of the candidates with the likeliest sentences, by what retrieval knows; ties by rank."""
    best = best_of(relevance.plain_chances(pool))
    twins = duplicates(pool)
    return sorted((i for i in best if i not in twins), key=lambda i: (-best[i], i))[:pairs]


def as_read(candidate: Candidate) -> Read:
    """As the encoder read the chunk at ingestion."""
    chunk = candidate.chunk
    text = passage_text(chunk.title, chunk.heading, chunk.text)
    shift = len(text) - len(chunk.text)
    return Read(text, tuple((start + shift, end + shift) for start, end in chunk.sentences))
