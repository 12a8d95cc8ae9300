"""SPLADE-tiny as a teacher: term weights that were learnt from searches, for passages and queries alike.

The file is a BERT of two layers with its vocabulary head (Apache-2.0); only its safetensors are read. Weight of token t in a
text (SPLADE v2, Formal et al. 2021, arXiv 2109.10086, section 3): max over positions of log(1 + ReLU(logit)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from indexers.encoders.describe import read_json
from indexers.encoders.openvino import batches
from indexers.encoders.term_weights_tokens import read_vocabulary, vocabulary_digest
from indexers.encoders.tokenizing import EncoderTokenizer
from rag.durable import sha256_of
from rag.errors import ModelCorrupt, SnapshotMismatch
from rag.types import OnProgress, Progress

SHA256 = "96e1dd8dbbc82439cf50677a15bcb9141172b289d20b41c9c28b621a0451a02a"
TOP = 128
_PIECE = 2048                   # tokens of the vocabulary at once: what is in between stays in the caches


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """The TOP heaviest tokens of each text. `ids` (N, TOP) uint16, `weights` (N, TOP) float16, 0 where there are fewer."""

    ids: NDArray[np.uint16]
    weights: NDArray[np.float16]

    def dense(self, rows: NDArray[np.int64], *, folds: NDArray[np.int32]) -> Tensor:
        """(len(rows), len(folds)): weights by the token that each counts as, the greatest where several count as one."""
        found = torch.zeros((len(rows), len(folds)))
        return found.scatter_reduce(1, torch.from_numpy(folds[self.ids[rows]].astype(np.int64)),
                                    torch.from_numpy(self.weights[rows].astype(np.float32)), "amax")


class Splade:
    """
    Raises:
        ModelCorrupt: the weights are not the published ones.
        SnapshotMismatch: its vocabulary is not the backbone's.
    """

    def __init__(self, folder: Path, *, vocabulary: str, sha256: str | None = SHA256) -> None:
        from safetensors.torch import load_file

        file = folder / "model.safetensors"
        if sha256 is not None and (found := sha256_of(file)) != sha256:
            raise ModelCorrupt(f"{file} has sha256 {found}, not {sha256}.", hint="Take the teacher's published file.")
        own = vocabulary_digest(read_vocabulary(folder / "tokenizer.json"))
        if own != vocabulary:
            raise SnapshotMismatch(f"The teacher in {folder} has vocabulary {own}, the backbone {vocabulary}.",
                                   hint="Take a teacher with the backbone's tokens, or none.", code="model_mismatch")
        config = read_json(folder / "config.json")
        self._layers, self._heads = int(config["num_hidden_layers"]), int(config["num_attention_heads"])
        self._epsilon = float(config["layer_norm_eps"])
        renamed = {"gamma": "weight", "beta": "bias"}
        self._tensors = {".".join(renamed.get(part, part) for part in name.removeprefix("bert.").split(".")): tensor.float()
                         for name, tensor in load_file(file).items()}
        self._tokenizer = folder / "tokenizer.json"

    def taught(self, texts: Sequence[str], *, max_tokens: int, stage: str, on_progress: OnProgress) -> Taught:
        rows = EncoderTokenizer.from_file(self._tokenizer, max_tokens=max_tokens).encode(texts)
        top = min(TOP, len(self._tensors["embeddings.word_embeddings.weight"]))
        ids, weights = np.zeros((len(rows), top), np.uint16), np.zeros((len(rows), top), np.float16)
        done = 0
        with torch.inference_mode():
            for batch in batches([len(row) for row in rows]):
                best = self._weights([rows[at] for at in batch]).topk(top)
                ids[batch], weights[batch] = best.indices.numpy().astype(np.uint16), best.values.numpy().astype(np.float16)
                done += len(batch)
                on_progress(Progress(stage, done, len(rows), "texts"))
        return Taught(ids, weights)

    def _weights(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """(texts, V)."""
        longest = max(len(row) for row in rows)
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        attendable = torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows])
        get = self._tensors
        placed = get["embeddings.position_embeddings.weight"][:longest] + get["embeddings.token_type_embeddings.weight"][0]
        hidden = self._norm(get["embeddings.word_embeddings.weight"][ids] + placed, "embeddings.LayerNorm")
        for layer in range(self._layers):
            hidden = self._layer(hidden, attendable, f"encoder.layer.{layer}.")
        turned = self._norm(functional.gelu(self._linear(hidden, "cls.predictions.transform.dense")),
                            "cls.predictions.transform.LayerNorm")
        # Padding repeats the first position, which changes no maximum.
        turned = torch.where(attendable.unsqueeze(-1), turned, turned[:, :1])
        across = turned.transpose(1, 2)
        pieces = [(words @ across).amax(-1) for words in get["embeddings.word_embeddings.weight"].split(_PIECE)]
        return torch.log1p(torch.relu(torch.cat(pieces, 1) + get["cls.predictions.bias"]))

    def _layer(self, hidden: Tensor, attendable: Tensor, at: str) -> Tensor:
        size, length, width = hidden.shape
        query, key, value = (self._linear(hidden, f"{at}attention.self.{part}").view(size, length, self._heads, -1).transpose(1, 2)
                             for part in ("query", "key", "value"))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=attendable[:, None, None, :])
        joined = mixed.transpose(1, 2).reshape(size, length, width)
        attended = self._norm(self._linear(joined, f"{at}attention.output.dense") + hidden, f"{at}attention.output.LayerNorm")
        inner = functional.gelu(self._linear(attended, f"{at}intermediate.dense"))
        return self._norm(self._linear(inner, f"{at}output.dense") + attended, f"{at}output.LayerNorm")

    def _linear(self, entering: Tensor, name: str) -> Tensor:
        return functional.linear(entering, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

    def _norm(self, hidden: Tensor, name: str) -> Tensor:
        weight = self._tensors[f"{name}.weight"]
        return functional.layer_norm(hidden, weight.shape, weight, self._tensors[f"{name}.bias"], self._epsilon)


def kept(path: Path, compute, *, digest: str) -> Taught:  # type: ignore[no-untyped-def]  # `compute`: () -> Taught
    """What `compute` gives, from `path` if an earlier run with the same digest left it there."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    if path.is_file():
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("digest") == digest:
                return Taught(file.get_tensor("ids"), file.get_tensor("weights"))
    found: Taught = compute()
    save_file({"ids": found.ids, "weights": found.weights}, path, metadata={"digest": digest})
    return found
