"""The backbone's hidden states of every passage, computed once and read in place.

The backbone never changes, so what it gives for a passage never changes. With its states on disk an optimisation step costs
the own layer alone: a seventh of the forward pass, and none of the backbone's backward pass.

    states.f16      (tokens of all passages, H)     states.json     what they are of, written last
    ids.npy         int32, one for each token       starts.npy      int64, (N + 1,)     vectors.npy     float32, (N, H)
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexers.encoders.bert import IR
from indexers.encoders.openvino import OpenVinoEncoder, batches, precision_of
from indexers.encoders.term_weights_graph import hidden_after
from indexers.encoders.tokenizing import EncoderTokenizer
from rag.errors import ModelCorrupt, SnapshotMismatch, StorageError
from rag.models.runtime import core
from rag.types import OnProgress, Progress

if TYPE_CHECKING:
    from openvino import InferRequest

Floats = NDArray[np.float32]
_TOLD = "states.json"
_WINDOW = 2048


@dataclass(frozen=True, slots=True)
class StatesOf:
    """What hidden states are of; equal ones are interchangeable."""

    encoder: str
    digest: str                 # of the texts
    tap: int
    max_tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """Opened; `hidden` is mapped, half precision, never changed. Passage i has tokens `starts[i]` to `starts[i + 1]`."""

    hidden: NDArray[np.float16]
    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    vectors: Floats

    def folded(self, folds: NDArray[np.int32]) -> States:
        """With each id replaced by the one it counts as."""
        return replace(self, ids=folds[self.ids])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def batch(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
        """States (P, T, H) and ids (P, T) of these passages, T that of the longest, zeros and -1 behind the shorter."""
        longest = int((self.starts[rows + 1] - self.starts[rows]).max())
        hidden = np.zeros((len(rows), longest, self.hidden.shape[1]), np.float16)
        ids = np.full((len(rows), longest), -1, np.int64)
        for at, row in enumerate(rows):
            start, end = int(self.starts[row]), int(self.starts[row + 1])
            hidden[at, :end - start] = self.hidden[start:end]
            ids[at, :end - start] = self.ids[start:end]
        return hidden, ids


def states(folder: Path, texts: Sequence[str], *, wanted: StatesOf, encoder: Path, on_progress: OnProgress) -> States:
    """Those in `folder`; computed first if it has none. `encoder`: the folder of the converted backbone.

    Raises:
        SnapshotMismatch: `folder` has states of something else.
        ModelCorrupt: a number is not finite, or a file is cut short.
    """
    if not (folder / _TOLD).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _compute(folder, texts, wanted=wanted, encoder=encoder, on_progress=on_progress)
    found = StatesOf(**json.loads((folder / _TOLD).read_text(encoding="utf-8")))
    if found != wanted:
        differ = ", ".join(f"{name} {getattr(found, name)}, not {value}" for name, value in asdict(wanted).items()
                           if getattr(found, name) != value)
        raise SnapshotMismatch(f"{folder} has hidden states of {differ}.", hint="Delete the folder, or name another.")
    ids, starts, vectors = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("ids", "starts", "vectors"))
    shape = (int(starts[-1]), vectors.shape[1])
    if (folder / "states.f16").stat().st_size != shape[0] * shape[1] * 2:
        raise ModelCorrupt(f"{folder / 'states.f16'} is cut short.", hint="Delete the folder and run the command again.")
    return States(np.memmap(folder / "states.f16", np.float16, "r", shape=shape), ids, starts, vectors)


def _compute(folder: Path, texts: Sequence[str], *, wanted: StatesOf, encoder: Path, on_progress: OnProgress) -> None:
    tokenizer = EncoderTokenizer.from_file(encoder / "tokenizer.json", max_tokens=wanted.max_tokens)
    rows = [row for start in range(0, len(texts), _WINDOW) for row in tokenizer.encode(texts[start:start + _WINDOW])]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    width = OpenVinoEncoder(encoder, precision="f32").dimension
    vectors = np.zeros((len(rows), width), np.float32)
    try:
        hidden = np.memmap(folder / "states.f16", np.float16, "w+", shape=(int(starts[-1]), width))
    except OSError as error:
        raise StorageError(f"{folder} has no room for {starts[-1] * width * 2:,} bytes: {error}.", hint="Free space.") from error
    done, telling = 0, threading.Lock()

    def keep(request: InferRequest, batch: list[int]) -> None:
        nonlocal done
        found = request.get_tensor("tapped").data
        vectors[batch] = request.get_tensor("sentence_embedding").data
        for at, row in enumerate(batch):
            hidden[starts[row]:starts[row + 1]] = found[at, :len(rows[row])]
        with telling:
            done += len(batch)
            on_progress(Progress("states", done, len(rows), "passages"))

    _run(encoder, rows, tap=wanted.tap, keep=keep)
    if not np.isfinite(vectors).all() or not all(np.isfinite(hidden[at:at + 1_000_000]).all()
                                                 for at in range(0, len(hidden), 1_000_000)):
        raise ModelCorrupt(f"{wanted.encoder} gave a hidden state that is not finite.", hint="Verify the model.")
    hidden.flush()
    for name, array in (("ids", np.asarray([token for row in rows for token in row], np.int32)), ("starts", starts),
                        ("vectors", vectors)):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    (folder / _TOLD).write_text(json.dumps(asdict(wanted)), encoding="utf-8")


def _run(encoder: Path, rows: Sequence[Sequence[int]], *, tap: int, keep) -> None:  # type: ignore[no-untyped-def]  # see `keep`
    """The hidden states of all rows, in batches of like length, on all cores; `keep` is told of each batch in a thread of the
    runtime."""
    from openvino import AsyncInferQueue
    from openvino import opset13 as opset

    model = core().read_model(encoder / IR)
    tapped = hidden_after(model, tap)
    tapped.get_tensor().add_names({"tapped"})
    model.add_results([opset.result(tapped)])
    precision = precision_of("auto", has_ranges=False)
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "THROUGHPUT"})
    queue = AsyncInferQueue(compiled)
    failed: list[BaseException] = []

    def kept(request: InferRequest, batch: list[int]) -> None:
        try:
            keep(request, batch)
        except BaseException as error:      # in a thread of the runtime, which would end the process; raised again below
            failed.append(error)

    queue.set_callback(kept)
    for batch in batches([len(row) for row in rows]):
        longest = max(len(rows[at]) for at in batch)
        ids, mask = np.zeros((len(batch), longest), np.int64), np.zeros((len(batch), longest), np.int64)
        for at, row in enumerate(batch):
            ids[at, :len(rows[row])], mask[at, :len(rows[row])] = rows[row], 1
        queue.start_async({"input_ids": ids, "attention_mask": mask}, batch)
        if failed:
            break
    queue.wait_all()
    if failed:
        raise failed[0]
