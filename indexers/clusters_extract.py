"""A summary made of the members' own sentences, without a language model: what can always be made, and always be quoted.

Sentences are chosen greedily by what they add to the coverage of all sentences of the cluster, for their tokens:

    F(S) = sum over sentences v of  max over u in S of  max(cos(u, v), 0) * c(v)

with c(v) the cosine of v to the mean of all, so that what many texts say is what has to be covered (facility location, Lin and
Bilmes 2011, section 4; the weight is ours). F is monotone and submodular. Between sentences that add alike per token^`_COST` the
first wins: members come nearest first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from indexers.clusters import Sentence
from indexers.encoders import Vectors
from rag.types import Chunk

# Sentences that are looked at, of the nearest members; the time grows with their square.
MOST = 96
_COST = 0.3
# Shorter ones say nothing alone ("Great!"), longer ones too much at once: taken only where there are no others.
_WORDS = (4, 40)
_REPEATS = 0.9
_WORD = re.compile(r"\w+")

Encode = Callable[[Sequence[str]], Vectors]
Count = Callable[[Sequence[str]], list[int]]


def extracted(members: Sequence[Chunk], rows: Sequence[int], *, tokens: int, encode: Encode, count: Count) -> tuple[Sentence, ...]:
    """Sentences worth `tokens` at most together, the most telling first; at least one if any member has one, whatever its length.
    `rows`: of the members, nearest to the centroid first, in parallel."""
    found = _candidates(members, rows)
    if not found:
        return ()
    texts = [text for _, text in found]
    vectors, costs = encode(texts), count(texts)
    return tuple(found[place][0] for place in chosen(vectors, costs, tokens=tokens))


def chosen(vectors: Vectors, costs: Sequence[int], *, tokens: int) -> list[int]:
    """Places of the chosen sentences in the order of choice; never empty where there is a sentence: the one that covers most
    for its tokens if none fits. `vectors`: unit rows."""
    cosines = np.maximum(vectors.astype(np.float64) @ vectors.T.astype(np.float64), 0)
    mean = vectors.astype(np.float64).mean(axis=0)
    length = float(np.linalg.norm(mean))
    weights = np.maximum(vectors @ (mean / length), 0) if length > 0 else np.ones(len(vectors))
    covered = np.zeros(len(vectors))
    picked: list[int] = []
    left = tokens
    while True:
        gains = np.maximum(cosines - covered, 0) @ weights
        worth = {i: float(gains[i]) / max(1, costs[i]) ** _COST for i in range(len(costs))
                 if i not in picked and costs[i] <= left and all(cosines[i, j] < _REPEATS for j in picked)}
        if not worth:
            break
        best = max(worth, key=lambda i: (round(worth[i], 9), -i))
        picked.append(best)
        left -= costs[best]
        covered = np.maximum(covered, cosines[best])
    if not picked and len(costs):
        whole = cosines @ weights
        picked = [max(range(len(costs)), key=lambda i: (round(float(whole[i]) / max(1, costs[i]), 9), -i))]
    return picked


def _candidates(members: Sequence[Chunk], rows: Sequence[int]) -> list[tuple[Sentence, str]]:
    """The first `MOST` sentences of good length, each text once; of any length where there are none."""
    found: dict[str, Sentence] = {}
    other: dict[str, Sentence] = {}
    for row, chunk in zip(rows, members, strict=True):
        for index in range(len(chunk.sentences)):
            text = chunk.sentence(index)
            good = _WORDS[0] <= len(_WORD.findall(text)) <= _WORDS[1]
            (found if good else other).setdefault(text, (row, index))
        if len(found) >= MOST:
            break
    taken = found or other
    return [(place, text) for text, place in list(taken.items())[:MOST]]
