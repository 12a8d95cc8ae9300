"""What one optimisation step sees. A batch depends on the seed and the number of its step alone, so a run that was killed
goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexers.encoders.term_weights_tokens import Mask
from indexers.encoders.tokenizing import EncoderTokenizer
from indexers.training.tilde.corpus import Corpus
from indexers.training.tilde.network import Backbone, Floats
from indexers.training.tilde.states import States
from indexers.training.tilde.teacher import Taught

Rows = NDArray[np.int64]
# A passage whose similarity exceeds that of the right one by this much may answer as well: it is no negative.
_AS_GOOD = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Distinct tokens of each query with their counts, stop words left out, end to end."""

    ids: NDArray[np.int32]
    counts: NDArray[np.int32]
    starts: NDArray[np.int64]

    def of(self, query: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        start, end = int(self.starts[query]), int(self.starts[query + 1])
        return self.ids[start:end], self.counts[start:end]


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """All that batches are drawn from. `targets`: tokens that the questions of a passage hold and it does not, by passage."""

    corpus: Corpus
    states: States
    queries: Floats             # (Q, H) dense vectors
    tokens: Tokens
    candidates: NDArray[np.int32]
    targets: Sequence[NDArray[np.int32]]
    taught_passages: Taught | None
    taught_queries: Taught | None
    folds: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """`own`: which of `passages` is right for each query, -1 for made-up ones. `allowed`: (Q, P), False where a passage is no
    fair negative."""

    queries: Rows
    passages: Rows
    own: Rows
    allowed: Mask
    similarity: Floats          # (Q, P), of the dense vectors


def tokenised(texts: Sequence[str], *, tokenizer: EncoderTokenizer, backbone: Backbone) -> Tokens:
    found = [np.unique(backbone.folds[ids[backbone.kept[ids]]], return_counts=True)
             for ids in (np.asarray(row, np.int32) for row in tokenizer.encode(texts))]
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in found])]).astype(np.int64)
    empty = np.zeros(0, np.int32)
    ids, counts = (np.concatenate([empty, *(pair[part] for pair in found)]).astype(np.int32) for part in (0, 1))
    return Tokens(ids, counts, starts)


def missing_tokens(corpus: Corpus, states: States, tokens: Tokens, *, further: Tokens, addable: Mask) -> list[NDArray[np.int32]]:
    """For each passage, tokens of the training questions about it that it does not hold and that may be added to it. `tokens`: of
    the corpus's queries, `further`: of the questions beyond these."""
    asked: list[list[NDArray[np.int32]]] = [[] for _ in corpus.texts]
    drawn_ones = [(int(corpus.gold[query]), tokens.of(int(query))[0]) for query in corpus.training if corpus.gold[query] >= 0]
    others = [(row, further.of(at)[0]) for at, (_, row) in enumerate(corpus.further)]
    for row, ids in (*drawn_ones, *others):
        asked[row].append(ids[addable[ids]])
    nothing = np.zeros(0, np.int32)
    return [np.setdiff1d(np.concatenate([nothing, *ids]), states.ids[states.starts[row]:states.starts[row + 1]])
            for row, ids in enumerate(asked)]


def mean_length(states: States, rows: Rows, *, kept: Mask) -> float:
    """Of these passages, in tokens that may carry a weight."""
    return float(np.mean([np.count_nonzero(kept[states.ids[states.starts[row]:states.starts[row + 1]]]) for row in rows]))


def idf(states: States, rows: Rows, *, size: int) -> Floats:
    """ln(1 + (N - n + 0.5) / (n + 0.5)) of each token over these passages, as BM25 has it."""
    holding = np.zeros(size, np.int64)
    for row in rows:
        holding[np.unique(states.ids[states.starts[row]:states.starts[row + 1]])] += 1
    found: Floats = np.log1p((len(rows) - holding + 0.5) / (holding + 0.5)).astype(np.float32)
    return found


def drawn(material: Material, *, step: int, seed: int, queries: int, group: int, real_share: float) -> Batch:
    """`queries` queries with `group` passages each: the right one, or for a made-up query one of its candidates, and further
    candidates; where these are too few, any passage."""
    rng = np.random.default_rng((seed, step))
    corpus, training = material.corpus, material.corpus.training
    real = training[corpus.gold[training] >= 0]
    made = training[corpus.gold[training] < 0]
    count = round(queries * (real_share if len(made) else 1.0)) if len(real) else 0
    chosen = np.concatenate([rng.choice(pool, number) for pool, number in ((real, count), (made, queries - count)) if number])
    everyone = np.flatnonzero(~corpus.held)
    passages = np.concatenate([_group(material, int(query), rng, size=group, everyone=everyone) for query in chosen])
    gold = corpus.gold[chosen].astype(np.int64)
    own = np.where(gold >= 0, np.arange(queries) * group, -1)
    similarity = material.queries[chosen] @ material.states.vectors[passages].T
    right = similarity[np.arange(queries), np.maximum(own, 0)][:, None]
    allowed = (similarity <= right + _AS_GOOD) & (passages[None, :] != gold[:, None])
    allowed[np.arange(queries), np.maximum(own, 0)] = True
    return Batch(chosen, passages, own, allowed, similarity.astype(np.float32))


def _group(material: Material, query: int, rng: np.random.Generator, *, size: int, everyone: Rows) -> Rows:
    candidates = material.candidates[query]
    candidates = candidates[candidates >= 0].astype(np.int64)
    gold = int(material.corpus.gold[query])
    wanted = size - (gold >= 0)
    picked = rng.permutation(candidates)[:wanted]
    rest = rng.choice(everyone, wanted - len(picked))
    return np.concatenate([np.asarray([gold] if gold >= 0 else [], np.int64), picked, rest])
