"""The frozen encoder from its published files: its graph for hidden states, and the tensors that the own layer starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexers.encoders.bert import ACTIVATIONS, build, why_not
from indexers.encoders.describe import Description, describe, read_json
from indexers.encoders.term_weights import LINEAR, NORMS
from indexers.encoders.term_weights_tokens import addable_tokens, folded_tokens, kept_tokens, read_vocabulary, vocabulary_digest
from indexers.training.tilde.network import Backbone, Floats
from rag.errors import ConfigError, ModelCorrupt

if TYPE_CHECKING:
    from openvino import Model



@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """A folder in sentence-transformers layout. `tensors`: its weights in single precision, without any prefix."""

    folder: Path
    description: Description
    tensors: dict[str, Floats]

    def graph(self) -> Model:
        return build(read_json(self.folder / "config.json"), self.tensors, description=self.description)


def published(folder: Path, *, name: str) -> Published:
    """
    Raises:
        ConfigError: no BERT encoder.
        ModelCorrupt: its weights cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    reason = why_not(folder)
    if reason is not None:
        raise ConfigError(f"Term weights cannot be trained on {folder}: {reason}.", hint="Name a folder of a BERT encoder.")
    file = folder / "model.safetensors"
    try:
        tensors = {key.removeprefix("bert."): tensor.astype(np.float32) for key, tensor in load_file(file).items()}
    except (SafetensorError, TypeError) as error:
        raise ModelCorrupt(f"{file} cannot be read: {error}.", hint="Pull or copy the model again.") from error
    return Published(folder, describe(folder, name=name, weights=file), tensors)


def backbone(source: Published, *, tap: int) -> Backbone:
    """`tap`: how many layers the hidden states have passed. The own layer starts from the backbone's next one, or from its last
    where none is left.

    Raises:
        ConfigError: the encoder has fewer layers.
    """
    config = read_json(source.folder / "config.json")
    layers = int(config["num_hidden_layers"])
    if not 0 <= tap <= layers:
        raise ConfigError(f"There is no layer {tap}: {source.description.identity} has {layers}.", field="tap",
                          hint=f"Use 0 to {layers}.")
    start = f"encoder.layer.{min(tap, layers - 1)}."
    layer = {name: source.tensors[start + name] for linear in (*LINEAR, *NORMS) for name in (f"{linear}.weight", f"{linear}.bias")}
    vocabulary = read_vocabulary(source.folder / "tokenizer.json")
    folds = folded_tokens(vocabulary)
    addable = addable_tokens(vocabulary) & (folds == np.arange(len(folds)))
    return Backbone(source.description.identity, vocabulary_digest(vocabulary),
                    source.tensors["embeddings.word_embeddings.weight"], layer, tap, int(config["num_attention_heads"]),
                    float(config["layer_norm_eps"]), ACTIVATIONS[config["hidden_act"]], kept_tokens(vocabulary),
                    addable, folds)
