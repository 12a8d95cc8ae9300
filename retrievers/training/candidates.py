"""What fusion sees of a question, as numbers: its candidates' comparable scores, and which documents they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.origins.scored import Scored
from eval.origins.ways import candidate_scores
from retrievers import fusion
from retrievers.fusion_scores import comparable

K = 10
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """One question. `features`: (candidates, origins), by `retrievers.fusion_scores.comparable`. The candidates stand by document;
    `starts`: where each document begins (documents,); `gold`: the places of right documents among these. `ideal`: the greatest
    possible DCG@10, also with what is not among the candidates."""

    features: Floats
    starts: NDArray[np.int64]
    gold: NDArray[np.int64]
    ideal: float


def candidates(scored: Scored, question: int, *, origins: Sequence[str]) -> Candidates | None:
    """None for a question without terms if `origins` has sparse: another combination answers it."""
    if "sparse" in origins and scored.without_terms[question]:
        return None
    lists = {origin: scored.best(origin, question) for origin in origins}
    rows = fusion.union({origin: [(row, 0.0) for row in best.tolist()] for origin, best in lists.items()})
    features = comparable(candidate_scores(scored, question, lists, rows))
    documents = np.asarray([scored.chunks.documents[row] for row in rows.tolist()])
    # By the first row of each document, so that equal scores stay in the order of rows.
    _, first, of = np.unique(documents, return_index=True, return_inverse=True)
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    order = np.argsort(rank[of], kind="stable")
    starts = np.flatnonzero(np.diff(rank[of][order], prepend=-1))
    evidence = scored.chunks.questions[question].evidence
    gold = np.flatnonzero(np.isin(documents[order][starts], evidence))
    ideal = float((1 / np.log2(np.arange(2, min(K, len(set(evidence))) + 2))).sum())
    return Candidates(np.stack([features[origin] for origin in origins], 1)[order], starts, gold, ideal)


def ndcg(found: Candidates, weights: Floats) -> Floats:
    """nDCG@10 by document of the ranking by the weighted sum, for each row of `weights`, (settings, origins): (settings,)."""
    if not len(found.gold):
        return np.zeros(len(weights))
    best = np.maximum.reduceat(weights @ found.features.T, found.starts, axis=1)
    total = np.zeros(len(weights))
    for gold in found.gold:
        own = best[:, gold, None]
        rank = 1 + (best > own).sum(1) + (best[:, :gold] == own).sum(1)
        total += np.where(rank <= K, 1 / np.log2(rank + 1), 0.0)
    fraction: Floats = total / found.ideal
    return fraction


def grid(origins: int, *, steps: int) -> Floats:
    """All ways to divide `steps` equal parts among the origins, as weights that sum to 1; (settings, origins)."""
    parts = np.stack(np.meshgrid(*[np.arange(steps + 1)] * (origins - 1), indexing="ij"), -1).reshape(-1, origins - 1)
    parts = parts[parts.sum(1) <= steps]
    return np.concatenate([parts, steps - parts.sum(1, keepdims=True)], 1) / steps
