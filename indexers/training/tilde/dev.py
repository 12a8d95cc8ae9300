"""Ranking on what was held out, and on a set of another style: by the network, by BM25, and by the dense vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eval.metrics import ndcg_at, recall_at
from indexers.encoders.term_weights import drawn_idf
from indexers.impacts import Statistics
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
    kept: Floats = np.zeros((len(held.rows), len(asked)), np.float32)
    lengthened: Floats = np.zeros_like(kept)
    # Those of like length together: padding would cost as much as text.
    order = np.argsort(np.diff(held.states.starts)[held.rows], kind="stable")
    added = greatest = 0.0
    holding = torch.zeros(len(network.idf), device=device)
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(order), _TOGETHER):
            some = order[start:start + _TOGETHER]
            hidden, ids = held.states.batch(held.rows[some])
            places = torch.from_numpy(ids).to(device)
            ours, new = network.matrix(network(torch.from_numpy(hidden).to(device).float(), places), places)
            holding += ((ours + new) > 0).sum(0)
            added += float((new > 0).sum())
            greatest = max(greatest, float(ours.max()), float(new.max()))
            kept[some] = ours[:, columns].cpu().numpy()
            lengthened[some] = (ours + new)[:, columns].cpu().numpy()
        weights = _weights(network, columns.cpu().numpy(), Statistics(len(held.rows), holding.cpu().numpy().astype(np.int64)))
    network.train()
    table = np.zeros((len(held.queries), len(asked)), np.float32)
    for at, query in enumerate(held.queries):
        tokens, counts = held.tokens.of(int(query))
        table[at, np.searchsorted(asked, tokens)] = counts
    wanted: Floats = table * weights
    of_all = [_judged(held, wanted @ each.T) for each in (lengthened, kept)]
    number, postings = len(held.rows), float(holding.sum())
    return (Quality(*of_all[0], (postings / number), added / number, greatest),
            Quality(*of_all[1], (postings - added) / number, 0.0, greatest))


def _weights(network: TermNetwork, tokens: NDArray[np.int64], statistics: Statistics) -> Floats:
    """As `TermModel.weights`, of the network as it is now."""
    idf = drawn_idf(network.idf.cpu().numpy()[tokens], statistics, tokens)
    found: Floats = np.logaddexp(0, network.asked().cpu().numpy()[tokens] + network.from_idf.item() * idf).astype(np.float32)
    return found


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
