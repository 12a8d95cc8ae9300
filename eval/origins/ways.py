"""Rankings of chunks by one origin, by several fused, and by re-ranking: what a search mode returns, from scores of all chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from eval.origins.scored import DEPTH, Rows, Scored
from retrievers import fusion
from retrievers.fusion_scores import Floats
from retrievers.fusion_weights import combination, weights_of
from retrievers.origins import foreign_script

# The best chunks of a question, best first.
Way = Callable[[Scored, int], Rows]
MODES = ("bm25", "dense", "sparse")
SINGLE = (*MODES, "sparse without expansion", "splade")
COMBINATIONS = (("bm25", "dense"), ("dense", "sparse"), ("bm25", "dense", "sparse"))
RERANKED = "bm25 re-ranked by sparse"
# As in TILDEv2 (section 5): what BM25 finds first, by term weights.
_RERANKED = 1000


def single(scored: Scored, question: int, *, origin: str) -> Rows:
    """By one origin; a question without terms by what searches use for it instead of term weights."""
    if origin == "sparse" and scored.without_terms[question]:
        origin = "bm25" if foreign_script(scored.chunks.asked[question]) else "dense"
    return scored.best(origin, question)


def fused(scored: Scored, question: int, *, origins: Sequence[str], weights: Mapping[str, float] | None) -> Rows:
    """By reciprocal rank, or by the weighted sum of comparable scores if `weights` are given for every combination's names. Term
    weights are left out for a question without terms, as searches do."""
    if "sparse" in origins and scored.without_terms[question]:
        origins = [origin for origin in origins if origin != "sparse"]
    lists = {origin: scored.best(origin, question) for origin in origins}
    if len(lists) == 1:
        return lists[origins[0]]
    ranked = {origin: [(row, 0.0) for row in rows.tolist()] for origin, rows in lists.items()}
    if weights is None:
        return _rows(fusion.reciprocal_rank(ranked, k=DEPTH * len(lists)))
    rows = fusion.union(ranked)
    found = fusion.weighted(candidate_scores(scored, question, lists, rows), rows=rows, weights=weights, k=len(rows))
    return _rows(found)


def candidate_scores(scored: Scored, question: int, lists: Mapping[str, Rows], rows: Rows) -> dict[str, Floats]:
    """What each origin says of the candidates `rows`; NaN where BM25 did not find one, since only it is not looked up."""
    found = {}
    for origin, best in lists.items():
        scores = scored.by_origin[origin][question, rows].astype(np.float64)
        found[origin] = np.where(np.isin(rows, best), scores, np.nan) if origin == "bm25" else scores
    return found


def reranked(scored: Scored, question: int) -> Rows:
    """BM25's best thousand by their term weights, ties by row; as BM25 has them for a question without terms."""
    first = scored.best("bm25", question, k=_RERANKED)
    if scored.without_terms[question]:
        return first
    first = np.sort(first)
    return first[np.argsort(-scored.by_origin["sparse"][question, first], kind="stable")]


def ways(origins: Sequence[str]) -> dict[str, Way]:
    """Every way that these origins allow, by the name that figures have, single modes first."""
    found: dict[str, Way] = {origin: partial(single, origin=origin) for origin in SINGLE if origin in origins}
    for names in COMBINATIONS:
        if set(names) <= set(origins):
            found[f"rrf of {combination(names)}"] = partial(fused, origins=names, weights=None)
            found[f"weighted {combination(names)}"] = partial(_weighted, origins=names)
    if {"bm25", "sparse"} <= set(origins):
        found[RERANKED] = reranked
    return found


def _weighted(scored: Scored, question: int, *, origins: Sequence[str]) -> Rows:
    held = [origin for origin in origins if origin != "sparse" or not scored.without_terms[question]]
    return fused(scored, question, origins=held, weights=weights_of(held))


def _rows(ranked: Sequence[tuple[int, float]]) -> Rows:
    return np.asarray([row for row, _ in ranked], np.int64)
