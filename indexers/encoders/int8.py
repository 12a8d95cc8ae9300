"""Eight-bit arithmetic for the linear layers of an encoder, where nine tenths of its work are.

Weights take one scale for each output channel, activations one range for each layer, fitted on sample texts by
`python -m indexers.training.int8`. A few channels of BERT reach thirty times further than the rest and would take the
resolution of all others; they are divided by a factor that the weights are multiplied with, which changes nothing but the
rounding (Xiao et al. 2023, "SmoothQuant"). We choose the factors of each layer by its measured error instead of by one
formula. OpenVINO turns the FakeQuantize nodes that are inserted here into integer kernels (VNNI, AMX).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rag.errors import ConfigError, ModelCorrupt
from rag.models.runtime import import_openvino

if TYPE_CHECKING:
    from openvino import Model, Node

FILE = "int8.safetensors"
LEVELS = 256
_FIT = "Fit them with `python -m indexers.training.int8`, or set precision to bf16 or f32."

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Site:
    """Where activations enter linear layers: each channel divided by `smoothing`, then rounded between `low` and `high`."""

    smoothing: Floats           # (channels,)
    low: float
    high: float


def find(folder: Path, *, identity: str) -> Path | None:
    """The ranges of an encoder: in its own folder, or shipped with us for the registry's models; None if there are none.
    `identity`: as an encoder's `name`, model and checksum."""
    for path in (folder / FILE, Path(__file__).parent / "ranges" / f"{identity.replace('@', '-')}.safetensors"):
        if path.is_file():
            return path
    return None


def read(path: Path) -> list[Site]:
    """
    Raises:
        ModelCorrupt: the file is not what `write` writes.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        return [Site(tensors[f"{i}.smoothing"], *map(float, tensors[f"{i}.range"])) for i in range(len(tensors) // 2)]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelCorrupt(f"{path} does not hold the ranges of an encoder: {error}.", hint=_FIT) from error


def write(path: Path, sites: Sequence[Site], *, facts: dict[str, str]) -> None:
    from safetensors.numpy import save_file

    tensors: dict[str, Floats] = {}
    for i, site in enumerate(sites):
        tensors[f"{i}.smoothing"] = site.smoothing
        tensors[f"{i}.range"] = np.asarray([site.low, site.high], np.float32)
    save_file(tensors, path, metadata=facts)


def linear_groups(model: Model) -> list[list[Node]]:
    """Linear layers (products with a constant matrix) in order of execution; those that read the same input together."""
    groups: dict[tuple[str, int], list[Node]] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul" and node.input_value(1).get_node().get_type_name() == "Constant":
            source = node.input_value(0)
            groups.setdefault((source.get_node().get_friendly_name(), source.get_index()), []).append(node)
    return list(groups.values())


def weight(layer: Node) -> Floats:
    """Shape (outputs, inputs)."""
    matrix: Floats = layer.input_value(1).get_node().get_data()
    return matrix if layer.get_attributes()["transpose_b"] else np.ascontiguousarray(matrix.T)


def quantised(model: Model, sites: Sequence[Site]) -> Model:
    """The same model, changed in place.

    Raises:
        ConfigError: `sites` were fitted for another model.
    """
    import_openvino()
    groups = linear_groups(model)
    channels = [weight(group[0]).shape[1] for group in groups]
    if channels != [len(site.smoothing) for site in sites]:
        raise ConfigError(f"The 8-bit ranges are for {len(sites)} layers of another model.", field="precision",
                          hint=_FIT)
    for group, site in zip(groups, sites, strict=True):
        rounded = _rounded(group[0].input_value(0), site)
        for layer in group:
            matrix = _integers(weight(layer) * site.smoothing)
            if not layer.get_attributes()["transpose_b"]:
                matrix = _transposed(matrix)
            layer.input(0).replace_source_output(rounded)
            layer.input(1).replace_source_output(matrix.output(0))
    model.validate_nodes_and_infer_types()
    return model


def integer_weight(matrix: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Integers from -127 to 127 and the scale of each row, (outputs, 1)."""
    scale = np.maximum(np.abs(matrix).max(1, keepdims=True), 1e-12) / 127
    return np.clip(np.round(matrix / scale), -127, 127).astype(np.int8), scale.astype(np.float32)


def _rounded(source, site: Site):  # type: ignore[no-untyped-def]  # an Output of a package without types
    from openvino import opset13 as opset

    low, high = (opset.constant(np.float32(value)) for value in (site.low, site.high))
    smooth = source if (site.smoothing == 1).all() else opset.multiply(source, opset.constant(1 / site.smoothing[None, None, :]))
    return opset.fake_quantize(smooth, low, high, low, high, LEVELS).output(0)


def _integers(matrix: Floats) -> Node:
    from openvino import opset13 as opset

    integers, scale = integer_weight(matrix)
    return opset.multiply(opset.convert(opset.constant(integers), "f32"), opset.constant(scale))


def _transposed(matrix: Node) -> Node:
    from openvino import opset13 as opset

    return opset.transpose(matrix, opset.constant(np.array([1, 0], np.int64)))
