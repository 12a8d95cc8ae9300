"""Writes `minilm_vectors.npy`: what the sentence-transformers library makes of `tests.minilm_texts` in fp32.

    python -m tests.golden.make_minilm_vectors FOLDER

FOLDER holds all-MiniLM-L6-v2 as its publisher ships it; the weights are checked against the registry. Stored as float16:
the rounding moves a cosine by less than 1e-6.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from rag.durable import sha256_of
from rag.models.registry import load_registry
from tests.minilm_texts import minilm_texts


def main(folder: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    for file in load_registry()["all-minilm-l6-v2"].files:
        if sha256_of(folder / file.path) != file.sha256:
            sys.exit(f"{folder / file.path} is not the published file")
    model = SentenceTransformer(str(folder), device="cpu").to(torch.float32)
    vectors = model.encode(minilm_texts(), batch_size=1, normalize_embeddings=True)
    np.save(Path(__file__).with_name("minilm_vectors.npy"), vectors.astype(np.float16), allow_pickle=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
