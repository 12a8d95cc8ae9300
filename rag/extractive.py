"""An answer without a reader: the sentences of the context that share most with the question, word for word, each with its mark.

It is no answer to the question, and its verdict says so (`degraded`); but what it says stands in the documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from indexers import lexical
from rag.citations import cited
from rag.types import Citation, Context

MOST = 3


@dataclass(frozen=True, slots=True)
class Quoted:
    """`text`: the sentences in the order of the context, "…" between those that do not follow one another."""

    text: str
    citations: tuple[Citation, ...]


def quoted(context: Context, *, weights: Mapping[str, float]) -> Quoted:
    """At most `MOST` sentences: those that hold most of the question's weight, ties in the order of the context. `weights`: what
    each of the question's words weighs, by word. An empty context gives nothing."""
    places = [(passage, index) for passage in context.passages for index in passage.sentences]
    worth = [sum(weights.get(word, 0.0) for word in set(lexical.words(passage.chunk.sentence(index)))) for passage, index in places]
    best = sorted(sorted(range(len(places)), key=lambda at: (-worth[at], at))[:MOST])
    parts: list[str] = []
    for before, at in zip((None, *best), best, strict=False):
        passage, index = places[at]
        gap = "" if before is None else " " if at == before + 1 else " … "
        parts.append(f"{gap}{passage.chunk.sentence(index).strip()} [{passage.n}]")
    return Quoted("".join(parts), tuple(cited(*places[at]) for at in best))
