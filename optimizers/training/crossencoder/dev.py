"""Ranking on held-out questions and on sets of another style: the right passage and the right sentence among hard candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from indexers.training.tilde.states import Floats, States
from optimizers.training.crossencoder.batches import Ints
from optimizers.training.crossencoder.network import CrossNetwork, pooled


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Questions with their candidates. `rows`: candidates of each, best of the first search first; `gold`: which of them are right
    passages; `bearing`: for each candidate the sentences that hold the answer, where that is known. `place` as in `Material`."""

    name: str
    passages: States
    queries: States
    place: NDArray[np.int32]
    asked: Ints
    rows: tuple[Ints, ...]
    gold: tuple[frozenset[int], ...]
    bearing: tuple[tuple[frozenset[int], ...], ...]


@dataclass(frozen=True, slots=True)
class Quality:
    """Shares of questions: the right passage first by the cross-encoder, by the dense vectors, by the sum of both as z-scores; the
    right sentence first, and among the first three, of those questions whose answer stands in a sentence."""

    passage: float
    dense: float
    both: float
    sentence: float
    sentences: float

    def to_dict(self) -> dict[str, float]:
        return {name: round(getattr(self, name), 4) for name in ("passage", "dense", "both", "sentence", "sentences")}


def quality(network: CrossNetwork, held: Slice, *, matching: Ints, device: str, bf16: bool = False) -> Quality:
    network.eval()
    with torch.inference_mode():
        found = [_judged(held, at, *scores(network, held, at, matching=matching, device=device, bf16=bf16))
                 for at in range(len(held.asked))]
    network.train()
    first = [each[:3] for each in found]
    told = [each[3:] for each in found if each[3] >= 0]
    passage, dense, both = np.mean(first, axis=0).tolist()
    sentence, sentences = np.mean(told, axis=0).tolist() if told else (0.0, 0.0)
    return Quality(passage, dense, both, sentence, sentences)


def scores(network: CrossNetwork, held: Slice, at: int, *, matching: Ints, device: str, bf16: bool = False
           ) -> tuple[Floats, Floats]:
    """Of the candidates of one question: each sentence, (P, sentences), and each passage, (P,)."""
    from optimizers.training.crossencoder.loop import places, scored

    rows = held.rows[at]
    tokens, _ = scored(network, passages=held.passages, queries=held.queries, rows=rows, asked=np.repeat(held.asked[at], len(rows)),
                       matching=matching, device=device, bf16=bf16)
    where = places(held.passages, held.place, rows)
    found = pooled(tokens, torch.from_numpy(where).to(device), count=int(where.max()) + 1)
    return found.cpu().numpy(), found.logsumexp(1).cpu().numpy()


def _judged(held: Slice, at: int, sentences: Floats, passages: Floats) -> tuple[float, float, float, float, float]:
    rows, gold = held.rows[at], held.gold[at]
    dense: Floats = held.passages.vectors[rows] @ held.queries.vectors[held.asked[at]]
    first = [float(int(np.argmax(each)) in gold) for each in (passages, dense, _standard(passages) + _standard(dense))]
    bearing = {(row, sentence) for row, some in enumerate(held.bearing[at]) for sentence in some}
    if not bearing:
        return (*first, -1.0, -1.0)     # type: ignore[return-value]  # three of them
    best = [divmod(int(place), sentences.shape[1]) for place in np.argsort(-sentences, axis=None, kind="stable")[:3]]
    return (*first, float(best[0] in bearing), float(any(each in bearing for each in best)))    # type: ignore[return-value]


def _standard(values: Floats) -> Floats:
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)


def mean(found: Sequence[Quality]) -> dict[str, float]:
    """Over slices, so that none weighs more for its size."""
    names = found[0].to_dict() if found else {}
    return {name: round(float(np.mean([getattr(each, name) for each in found])), 4) for name in names}
