"""Part of the sparse bench: what an index keeps of real term weights, and what it loses of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.bench import Measurement
from eval.origins.bags import Bags, products
from eval.origins.encoded import Terms
from indexers import sparse
from indexers.encoders.term_weights import TermModel
from indexers.impacts import quantised
from rag.durable import tree_bytes

HALF_BYTES = 2
_K = 10


def kept(sets: Sequence[Terms], model: TermModel, *, scratch: Path) -> Iterator[Measurement]:
    """Bytes and postings of all sets in one index, and how many of each question's best ten stay among the best ten of its own set
    when weights are rounded to eight bits."""
    passages = joined([terms.passages for terms in sets])
    own = np.concatenate([terms.own for terms in sets])
    name = f"{model.name}, {passages.size:,} real passages"
    folder = scratch / "sparse-real"
    folder.mkdir()
    sparse.write(folder, each(passages), vocabulary=model.size, scale=model.facts.scale)
    size = tree_bytes(folder) / passages.size
    whole = model.size * HALF_BYTES
    yield Measurement(f"{name}: on disk", size, "bytes/passage", passages.size)
    yield Measurement(f"full-vocabulary TILDE, {passages.size:,} real passages: on disk", whole, "bytes/passage", passages.size,
                      whole / size, f"{name}: on disk")
    yield Measurement(f"{name}: smaller than full-vocabulary TILDE by", 1 - size / whole, "share", passages.size)
    yield Measurement(f"{name}: postings", len(passages.tokens) / passages.size, "postings/passage", passages.size)
    yield Measurement(f"{name}: postings by expansion", float((~own).sum()) / passages.size, "postings/passage", passages.size)
    clipped = quantised(passages.weights, scale=model.facts.scale)[1] / max(1, len(passages.weights))
    yield Measurement(f"{name}: weights above the scale", clipped, "share", len(passages.weights))
    shares = np.concatenate([overlaps(terms, scale=model.facts.scale) for terms in sets])
    yield Measurement(f"{name}: overlap@10 of eight bits with floats", float(shares.mean()), "share", len(shares))


def overlaps(terms: Terms, *, scale: float) -> NDArray[np.float64]:
    """For each question with terms that some passage has: the share of the best ten by floats among the best ten by impacts."""
    exact = products(terms.queries, terms.passages)
    rounded = products(terms.queries, terms.passages.in_eight_bits(scale=scale))
    found = []
    for floats, impacts in zip(exact, rounded, strict=True):
        first, second = _best(floats), _best(impacts)
        if len(first):
            found.append(len(np.intersect1d(first, second)) / len(first))
    return np.asarray(found)


def joined(parts: Sequence[Bags]) -> Bags:
    return Bags(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("counts", "tokens", "weights")))


def each(passages: Bags) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    ends = np.cumsum(passages.counts)
    for start, end in zip((ends - passages.counts).tolist(), ends.tolist(), strict=True):
        yield passages.tokens[start:end], passages.weights[start:end]


def _best(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    order = np.argsort(-scores, kind="stable")[:_K]
    return order[scores[order] > 0]
