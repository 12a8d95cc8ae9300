"""What one optimisation step sees. A batch depends on the seed and the number of its step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexers.encoders.tokenizing import EncoderTokenizer
from indexers.training.tilde.states import Floats, States
from optimizers.training.crossencoder.corpus import Marked, Span

Ints = NDArray[np.int64]
OUTSIDE = -1
# A passage whose similarity exceeds that of the right one by this much may answer as well: it is no negative.
_AS_GOOD = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """All that batches are drawn from. `place`: for each token of each passage the number of its sentence, or OUTSIDE, end to
    end as in `passages`. `right`: for each query the tokens of its gold passage that answer it. `negatives`: candidates of each
    query, -1 for none, none of which holds the answer. `live`: queries that may be drawn."""

    marked: Marked
    passages: States
    queries: States
    place: NDArray[np.int32]
    right: Sequence[NDArray[np.int32]]
    negatives: NDArray[np.int32]
    real: Ints
    made: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Q queries of G passages each, those of a query one after the other. `own`: whether the first of them is right."""

    queries: Ints               # (Q,)
    passages: Ints              # (Q * G,)
    own: NDArray[np.bool_]      # (Q,)
    similarity: Floats          # (Q, G), of the dense vectors


def placed(texts: Sequence[str], sentences: Sequence[Sequence[Span]], *, tokenizer: EncoderTokenizer, passages: States
           ) -> NDArray[np.int32]:
    """The sentence of each token; special tokens, titles and what is cut off have none."""
    found = np.full(int(passages.starts[-1]), OUTSIDE, np.int32)
    for row, (text, spans) in enumerate(zip(texts, sentences, strict=True)):
        start, end = int(passages.starts[row]), int(passages.starts[row + 1])
        found[start:end] = sentence_of(tokenizer.offsets(text), spans, length=end - start)
    return found


def sentence_of(offsets: Sequence[Span], spans: Sequence[Span], *, length: int) -> NDArray[np.int32]:
    """For a passage of `length` tokens, two special ones included, the sentence that each begins in."""
    found = np.full(length, OUTSIDE, np.int32)
    begins = np.asarray([start for start, _ in offsets[:length - 2]], np.int64)
    for number, (start, end) in enumerate(spans):
        found[1:1 + len(begins)][(begins >= start) & (begins < end)] = number
    return found


def touching(offsets: Sequence[Span], spans: Sequence[Span], *, length: int) -> NDArray[np.int32]:
    """The tokens, counted with the special one before, that share a character with any of the spans."""
    return np.asarray([at + 1 for at, (first, last) in enumerate(offsets[:length - 2])
                       if any(first < end and start < last for start, end in spans)], np.int32)


def drawn(material: Material, *, step: int, seed: int, queries: int, group: int, real_share: float) -> Batch:
    rng = np.random.default_rng((seed, step))
    count = round(queries * (real_share if len(material.made) else 1.0))
    chosen = np.concatenate([rng.choice(pool, number) for pool, number in ((material.real, count), (material.made, queries - count))
                             if number])
    passages = np.concatenate([_group(material, int(query), rng, size=group) for query in chosen])
    vectors = material.passages.vectors[passages].reshape(queries, group, -1)
    similarity = np.einsum("qgh,qh->qg", vectors, material.queries.vectors[chosen])
    return Batch(chosen, passages, material.marked.corpus.gold[chosen] >= 0, similarity.astype(np.float32))


def fair(candidates: NDArray[np.int32], similarity: Floats, right: float) -> NDArray[np.int32]:
    """The candidates that are not clearly nearer to the question than the right passage."""
    return np.where(similarity <= right + _AS_GOOD, candidates, -1).astype(np.int32)


def _group(material: Material, query: int, rng: np.random.Generator, *, size: int) -> Ints:
    gold = int(material.marked.corpus.gold[query])
    candidates = material.negatives[query]
    candidates = candidates[candidates >= 0].astype(np.int64)
    wanted = size - (gold >= 0)
    picked = rng.permutation(candidates)[:wanted]
    rest = rng.choice(np.flatnonzero(~material.marked.corpus.held), wanted - len(picked))
    return np.concatenate([np.asarray([gold] if gold >= 0 else [], np.int64), picked, rest])
