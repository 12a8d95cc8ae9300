"""Encoders that run in OpenVINO on the CPU: our own converted models and any feature-extraction IR that a user names."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexers.encoders import Padding, Vectors, int8
from indexers.encoders.bert import IR, pooled
from indexers.encoders.describe import Description, describe
from indexers.encoders.tokenizing import EncoderTokenizer
from rag.errors import ConfigError, ModelCorrupt
from rag.models.runtime import core

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openvino import CompiledModel, InferRequest, Model

# Tokens in a batch: 8 passages of 155 tokens, 32 sentences of 20. Measured on two cores; larger ones leave the caches.
BATCH_TOKENS = 1280
BATCH_ROWS = (4, 32)
LENGTH_STEP = 16
# For each stream. Thousands are kept by default, and the last batches of calls come in many shapes: over 8,000 passages in
# calls of all sizes memory then grew by 140 MB, with this by 80, and no slower.
_KERNELS_KEPT = 64
# Told of a batch: the request, the places of its texts, and their tokens.
Also = Callable[["InferRequest", Sequence[int], Sequence[Sequence[int]]], None]
PRECISIONS = ("auto", "int8", "bf16", "f32")
_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


class OpenVinoEncoder:
    """A sentence encoder from a folder with `openvino_model.xml` and `tokenizer.json`. Safe for several threads at once.

    `precision`: f32, bf16, int8, or auto, which takes the fastest that the processor has and the model can: see `precision_of`.
    Vectors of all agree to a cosine of .998 on average, so they share a name. `threads`: 0 leaves it to OpenVINO.

    Raises:
        ConfigError: the graph is not a text encoder, or its folder says too little about it.
        ModelCorrupt: a file cannot be read.
    """

    def __init__(self, folder: Path, *, precision: str = "auto", threads: int = 0, model: Model | None = None) -> None:
        description = described(folder)
        self.name = description.identity
        self.dimension = description.dimension
        self.max_tokens = description.max_tokens
        self._pad = description.pad_token_id
        self._normalise = description.normalise
        self._tokenizer = EncoderTokenizer.from_file(folder / "tokenizer.json", max_tokens=self.max_tokens)
        ranges = int8.find(folder, identity=self.name)
        self.precision = precision_of(precision, has_ranges=ranges is not None)
        graph = _with_embedding(model or load_graph(folder), description)
        if self.precision == "int8" and ranges is not None:
            graph = int8.quantised(graph, int8.read(ranges))
        # A core for each batch: a fifth more passages a second than all cores on one batch after the other, as nobody waits
        # at the end of every layer.
        self._streams = threads or cores()
        self._compiled = compile_graph(graph, precision=self.precision, streams=self._streams)
        self._inputs = [port.any_name for port in self._compiled.inputs]
        self.padding = Padding()
        # Kept for life: threads that come and go with every call leave memory behind in the runtime.
        self._pool = ThreadPoolExecutor(self._streams, thread_name_prefix="encode")
        self._idle: list[InferRequest] = []
        self._lock = threading.Lock()

    def count(self, texts: Sequence[str]) -> list[int]:
        return self._tokenizer.count(texts)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return self._tokenizer.offsets(text)

    def encode(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> Vectors:
        """Unit vectors in the order given; each text is encoded in a batch of others of about its length.

        Raises:
            ModelCorrupt: a vector came out that is not finite.
        """
        return self._encoded(texts, on_batch=on_batch)

    def _encoded(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None, also: Also | None = None) -> Vectors:
        """`also` is told of every batch, in the thread that made it, while the request still holds what came out."""
        vectors = np.empty((len(texts), self.dimension), np.float32)
        rows = self._tokenizer.encode(texts)
        done = 0
        lengths = [len(row) for row in rows]
        waiting = deque(batches(lengths))
        telling = threading.Lock()

        def work() -> None:
            nonlocal done
            with self._request() as request:
                while True:
                    try:
                        batch = waiting.popleft()
                    except IndexError:
                        return
                    own = [rows[index] for index in batch]
                    vectors[batch] = self._infer(request, own)
                    if also is not None:
                        also(request, batch, own)
                    with telling:
                        done += len(batch)
                        if on_batch is not None:
                            on_batch(done)

        streams = min(self._streams, len(waiting))
        if streams > 1:
            working = [self._pool.submit(work) for _ in range(streams)]
            wait(working)
            for ended in working:
                ended.result()
        else:
            work()
        with self._lock:
            self.padding += padding(lengths, limit=self.max_tokens)
        if not np.isfinite(vectors).all():
            raise ModelCorrupt(f"Encoder {self.name} gave a vector that is not finite.",
                               hint="Verify the model; if it is whole, set precision to f32.")
        return vectors if self._normalise else vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _infer(self, request: InferRequest, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        length = padded_length(max(len(row) for row in rows), limit=self.max_tokens)
        ids = np.full((len(rows), length), self._pad, np.int64)
        mask = np.zeros((len(rows), length), np.int64)
        for at, row in enumerate(rows):
            ids[at, :len(row)] = row
            mask[at, :len(row)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        request.infer({name: feed[name] for name in self._inputs}, share_inputs=True)
        result: NDArray[np.float32] = request.get_tensor("sentence_embedding").data
        return result

    @contextmanager
    def _request(self) -> Iterator[InferRequest]:
        """A request of one's own for the length of a call; they are kept, as making one costs memory and time."""
        with self._lock:
            request = self._idle.pop() if self._idle else None
        request = request or self._compiled.create_infer_request()
        try:
            yield request
        finally:
            with self._lock:
                self._idle.append(request)


