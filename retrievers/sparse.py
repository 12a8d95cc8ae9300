"""Best passages for a query's weighted tokens, from an impact index: exact, in a fraction of a millisecond per 100,000 passages.

Search is MaxScore (Turtle and Flood, Query Evaluation: Strategies and Optimizations, 1995), a range of 8,192 passages at a
time. In each range, tokens are taken in the order of what they can add there at most: query weight times largest impact.
Postings are added up until the tokens left could not, all together, lift a new passage into the best `k`; what those add is then
looked up for the remaining candidates alone. Ranges that cannot reach the worst of the best `k` are passed by.

Arithmetic: query weights become whole numbers whose sum is at most 2^23, by a power of two that depends on the query alone (no
weight becomes 0); a score is the sum of their products with the impacts, 1 to 255, which 32 bits hold exactly. So a score does not
depend on the order of adding, every path gives the same bits, segments compare, and the error against real-valued weights
is at most 2^-23 of the greatest possible score for each token. A score is given back as a weight: its whole number times one step.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexers.impacts import MOST, Query, check_query
from indexers.sparse import SparseIndex, write
from indexers.sparse_file import corrupt
from rag.errors import InputError
from retrievers.dense import Ranked
from retrievers.segments import Allowed, Mask

# Sum of a query's weights as whole numbers: times 255 it stays below 2^31.
_SUM = 1 << 23
_TOKENS = 1 << 16
_LAST = (1 << 32) - 1
_ALL: Mask = np.zeros(0, bool)

Keys = NDArray[np.int64]


class SparseSegment(Protocol):
    """What sparse search uses of a segment."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """The row of each position, ascending, shape (size,)."""

    @property
    def live(self) -> Mask | None:
        """Which positions are not deleted; None: all."""

    @property
    def sparse(self) -> SparseIndex: ...


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """A query in whole numbers, heaviest token first. `step`: the score that one unit times one impact is worth."""

    tokens: NDArray[np.int64]
    units: NDArray[np.int64]
    step: float


def whole(query: Query, index: SparseIndex) -> Whole:
    """
    Raises:
        InputError: see `indexers.impacts.check_query`, or more than 65,536 tokens.
    """
    check_query(query, vocabulary=index.vocabulary)
    ids, weights = query[0].astype(np.int64), query[1].astype(np.float64)
    if len(ids) > _TOKENS:
        raise InputError(f"A query has {len(ids)} distinct tokens; at most {_TOKENS} are possible.", hint="Ask for less at once.",
                         field="query")
    if not len(ids):
        return Whole(ids, ids, 1.0)
    # Rounding adds at most a half to each weight, and lifting it to 1 at most one.
    power = math.frexp((_SUM - len(ids)) / float(weights.sum()))[1] - 1
    units = np.maximum(np.rint(np.ldexp(weights, power)), 1).astype(np.int64)
    order = np.argsort(-units, kind="stable")
    return Whole(ids[order], units[order], math.ldexp(index.scale / MOST, -power))


def search(index: SparseIndex, query: Query, *, k: int, allowed: Mask | None = None) -> Ranked:
    """Positions and scores of the best `k` passages that hold a token of the query and that `allowed` (None: all) lets through,
    best first; ties by position. Fewer where fewer match; none for an empty query or `k` below 1.

    Raises:
        InputError: the query is of another vocabulary or not well formed, or `allowed` has another length than the index.
        SnapshotCorrupt: the file contradicts itself.
    """
    asked = whole(query, index)
    return _ranked(_best(index, asked, k, allowed), asked.step)


def search_batch(index: SparseIndex, queries: Sequence[Query], *, k: int, allowed: Mask | None = None,
                 threads: int = 1) -> list[Ranked]:
    """As `search` of each query; `threads` of them at a time."""
    one = partial(search, index, k=k, allowed=allowed)
    if threads <= 1 or len(queries) <= 1:
        return [one(query) for query in queries]
    with ThreadPoolExecutor(min(threads, len(queries))) as pool:
        return list(pool.map(one, queries))


def search_segments(segments: Sequence[SparseSegment], query: Query, *, k: int, allowed: Allowed | None = None) -> Ranked:
    """Rows and scores of the best `k` over all segments, best first, ties by row. `allowed`: the positions that may be
    returned, segment by segment; None for those that live.

    Raises: as `search`; SnapshotMismatch for segments of different models.
    """
    if not segments:
        return []
    masks = [segment.live for segment in segments] if allowed is None else allowed
    asked = whole(query, segments[0].sparse)
    scores, rows = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for segment, mask in zip(segments, masks, strict=True):
        segment.sparse.check_same_model(segments[0].sparse)
        before = np.concatenate(scores)
        # A tie with the worst of the best k so far may win by its row.
        floor = int(np.partition(before, -k)[-k]) if 0 < k <= len(before) else 1
        keys = _best(segment.sparse, asked, k, mask, floor=floor)
        scores.append(keys >> 32)
        rows.append(segment.rows[_LAST - (keys & _LAST)])
    found, row = np.concatenate(scores), np.concatenate(rows)
    order = np.lexsort((row, -found))[:max(k, 0)]
    return list(zip(row[order].tolist(), (found[order] * asked.step).tolist(), strict=True))


def exhaustive(index: SparseIndex, query: Query, *, k: int, allowed: Mask | None = None) -> Ranked:
    """What `search` returns, from every posting of every token: the measure of what pruning saves."""
    from retrievers.sparse_search import best_of_all

    asked, limit = whole(query, index), min(k, index.size)
    if limit < 1 or not len(asked.tokens):
        return []
    views = index.views
    keys, sound = best_of_all(views.bytes_, views.shorts, views.words, views.layout, index.size, asked.tokens, asked.units, limit,
                              _mask(index, allowed))
    _check(index, sound)
    return _ranked(keys, asked.step)


def warm() -> None:
    """Has the searches compiled: seconds at the first call on a machine, then a fraction of one, from a cache on disk."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), [(np.zeros(1, np.int32), np.ones(1, np.float32))], vocabulary=1, scale=1.0)
        index = SparseIndex(Path(folder))
        query, first = (np.zeros(1, np.int32), np.ones(1, np.float32)), np.zeros(1, np.int64)
        search(index, query, k=1)
        score(index, query, first)


