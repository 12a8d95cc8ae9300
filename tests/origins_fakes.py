"""A small world for benches of retrieval: a tiny encoder with random term weights, and data of its few words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from eval.datasets import Question
from eval.origins.chunked import Chunked
from eval.origins.scored import Scored
from indexers.encoders.term_weights import write
from rag.settings import Settings
from tests.tilde_fakes import make_backbone, make_data, random_network

SCALE = 8.0


def world(root: Path, settings: Settings, *, seed: int = 0) -> tuple[Settings, Path, Path]:
    """Settings with a tiny embedder, a file of term weights for it, and a data set."""
    _, folder, base = make_backbone(root)
    weights, network = root / f"weights-{seed}.safetensors", random_network(base, seed=seed)
    with torch.no_grad():
        network.cut.fill_(-4.0)         # so that much is added
    write(weights, network.exported(base, scale=SCALE, expanded=16), notes={"command": "test"})
    return replace(settings, embedder=str(folder), precision="f32"), weights, make_data(root / "words", passages=60)


def scored(dense: list[list[float]], bm25: list[list[float]], sparse: list[list[float]], *, documents: str, gold: list[str],
           texts: list[str] | None = None, without: list[bool] | None = None) -> Scored:
    """Scores as given, (questions, chunks). `documents`: a letter for each chunk; `gold`: letters for each question."""
    asked = texts or [f"question {number}" for number in range(len(gold))]
    questions = tuple(Question(str(number), text, (), tuple(letters), "")
                      for number, (text, letters) in enumerate(zip(asked, gold, strict=True)))
    chunks = Chunked("made", tuple(documents), tuple(documents), questions, "0")
    by_origin = {name: np.asarray(rows, np.float32) for name, rows in (("bm25", bm25), ("dense", dense), ("sparse", sparse))}
    return Scored(chunks, by_origin, np.asarray(without or [False] * len(gold)))
