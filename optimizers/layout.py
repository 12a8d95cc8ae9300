"""The order in which chosen sentences are rendered: a heading is paid once, and what matters most comes first, which small readers
need.

Sentences as they stand in their passage; passages of one heading one after the other, those of one document among them as they
stand there, so that neighbours of a document meet and are rendered as one (`context`); headings, and documents under one heading,
by their best sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

from optimizers.pool import Pool, Unit, group
from rag.types import Extract

Heading = tuple[str, str, str]


def arranged(pool: Pool, chosen: Sequence[Unit], *, worth: Sequence[float]) -> tuple[Extract, ...]:
    """The chosen sentences as extracts in that order. `worth`: of each of them, the highest comes first; ties by rank."""
    best: dict[int, float] = {}
    for unit, value in zip(chosen, worth, strict=True):
        best[unit.candidate] = max(best.get(unit.candidate, value), value)
    headings: dict[Heading, tuple[float, int]] = {}
    documents: dict[tuple[Heading, str], tuple[float, int]] = {}
    for i, value in best.items():
        heading, chunk = _heading(pool, i), pool.candidates[i].chunk
        headings[heading] = _first(headings.get(heading), value, i)
        documents[heading, chunk.doc_id] = _first(documents.get((heading, chunk.doc_id)), value, i)

    def place(i: int) -> tuple[float, int, float, int, int, int]:
        heading, chunk = _heading(pool, i), pool.candidates[i].chunk
        (high, earliest), (value, first) = headings[heading], documents[heading, chunk.doc_id]
        return -high, earliest, -value, first, chunk.ordinal, i

    return group(pool, chosen, order=sorted(best, key=place))


def _first(known: tuple[float, int] | None, value: float, i: int) -> tuple[float, int]:
    """The highest worth and the earliest rank of a group with one passage more."""
    return (value, i) if known is None else (max(known[0], value), min(known[1], i))


def _heading(pool: Pool, i: int) -> Heading:
    """Equal for candidates that share a heading in the rendering; without any, for those of a document."""
    chunk = pool.candidates[i].chunk
    return chunk.title, chunk.heading, "" if chunk.title or chunk.heading else chunk.doc_id
