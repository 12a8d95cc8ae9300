"""Term weights of passages and queries, and the eight bits in which an index keeps those of passages.

Source: TILDEv2 (Zhuang and Zuccon 2021, arXiv 2108.08513) for the scoring; DeepImpact and uniCOIL for eight-bit impacts.

    score(query, passage) = sum over the query's tokens of  query weight * passage weight
    impact = max(1, round(weight / scale * 255)), at most 255      weight is about impact * scale / 255

Departures: released code quantises by `floor` and lets a weight fall to 0, which takes the token out of its passage; here it
is rounded, halves to even, and no token is lost. `scale` is the largest weight of the model, fixed with it, and never that of
the passages at hand: impacts of all segments are comparable and merge as they are. A weight above it is cut, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag.errors import InputError

# Distinct token ids of one passage, ascending, and their weights, positive and finite. Parallel; both may be empty.
Impacts = tuple[NDArray[np.int32], NDArray[np.float32]]
# The same for a query: distinct ids, in any order. A tokenizer and a table of weights make it, never a network.
Query = tuple[NDArray[np.int32], NDArray[np.float32]]

MOST = 255
NOTHING: Impacts = (np.zeros(0, np.int32), np.zeros(0, np.float32))
_MODEL = "Take term weights and index from one model: its folder names vocabulary and scale."


@dataclass(frozen=True, slots=True)
class Bag:
    """The impacts of consecutive passages end to end. `counts`: tokens of each passage; `tokens` ascend within each.

    `clipped`: how many weights were above the scale.
    """

    counts: NDArray[np.int64]
    tokens: NDArray[np.int32]
    impacts: NDArray[np.uint8]
    clipped: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Weighed:
    """The term weights of some passages, in their order, with what an index must know of their model."""

    impacts: Sequence[Impacts]
    vocabulary: int
    scale: float

    def part(self, start: int, end: int) -> Weighed:
        return Weighed(self.impacts[start:end], self.vocabulary, self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """How many passages a collection has, and how many of them have a weight for each token of the vocabulary, (V,)."""

    passages: int
    holding: NDArray[np.int64]


def packed(impacts: Impacts, *, vocabulary: int, scale: float) -> bytes:
    """As it can be stored and come back with the same eight bits: all ids, little-endian, then all impacts."""
    ids, weights = impacts
    return ids.astype(_id_type(vocabulary)).tobytes() + quantised(weights, scale=scale)[0].tobytes()


def unpacked(data: bytes, *, vocabulary: int, scale: float) -> Impacts | None:
    """What `packed` made of a model with the same numbers; None for what it cannot have made."""
    kind = _id_type(vocabulary)
    count, rest = divmod(len(data), kind.itemsize + 1)
    if rest:
        return None
    ids = np.frombuffer(data, kind, count).astype(np.int32)
    eight = np.frombuffer(data, np.uint8, count, offset=count * kind.itemsize)
    if count and (ids[-1] >= vocabulary or (np.diff(ids) <= 0).any() or not eight.all()):
        return None
    return ids, restored(eight, scale=scale)


def _id_type(vocabulary: int) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u2") if vocabulary <= 1 << 16 else np.dtype("<u4")


def quantised(weights: NDArray[np.float32], *, scale: float) -> tuple[NDArray[np.uint8], int]:
    """Impacts of weights, 1 to 255, and how many weights were above the scale. Weights are positive and finite."""
    steps = np.rint(weights.astype(np.float64) * (MOST / scale))
    return np.clip(steps, 1, MOST).astype(np.uint8), int(np.count_nonzero(weights > np.float32(scale)))


def restored(impacts: NDArray[np.uint8], *, scale: float) -> NDArray[np.float32]:
    """The weights that impacts stand for: within half a step, scale / 510, of what they were made from, but for weights
    below half a step or above the scale."""
    return (impacts * (scale / MOST)).astype(np.float32)


def bag(passages: list[Impacts], *, vocabulary: int, scale: float, first: int = 0) -> Bag:
    """The quantised impacts of these passages; the first of them is number `first` in what errors say.

    Raises:
        InputError: names the passage whose ids do not ascend, are outside of the vocabulary, or do not go with its weights, or
            with a weight that is not positive and finite.
    """
    counts = np.asarray([len(ids) for ids, _ in passages], np.int64)
    _parallel(passages, counts, first)
    tokens = np.concatenate([NOTHING[0], *(np.asarray(ids) for ids, _ in passages)])
    weights = np.concatenate([NOTHING[1], *(np.asarray(some, np.float32) for _, some in passages)])
    if tokens.dtype.kind not in "iu":
        raise InputError(f"Token ids are numbers of type {tokens.dtype}, not integers.", hint=_MODEL, field="weights")
    begins = np.zeros(len(tokens) + 1, bool)
    begins[np.cumsum(counts) - counts] = True
    _refuse((tokens < 0) | (tokens >= vocabulary), tokens, counts, first, f"is not of the vocabulary of {vocabulary} tokens")
    _refuse(~np.isfinite(weights) | (weights <= 0), weights, counts, first, "is no positive, finite weight")
    if len(tokens) > 1:
        falling = np.concatenate([[False], tokens[1:] <= tokens[:-1]]) & ~begins[:-1]
        _refuse(falling, tokens, counts, first, "does not come after the token before it")
    impacts, clipped = quantised(weights, scale=scale)
    return Bag(counts, tokens.astype(np.int32), impacts, clipped)


def check_model(*, vocabulary: int, scale: float) -> None:
    """
    Raises:
        InputError: no vocabulary, or a scale that is not positive and finite.
    """
    if not 0 < vocabulary < 2**31:
        raise InputError(f"A vocabulary has 1 to {2**31 - 1} tokens, not {vocabulary}.", hint=_MODEL, field="vocabulary")
    if not (math.isfinite(scale) and np.isfinite(np.float32(scale)) and np.float32(scale) > 0):
        raise InputError(f"A scale of weights is positive and finite, not {scale}.", hint=_MODEL, field="scale")


def check_query(query: Query, *, vocabulary: int) -> None:
    """
    Raises:
        InputError: ids that repeat, are outside of the vocabulary or do not go with their weights, or a weight that is not
            positive and finite.
    """
    ids, weights = query
    if ids.ndim != 1 or ids.shape != weights.shape:
        raise InputError(f"A query has ids of shape {ids.shape} with weights of shape {weights.shape}.", hint=_MODEL, field="query")
    if not len(ids):
        return
    if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= vocabulary:
        raise InputError(f"A query has token ids from {ids.min()} to {ids.max()} of type {ids.dtype}, but the vocabulary has "
                         f"{vocabulary} tokens.", hint=_MODEL, field="query")
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise InputError(f"A query has weights from {weights.min()} to {weights.max()}; they must be positive and finite.",
                         hint="Leave tokens without weight out.", field="query")
    if len(np.unique(ids)) != len(ids):
        raise InputError(f"A query of {len(ids)} tokens has only {len(np.unique(ids))} distinct ones.",
                         hint="Give each token once, with the sum of its weights.", field="query")


def _parallel(passages: list[Impacts], counts: NDArray[np.int64], first: int) -> None:
    for number, (ids, weights) in enumerate(passages):
        if ids.shape != (counts[number],) or weights.shape != ids.shape:
            raise InputError(f"Passage {first + number} has token ids of shape {ids.shape} with weights of shape {weights.shape}.",
                             hint=_MODEL, field="weights")


def _refuse(wrong: NDArray[np.bool_], values: NDArray[np.int32] | NDArray[np.float32], counts: NDArray[np.int64], first: int,
            what: str) -> None:
    """Raises for the first wrong entry, naming its passage and value."""
    if wrong.any():
        at = int(np.argmax(wrong))
        passage = first + int(np.searchsorted(np.cumsum(counts), at, side="right"))
        raise InputError(f"Passage {passage} has {values[at]}, which {what}.", hint=_MODEL, field="weights")
