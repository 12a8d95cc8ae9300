"""The file of a trained cross-encoder: the upper layers of the dense encoder, trained further, and one linear map.

The layers up to `tap` are the dense encoder's own and are not stored again; a file belongs to one encoder, by its identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.errors import ModelCorrupt

Floats = NDArray[np.float32]
FORMAT = 1
RANGES = ".int8.safetensors"
SHIPPED = Path(__file__).parent / "weights"
_MARK = "thriftrag_cross_encoder"
_TRAIN = "Train one with `python -m optimizers.training.crossencoder`."


@dataclass(frozen=True, slots=True)
class CrossFacts:
    """`encoder`: identity of the backbone, as its `name`. `tap`: its layers that question and passage pass apart."""

    encoder: str
    tap: int
    heads: int
    epsilon: float
    activation: str             # erf or tanh


@dataclass(frozen=True, slots=True, eq=False)
class CrossModel:
    """`name` changes with any byte of its file. `layers`: tensors by their usual names, the first layer above the tap first.
    `sides`: (2, H), added to the states of the question and of the passage; `matches`: (H,), added where a token of the passage
    stands in the question. `answers`, `answers_bias`: the linear map. `bias`: what a sentence's score must exceed to be likely."""

    name: str
    facts: CrossFacts
    layers: tuple[Mapping[str, Floats], ...]
    sides: Floats
    matches: Floats
    answers: Floats             # (H,)
    answers_bias: float
    bias: float


def write(path: Path, model: CrossModel, *, notes: Mapping[str, str]) -> CrossModel:
    """In half precision; gives what `read` will."""
    from safetensors.numpy import save_file

    tensors = {f"layers.{at}.{name}": tensor for at, layer in enumerate(model.layers) for name, tensor in layer.items()}
    tensors |= {"sides": model.sides, "matches": model.matches, "answers": model.answers}
    kept = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    kept["biases"] = np.asarray([model.answers_bias, model.bias], np.float32)
    # One entry: the library writes several in no fixed order, and the same model should be the same file.
    told = json.dumps({"format": FORMAT, "layers": len(model.layers), "notes": dict(notes), **asdict(model.facts)}, sort_keys=True)
    save_file(kept, path, metadata={_MARK: told})
    return read(path)


def read(path: Path) -> CrossModel:
    """
    Raises:
        ModelCorrupt: the file is missing, is no cross-encoder of ours, or holds a number that is not finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            told = json.loads((file.metadata() or {})[_MARK])
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}     # noqa: SIM118  # no mapping
        told.pop("notes")
        if told.pop("format") != FORMAT:
            raise ModelCorrupt(f"{path} was written by another version of thriftrag.", hint=_TRAIN)
        layers = tuple(_layer(tensors, f"layers.{at}.") for at in range(told.pop("layers")))
        facts = CrossFacts(**told)
        biases = tensors["biases"]
        model = CrossModel(f"cross@{_digest(path)}", facts, layers, tensors["sides"], tensors["matches"], tensors["answers"],
                           float(biases[0]), float(biases[1]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelCorrupt(f"{path} cannot be read as a cross-encoder: {error}.", hint=_TRAIN) from error
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelCorrupt(f"{path} holds a number that is not finite.", hint=_TRAIN)
    return model


def ranges_of(weights: Path) -> Path:
    """Where the 8-bit ranges of a file's layers lie."""
    return weights.with_name(weights.stem + RANGES)


def find(encoder: str) -> Path | None:
    """The shipped weights for an encoder of this identity; None if there are none."""
    path = SHIPPED / f"{encoder.replace('@', '-')}.safetensors"
    return path if path.is_file() else None


def _layer(tensors: Mapping[str, Floats], prefix: str) -> dict[str, Floats]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]
