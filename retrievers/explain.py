"""Why sparse search found a passage: what each word of the query adds to its score, and whether the passage holds the word or
expansion added it.

Tokens are shown as words: pieces that the tokenizer cut a word into are put together again, and words that share a token
(because they have one stem, or one piece) are one entry. The contributions of all entries add up to the score.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexers.chunking import embedding_text
from indexers.encoders.term_weights import TermWeights
from indexers.impacts import Query
from rag.types import Chunk, TermMatch
from retrievers.segments import SegmentView
from retrievers.sparse_rows import weighed, weights

Floats = NDArray[np.float64]
# A term of the query: how it is shown, and the places of its tokens in the query.
Term = tuple[str, list[int]]


def explained(question: str, query: Query, *, rows: Sequence[int], chunks: Sequence[Chunk], segments: Sequence[SegmentView],
              encoder: TermWeights) -> list[tuple[TermMatch, ...]]:
    """For each of these chunks every term of the query, what adds most first, then by query weight; those that do not match are
    among them. `rows`: those of the chunks; `query`: what the encoder makes of the question."""
    asked = query[1].astype(np.float64)
    found = weights(weighed(segments), query, np.asarray(rows, np.int64))
    terms = terms_of(question, query, encoder=encoder)
    return [tuple(sorted((_match(term, asked, row, np.isin(query[0], encoder.query(embedding_text(chunk))[0])) for term in terms),
                         key=lambda match: (-match.contribution, -match.query_weight, match.term)))
            for row, chunk in zip(found, chunks, strict=True)]


def terms_of(question: str, query: Query, *, encoder: TermWeights) -> list[Term]:
    """The query's tokens in groups, each once: those of a word together, in the order of the question."""
    groups: list[tuple[list[str], set[int]]] = []
    for word in dict.fromkeys(_words(question, encoder.offsets(question))):
        tokens = set(np.flatnonzero(np.isin(query[0], encoder.query(word)[0])).tolist())
        shared = [group for group in groups if group[1] & tokens]
        if tokens and shared:
            for other in shared[1:]:
                shared[0][0].extend(other[0])
                shared[0][1].update(other[1])
                groups.remove(other)
            shared[0][0].append(word)
            shared[0][1].update(tokens)
        elif tokens:
            groups.append(([word], tokens))
    return [("/".join(dict.fromkeys(word.lower() for word in words)), sorted(tokens)) for words, tokens in groups]


def _words(text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """The stretches of the text that the tokenizer cut into pieces: tokens that touch, letter to letter, belong together."""
    spans: list[tuple[int, int]] = []
    for start, end in offsets:
        if spans and spans[-1][1] == start and text[start - 1:start].isalnum() and text[start:start + 1].isalnum():
            spans[-1] = (spans[-1][0], end)
        elif start < end:
            spans.append((start, end))
    return [text[start:end] for start, end in spans]


def _match(term: Term, asked: Floats, found: Floats, held: NDArray[np.bool_]) -> TermMatch:
    label, tokens = term
    adds = asked[tokens] * found[tokens]
    weight, total = float(asked[tokens].sum()), float(adds.sum())
    own = float(adds[held[tokens]].sum())
    return TermMatch(label, weight, total / weight, 0.0 if total == 0 else 1.0 if own == total else own / total)
