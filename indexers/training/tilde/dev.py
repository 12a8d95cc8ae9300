"""Ranking on what was held out, and on a set of another style: by the network, by BM25, and by the dense vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eval.metrics import ndcg_at, recall_at
from indexers.training.tilde.batches import Rows, Tokens
from indexers.training.tilde.network import Floats, TermNetwork
from indexers.training.tilde.states import States

K = 10
_TOGETHER = 32


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Queries over some of the passages of a store. `gold`: the right passages of each query, among `rows`."""

    name: str
    digest: str                 # of what it is cut from
    states: States
    rows: Rows
    passages: Sequence[str]     # texts of `rows`
    texts: Sequence[str]        # of the queries
    vectors: Floats             # (queries, H)
    tokens: Tokens
    queries: Rows               # their places in `tokens`
    gold: Sequence[frozenset[int]]


@dataclass(frozen=True, slots=True)
class Quality:
    """`postings` and `added`: mean number of tokens of a passage with a weight, and of those that it does not hold."""

    ndcg: float
    recall: float
    postings: float = 0.0
    added: float = 0.0
    greatest: float = 0.0

    def to_dict(self) -> dict[str, float]:
        return {"ndcg@10": round(self.ndcg, 4), "recall@10": round(self.recall, 4), "postings": round(self.postings, 1),
                "added": round(self.added, 1), "greatest": round(self.greatest, 3)}


def quality(network: TermNetwork, held: Slice, *, device: str) -> tuple[Quality, Quality]:
    """With expansion and without."""
    asked = np.unique(np.concatenate([held.tokens.of(int(query))[0] for query in held.queries]))
    columns = torch.from_numpy(asked.astype(np.int64)).to(device)
    kept, lengthened = [], []
    postings = added = greatest = 0.0
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(held.rows), _TOGETHER):
            hidden, ids = held.states.batch(held.rows[start:start + _TOGETHER])
            places = torch.from_numpy(ids).to(device)
            ours, new = network.matrix(network(torch.from_numpy(hidden).to(device).float(), places), places)
            postings += float((ours > 0).sum() + (new > 0).sum())
            added += float((new > 0).sum())
            greatest = max(greatest, float(ours.max()), float(new.max()))
            kept.append(ours[:, columns].cpu().numpy())
            lengthened.append((ours + new)[:, columns].cpu().numpy())
        weights = network.questions()[columns].cpu().numpy()
    network.train()
    table = np.zeros((len(held.queries), len(asked)), np.float32)
    for at, query in enumerate(held.queries):
        tokens, counts = held.tokens.of(int(query))
        table[at, np.searchsorted(asked, tokens)] = counts
    of_all = [_judged(held, (table * weights) @ np.concatenate(each).T) for each in (lengthened, kept)]
    number = len(held.rows)
    return (Quality(*of_all[0], (postings / number), added / number, greatest),
            Quality(*of_all[1], (postings - added) / number, 0.0, greatest))


def dense_quality(held: Slice) -> Quality:
    return Quality(*_judged(held, held.vectors @ held.states.vectors[held.rows].T))


def ranked_quality(held: Slice, rank: Callable[[str], Sequence[int]]) -> Quality:
    """`rank`: the passages of `held.rows`, best first, for a query's text."""
    rankings = [[str(row) for row in rank(text)] for text in held.texts]
    return Quality(*_means(rankings, held.gold))


def macro(found: Mapping[str, Quality]) -> float:
    """Mean nDCG@10 over slices, so that none weighs more for its size."""
    return float(np.mean([each.ndcg for each in found.values()])) if found else 0.0


def _judged(held: Slice, scores: NDArray[np.float32]) -> tuple[float, float]:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    rankings = [[str(held.rows[at]) for at in best if scores[row, at] > 0] for row, best in enumerate(order)]
    return _means(rankings, held.gold)


def _means(rankings: Sequence[Sequence[str]], gold: Sequence[frozenset[int]]) -> tuple[float, float]:
    wanted = [{str(row) for row in rows} for rows in gold]
    pairs = list(zip(rankings, wanted, strict=True))
    return (float(np.mean([ndcg_at(ranking, rows, k=K) for ranking, rows in pairs])),
            float(np.mean([recall_at(ranking, rows, k=K) for ranking, rows in pairs])))
