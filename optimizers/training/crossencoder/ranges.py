"""The 8-bit ranges of the cross-encoder's layers, fitted as those of the encoder are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from indexers.encoders.int8 import Site
from indexers.training.int8 import Feed, fit_graph
from optimizers.crossencoder.graph import joint
from optimizers.crossencoder.model import CrossModel
from optimizers.training.crossencoder.batches import Ints, Material

_PAIRS = 200


def fit_ranges(model: CrossModel, material: Material, *, matching: Ints, seed: int) -> list[Site]:
    """Over training questions with their right passage, and as many with a wrong one."""
    return fit_graph(joint(model), pairs(material, matching=matching, seed=seed), seed=seed)


def pairs(material: Material, *, matching: Ints, seed: int) -> Iterator[Feed]:
    """What the joint graph is fed, a pair at a time."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(material.real)[:_PAIRS // 2]
    for query in chosen.tolist():
        wrong = material.negatives[query]
        for row in (int(material.marked.corpus.gold[query]), *wrong[wrong >= 0][:1].tolist()):
            asked, words = material.queries.batch(np.asarray([query]))
            read, ids = material.passages.batch(np.asarray([row]))
            matched = np.isin(ids, words[words >= 0]) & (matching[np.maximum(ids, 0)] > 0)
            yield {"asked": asked.astype(np.float32), "read": read.astype(np.float32), "there": np.ones(ids.shape, np.float32),
                   "matched": matched.astype(np.float32)}