def matched(index: SparseIndex, query: Query, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The impact of each token of the query, in its order, in each of these passages; 0 where it is not in it. Shape
    (positions, tokens). Positions in any order, repeats allowed.

    Raises:
        InputError: as `search`, or a position that is not there.
    """
    check_query(query, vocabulary=index.vocabulary)
    return _impacts(index, query[0].astype(np.int64), positions)


def score(index: SparseIndex, query: Query, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """The score of each of these passages, the same to the last bit as `search` gives; 0 where no token matches.
    The re-ranking of TILDEv2: a lookup in the lists, a binary search for each token and passage, without reading them through.

    Raises: as `matched`.
    """
    asked = whole(query, index)
    scores: NDArray[np.int64] = _impacts(index, asked.tokens, positions).astype(np.int64) @ asked.units
    return scores.astype(np.float64) * asked.step


def rerank(index: SparseIndex, query: Query, positions: NDArray[np.int64]) -> Ranked:
    """These passages by their score, best first, ties by position, those without a token of the query last with score 0.

    Raises: as `matched`.
    """
    scores = score(index, query, positions)
    order = np.lexsort((positions, -scores))
    return list(zip(positions[order].tolist(), scores[order].tolist(), strict=True))


def _best(index: SparseIndex, asked: Whole, k: int, allowed: Mask | None, *, floor: int = 1) -> Keys:
    from retrievers.sparse_search import best

    mask, limit = _mask(index, allowed), min(k, index.size)
    if limit < 1 or not len(asked.tokens):
        return np.zeros(0, np.int64)
    views = index.views
    keys, sound = best(views.bytes_, views.shorts, views.words, views.layout, index.size, asked.tokens, asked.units, limit, mask,
                       floor)
    _check(index, sound)
    return keys


def _mask(index: SparseIndex, allowed: Mask | None) -> Mask:
    """As the compiled loops take it: read-only, so that they are compiled once, and empty for all."""
    if allowed is None:
        mask = _ALL.view()
    elif allowed.shape != (index.size,) or allowed.dtype != bool:
        raise InputError(f"A mask of shape {allowed.shape} and type {allowed.dtype} for {index.size} passages.",
                         hint="Give one truth value for each position of the segment.", field="allowed")
    else:
        mask = np.ascontiguousarray(allowed).view()
    mask.flags.writeable = False
    return mask


def _impacts(index: SparseIndex, tokens: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    from retrievers.sparse_search import impacts_at

    if len(positions) and not 0 <= positions.min() <= positions.max() < index.size:
        raise InputError(f"There are no passages {positions.min()} to {positions.max()} in an index of {index.size}.",
                         hint="Give positions of this segment.", field="positions")
    order, views = np.argsort(positions, kind="stable"), index.views
    impacts, sound = impacts_at(views.bytes_, views.shorts, views.words, views.layout, tokens, positions[order].astype(np.int64))
    _check(index, sound)
    found = np.empty_like(impacts)
    found[order] = impacts
    return found


def _check(index: SparseIndex, sound: bool) -> None:
    if not sound:
        raise corrupt(index.path, "has lists that are not where its sections say, or postings of passages that are not there")


def _ranked(keys: Keys, step: float) -> Ranked:
    positions = _LAST - (keys & _LAST)
    return list(zip(positions.tolist(), ((keys >> 32) * step).tolist(), strict=True))
