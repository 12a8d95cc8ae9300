"""Vectors, term weights and SPLADE's weights of chunks and questions, each made once for a model and remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eval.origins.bags import Bags, bags
from eval.origins.chunked import Chunked
from eval.origins.remembered import Arrays, Remembered
from indexers.encoders import Vectors
from indexers.impacts import Statistics
from rag.types import OnProgress, Progress

if TYPE_CHECKING:
    from indexers.encoders.openvino import OpenVinoEncoder
    from indexers.encoders.term_weights_openvino import OpenVinoTermWeights
    from indexers.training.tilde.teacher import Splade

Mask = NDArray[np.bool_]
# As SPLADE reads them; chunks of a collection are shorter.
_SPLADE_TOKENS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Term weights of a set's chunks as the network gave them, which of them are of tokens that the chunk holds, and those of its
    questions."""

    passages: Bags
    own: Mask
    queries: Bags


def vectors(encoder: OpenVinoEncoder, texts: Sequence[str], digest: str, *, kept: Remembered, note: str,
            on_progress: OnProgress) -> Vectors:
    """Unit vectors of the texts."""
    def make() -> Arrays:
        tell = _teller("vectors", len(texts), note, on_progress)
        return {"vectors": encoder.encode(texts, on_batch=tell)}

    found: Vectors = kept.arrays(_dense(encoder), digest, make)["vectors"].astype(np.float32)
    return found


def terms(encoder: OpenVinoTermWeights, folder: Path, chunks: Chunked, *, kept: Remembered, on_progress: OnProgress) -> Terms:
    """Term weights of the chunks, and of the questions as a collection of these chunks weighs them. The vectors, which come with
    the first, are remembered too."""
    def make() -> Arrays:
        tell = _teller("term weights", len(chunks.texts), chunks.name, on_progress)
        found, weighted = encoder.encode_with_terms(chunks.texts, on_batch=tell)
        kept.arrays(_dense(encoder), chunks.digest, lambda: {"vectors": found})
        every = bags(weighted)
        return {"counts": every.counts, "tokens": every.tokens, "weights": every.weights,
                "own": _own(encoder, folder, chunks.texts, every).astype(np.uint8)}

    found = kept.arrays(f"{encoder.terms.name}-{encoder.precision}", chunks.digest, make)
    passages = Bags(found["counts"].astype(np.int64), found["tokens"].astype(np.int32), found["weights"].astype(np.float32))
    known = Statistics(passages.size, np.bincount(passages.tokens, minlength=encoder.terms.size))
    return Terms(passages, found["own"].astype(bool), bags([encoder.query(text, statistics=known) for text in chunks.asked]))


def splade(model: Splade, texts: Sequence[str], digest: str, *, kept: Remembered, note: str, on_progress: OnProgress) -> Bags:
    """The heaviest 128 tokens of each text, with their weights in half precision."""
    from indexers.training.tilde.teacher import SHA256

    def make() -> Arrays:
        found = model.taught(texts, max_tokens=_SPLADE_TOKENS, stage=f"SPLADE {note}", on_progress=on_progress)
        return {"ids": found.ids, "weights": found.weights}

    found = kept.arrays(f"splade-{SHA256[:8]}", digest, make)
    weights = found["weights"].astype(np.float32)
    held = weights > 0
    return Bags(held.sum(1).astype(np.int64), found["ids"].astype(np.int32)[held], weights[held])


def _own(encoder: OpenVinoTermWeights, folder: Path, texts: Sequence[str], every: Bags) -> Mask:
    """For each weight whether its token is one of the text's, after folding; else expansion added it."""
    from indexers.encoders.tokenizing import EncoderTokenizer

    rows = EncoderTokenizer.from_file(folder / "tokenizer.json", max_tokens=encoder.max_tokens).encode(texts)
    size = encoder.terms.size
    held = [at * size + encoder.terms.folds[np.asarray(row, np.int64)].astype(np.int64) for at, row in enumerate(rows)]
    return np.isin(every.texts * size + every.tokens, np.concatenate([np.zeros(0, np.int64), *held]))


def _dense(encoder: OpenVinoEncoder) -> str:
    return f"{encoder.name}-{encoder.precision}"


def _teller(stage: str, total: int, note: str, on_progress: OnProgress) -> Callable[[int], None]:
    return lambda done: on_progress(Progress(stage, done, total, "texts", note))
