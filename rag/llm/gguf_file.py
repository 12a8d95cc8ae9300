"""Reading GGUF files, and rewriting those whose tensors OpenVINO GenAI cannot read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rag.errors import ModelCorrupt, ModelUnavailable
from rag.llm.gguf_tokenizer import Vocabulary

if TYPE_CHECKING:
    from gguf import GGUFReader

ARCHITECTURES = ("llama", "qwen2", "qwen3")
# What `openvino_genai` reads; anything else is rewritten as Q8_0, which is finer than any format it replaces.
READABLE = frozenset({"F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"})
_ROWS = 4096                    # rewritten at a time: bounds the memory for the float copy


@dataclass(frozen=True, slots=True)
class GGUFModel:
    """What conversion needs to know of a file. `reader` is the open file."""

    reader: GGUFReader
    name: str
    architecture: str
    context_window: int
    chat_template: str
    vocabulary: Vocabulary
    bos_token: str


def open_gguf(path: Path) -> GGUFModel:
    """Reads the metadata, which takes a few seconds for a large vocabulary.

    Raises:
        ModelCorrupt: not a GGUF file, or cut short.
        ModelUnavailable: an architecture that cannot be read, or no tokenizer or chat template inside.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ModelCorrupt(f"{path} cannot be read as GGUF: {error}", hint="Fetch it again.") from error
    architecture = _field(reader, "general.architecture", path)
    if architecture not in ARCHITECTURES:
        raise ModelUnavailable(f"{path.name} has architecture {architecture!r}, which OpenVINO cannot read from GGUF.",
                               hint=f"Supported: {', '.join(ARCHITECTURES)}. Otherwise name an OpenVINO folder made by "
                               "`optimum-cli export openvino`, or serve the file and set reader_url.")
    tokens = _field(reader, "tokenizer.ggml.tokens", path)
    bos = reader.fields.get("tokenizer.ggml.bos_token_id")
    vocabulary = Vocabulary(
        model=_field(reader, "tokenizer.ggml.model", path), cut=_field(reader, "tokenizer.ggml.pre", path), tokens=tokens,
        types=_field(reader, "tokenizer.ggml.token_type", path), merges=_field(reader, "tokenizer.ggml.merges", path),
        eos_id=_field(reader, "tokenizer.ggml.eos_token_id", path))
    return GGUFModel(reader=reader, name=path.stem, architecture=architecture, vocabulary=vocabulary,
                     context_window=_field(reader, f"{architecture}.context_length", path),
                     chat_template=_field(reader, "tokenizer.chat_template", path),
                     bos_token=tokens[bos.contents()] if bos is not None else "")


def unreadable(model: GGUFModel) -> list[str]:
    """Names of the tensor formats that have to be rewritten, sorted."""
    return sorted({tensor.tensor_type.name for tensor in model.reader.tensors} - READABLE)


def rewrite(model: GGUFModel, target: Path, *, on_tensor: Callable[[int, int], None]) -> None:
    """Copies the file, with unreadable tensors as Q8_0. `on_tensor` hears how many of how many tensors are done.

    Raises:
        ModelUnavailable: a format that cannot be decoded either.
    """
    from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

    writer = GGUFWriter(target, model.architecture)
    for key, field in model.reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(key, field.contents(), kind, field.types[-1] if kind == GGUFValueType.ARRAY else None)
    for tensor in model.reader.tensors:
        kept = tensor.tensor_type.name in READABLE
        kind = tensor.tensor_type if kept else GGMLQuantizationType.Q8_0
        shape, size = (tensor.data.shape, tensor.data.nbytes) if kept else _q8_shape(tensor)
        writer.add_tensor_info(tensor.name, shape, tensor.data.dtype if kept else np.dtype(np.uint8), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, tensor in enumerate(model.reader.tensors, start=1):
        writer.write_tensor_data(tensor.data if tensor.tensor_type.name in READABLE else _as_q8(tensor))
        on_tensor(done, len(model.reader.tensors))
    writer.close()


def _q8_shape(tensor: Any) -> tuple[tuple[int, ...], int]:
    """Shape in bytes, and bytes, of the tensor as Q8_0."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape

    columns, *outer = (int(size) for size in tensor.shape)
    if columns % 32:
        raise ModelUnavailable(f"Tensor {tensor.name} of format {tensor.tensor_type.name} has rows of {columns}, which Q8_0 "
                               "cannot hold.", hint="Use a GGUF file in the Q8_0, Q4_K_M or F16 format.")
    shape = quant_shape_to_byte_shape((*reversed(outer), columns), GGMLQuantizationType.Q8_0)
    return tuple(shape), int(np.prod(shape))


def _as_q8(tensor: Any) -> NDArray[np.uint8]:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    rows = tensor.data.reshape(-1, tensor.data.shape[-1])
    try:
        parts = [quantize(dequantize(rows[at:at + _ROWS], tensor.tensor_type), GGMLQuantizationType.Q8_0)
                 for at in range(0, len(rows), _ROWS)]
    except NotImplementedError as error:
        raise ModelUnavailable(f"Tensor {tensor.name} has format {tensor.tensor_type.name}, which cannot be decoded.",
                               hint="Use a GGUF file in the Q8_0, Q4_K_M or F16 format.") from error
    return np.concatenate(parts).reshape(_q8_shape(tensor)[0])


def _field(reader: GGUFReader, key: str, path: Path) -> Any:
    field = reader.fields.get(key)
    if field is None:
        raise ModelUnavailable(f"{path.name} states no {key}.", hint="Use a GGUF file of an instruction-tuned model, "
                               "as its publisher made it.")
    return field.contents()
