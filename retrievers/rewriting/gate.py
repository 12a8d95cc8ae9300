"""Whether a question is worth rewriting, told from its form and from the shape of its first look, before anything is spent.

A question whose words one passage holds, and whose first passages stand out, is answered there; what asks for a second step has
no such passage. The chance that rewriting brings evidence is logistic (`retrievers.rewriting.model`); it opens from
where that gained most on sets left out of its fitting.
"""

from __future__ import annotations

import math

from indexers import lexical
from indexers.chunking import embedding_text
from retrievers import mentions
from retrievers.hybrid import Found, Searcher

_LOOKED = 4
_PLACES = (1, 4, 9)


def shape(question: str, first: Found, *, searcher: Searcher) -> tuple[float, ...]:
    """The features `model.GATE` of a question whose first look holds something."""
    idf = searcher.bm25.idf(sorted(set(lexical.words(question))))
    total = sum(idf.values())
    covered = [sum(weight for term, weight in idf.items() if term in held) / total if total else 0.0
               for held in (frozenset(lexical.words(embedding_text(hit.chunk))) for hit in first.hits[:_LOOKED])]
    cosines = [hit.origins.get("dense", 0.0) for hit in first.hits[:10]]
    scores, top = [hit.score for hit in first.hits], first.hits[0].score
    places = [scores[min(place, len(scores) - 1)] / top if top > 0 else 0.0 for place in _PLACES]
    return (max(covered), covered[0], cosines[0], sum(cosines) / len(cosines), *places,
            math.log(max(1, len(set(lexical.words(question))))), float(len(mentions.names(question))))