def described(folder: Path) -> Description:
    """Raises as `describe`."""
    return describe(folder, name=folder.resolve().name, weights=(folder / IR).with_suffix(".bin"))


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Indexes of the texts in batches of similar length, longest first: padding is the main waste on a CPU.

    Longest first also means that the memory a call needs is known from its first batch. Equal lengths keep their order.
    A padded length has one number of rows, and what is left at the end goes in powers of two: see `padded_length`.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    low, high = BATCH_ROWS
    result, start = [], 0
    while start < len(order):
        rows = min(max(BATCH_TOKENS // _stepped(max(lengths[order[start]], 1)), low), high)
        left = len(order) - start
        if left < rows:
            rows = 1 << (left.bit_length() - 1)
        result.append(order[start:start + rows])
        start += rows
    return result


def padding(lengths: Sequence[int], *, limit: int) -> Padding:
    """What texts of these lengths cost here, and in batches of 32 as they come, which is what most encoders do."""
    computed = sum(len(batch) * padded_length(max(lengths[i] for i in batch), limit=limit) for batch in batches(lengths))
    plain = [lengths[start:start + 32] for start in range(0, len(lengths), 32)]
    return Padding(sum(lengths), computed, sum(len(batch) * max(batch) for batch in plain))


def padded_length(longest: int, *, limit: int) -> int:
    """OpenVINO keeps kernels for every shape it has met: with all shapes memory grows for hours, with few it stays level."""
    return min(_stepped(longest), limit)


def _stepped(length: int) -> int:
    return -(-length // LENGTH_STEP) * LENGTH_STEP


def precision_of(choice: str, *, has_ranges: bool) -> str:
    """The arithmetic to use. auto: int8 where the processor multiplies 8-bit integers faster (AVX-512 or VNNI) and the model
    has ranges for it, else bf16 where the processor has it (it is slower than f32 where it is only imitated), else f32.

    Raises:
        ConfigError: no such precision, or int8 for a model without ranges.
    """
    if choice not in PRECISIONS:
        raise ConfigError(f"There is no precision {choice!r}.", hint=f"Use {', '.join(PRECISIONS)}.", field="precision")
    if choice == "int8" and not has_ranges:
        raise ConfigError("This encoder has no 8-bit ranges.", field="precision",
                          hint="Fit them with `python -m indexers.training.int8`, or set precision to auto, bf16 or f32.")
    if choice != "auto":
        return choice
    capabilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if has_ranges and "INT8" in capabilities:
        return "int8"
    return "bf16" if "BF16" in capabilities else "f32"


def load_graph(folder: Path) -> Model:
    try:
        return core().read_model(folder / IR)
    except RuntimeError as error:
        raise ModelCorrupt(f"{folder / IR} cannot be read: {_last_line(error)}",
                           hint="Pull or convert the model again.") from error


def _with_embedding(model: Model, description: Description) -> Model:
    """The model with an output `sentence_embedding`, added over `last_hidden_state` if it has none."""
    inputs = {port.any_name for port in model.inputs}
    if not {"input_ids", "attention_mask"} <= inputs <= _INPUTS:
        raise ConfigError(f"{description.name} takes {', '.join(sorted(inputs))}, not input_ids and attention_mask.",
                          hint="Name a feature-extraction model.")
    outputs = {name for port in model.outputs for name in port.get_names()}
    if "sentence_embedding" in outputs:
        return model
    if "last_hidden_state" not in outputs:
        raise ConfigError(f"{description.name} gives {', '.join(sorted(outputs))}, not last_hidden_state.",
                          hint="Name a feature-extraction model.")
    from openvino import opset13 as opset

    attendable = opset.convert(model.input("attention_mask").get_node(), "f32")
    hidden = model.output("last_hidden_state").get_node().input_value(0)
    sentence = pooled(hidden, attendable, pooling=description.pooling, normalise=description.normalise)
    model.add_results([opset.result(sentence)])
    return model


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compile_graph(model: Model, *, precision: str, streams: int) -> CompiledModel:
    # What is not a product of 8-bit integers runs in bf16 where that is real.
    bf16 = precision == "bf16" or (precision == "int8" and "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "NUM_STREAMS": str(streams),
                              "INFERENCE_NUM_THREADS": streams, "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS_KEPT}
    return core().compile_model(model, "CPU", config)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
