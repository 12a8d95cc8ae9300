"""Scores sentences for a question in OpenVINO: lower layers of what was not read lately, then question and passages together."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexers.encoders import int8
from indexers.encoders.openvino import batches, compile_graph, cores, described, load_graph, padded_length, precision_of
from indexers.encoders.term_weights_tokens import kept_tokens, read_vocabulary
from indexers.encoders.tokenizing import EncoderTokenizer
from optimizers.crossencoder import model as files
from optimizers.crossencoder.graph import joint, lower
from optimizers.crossencoder.model import CrossModel, Floats
from rag.errors import ConfigError, ModelCorrupt, SnapshotMismatch
from rag.models import ModelCache, resolve

if TYPE_CHECKING:
    from openvino import CompiledModel, InferRequest

Span = tuple[int, int]
Feed = dict[str, NDArray[np.float32]] | dict[str, NDArray[np.int64]]
QUESTION_TOKENS = 48
NOTHING = -30.0             # of a sentence without a token that was read: no chance at all
# Passages whose lower layers are kept: 137 tokens of 384 numbers in half precision are 105 kB.
_KEPT = 512


@dataclass(frozen=True, slots=True)
class Read:
    """What is read of a passage, title and all, and the sentences in it, in characters."""

    text: str
    sentences: tuple[Span, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _States:
    hidden: NDArray[np.float16]     # (T, H)
    ids: NDArray[np.int64]          # (T,)


class CrossEncoder:
    """The cross-encoder for the encoder in `folder`. Thread-safe.

    `weights`: a file of `model.write`; None: the one shipped for this encoder. 8-bit ranges of its layers lie beside it.

    Raises:
        ConfigError: there is none for this encoder.
        SnapshotMismatch: it is for another one.
        ModelCorrupt: a file cannot be read.
    """

    def __init__(self, folder: Path, *, weights: Path | None = None, precision: str = "auto", threads: int = 0) -> None:
        description = described(folder)
        path = weights or files.find(description.identity)
        if path is None:
            raise ConfigError(f"There is no cross-encoder for {description.identity}.", field="encoder", code="no_cross_encoder",
                              hint="Train one with `python -m optimizers.training.crossencoder`, or set cross_encoder to off.")
        self.model: CrossModel = files.read(path)
        if self.model.facts.encoder != description.identity:
            raise SnapshotMismatch(f"{path} is a cross-encoder for {self.model.facts.encoder}, not for {description.identity}.",
                                   hint="Train one for this encoder.", code="model_mismatch")
        self.name = self.model.name
        self._tokenizer = EncoderTokenizer.from_file(folder / "tokenizer.json", max_tokens=description.max_tokens)
        self._kept_tokens = kept_tokens(read_vocabulary(folder / "tokenizer.json"))
        self._pad, self._longest = description.pad_token_id, description.max_tokens
        self._streams = threads or cores()
        self._lower = _compiled_lower(folder, description.identity, self.model, precision=precision, streams=self._streams)
        self._joint = _compiled_joint(self.model, files.ranges_of(path), precision=precision, streams=self._streams)
        self._pool = ThreadPoolExecutor(self._streams, thread_name_prefix="cross-encode")
        self._states: OrderedDict[str, _States] = OrderedDict()
        # Kept, as making one costs memory and time.
        self._idle: dict[CompiledModel, list[InferRequest]] = {self._lower: [], self._joint: []}
        self._lock = threading.Lock()

    def score(self, question: str, passages: Sequence[Read]) -> list[Floats]:
        """For each passage one score for each of its sentences: the logarithm of odds that it answers, but for calibration;
        NOTHING for a sentence beyond the encoder's window.

        Raises:
            ModelCorrupt: a score came out that is not finite.
        """
        if not passages:
            return []
        [asked] = self._computed([question], limit=QUESTION_TOKENS)
        states = self._of([each.text for each in passages])
        tokens: list[Floats] = [np.zeros(0, np.float32)] * len(passages)
        words = np.unique(asked.ids[self._kept_tokens[asked.ids]])

        def feed(batch: Sequence[int], length: int) -> Feed:
            read = np.zeros((len(batch), length, asked.hidden.shape[1]), np.float32)
            there, matched = np.zeros((2, len(batch), length), np.float32)
            for at, place in enumerate(batch):
                own = states[place]
                read[at, :len(own.ids)], there[at, :len(own.ids)] = own.hidden, 1
                matched[at, :len(own.ids)] = np.isin(own.ids, words)
            return {"asked": asked.hidden[None].astype(np.float32), "read": read, "there": there, "matched": matched}

        def keep(request: InferRequest, batch: Sequence[int]) -> None:
            found = request.get_tensor("answers").data
            for at, place in enumerate(batch):
                start = len(asked.ids)
                tokens[place] = found[at, start:start + len(states[place].ids)].copy()

        self._run(self._joint, [len(each.ids) for each in states], feed=feed, keep=keep)
        if not all(np.isfinite(each).all() for each in tokens):
            raise ModelCorrupt(f"{self.name} gave a score that is not finite.",
                               hint="Verify the model; if it is whole, set precision to f32.")
        return [self._by_sentence(read, own) for read, own in zip(passages, tokens, strict=True)]

    def tokens(self, texts: Sequence[str]) -> int:
        """Of these texts together, as far as they are read."""
        return sum(len(row) for row in self._tokenizer.encode(texts))

    def forget(self) -> None:
        """Drops what is kept of passages, for those who time a first question."""
        with self._lock:
            self._states.clear()

    def _by_sentence(self, read: Read, tokens: Floats) -> Floats:
        begins = np.asarray([start for start, _ in self._tokenizer.offsets(read.text)[:len(tokens) - 2]], np.int64)
        inner = tokens[1:1 + len(begins)]
        found = np.full(len(read.sentences), NOTHING, np.float32)
        for number, (start, end) in enumerate(read.sentences):
            own = inner[(begins >= start) & (begins < end)]
            if len(own):
                found[number] = np.logaddexp.reduce(own.astype(np.float64)) - self.model.bias
        return found

    def _of(self, texts: Sequence[str]) -> list[_States]:
        """States of the lower layers, kept for the most recent."""
        with self._lock:
            known = {text: self._states[text] for text in texts if text in self._states}
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            known.update(zip(missing, self._computed(missing), strict=True))
            with self._lock:
                for text in texts:
                    self._states[text] = known[text]
                    self._states.move_to_end(text)
                while len(self._states) > _KEPT:
                    self._states.popitem(last=False)
        return [known[text] for text in texts]

    def _computed(self, texts: Sequence[str], *, limit: int | None = None) -> list[_States]:
        rows = [np.asarray(row[:limit], np.int64) for row in self._tokenizer.encode(texts)]
        found: list[_States] = [_States(np.zeros((0, 0), np.float16), row) for row in rows]

        def feed(batch: Sequence[int], length: int) -> Feed:
            ids, mask = np.full((len(batch), length), self._pad, np.int64), np.zeros((len(batch), length), np.int64)
            for at, place in enumerate(batch):
                ids[at, :len(rows[place])], mask[at, :len(rows[place])] = rows[place], 1
            return {"input_ids": ids, "attention_mask": mask}

        def keep(request: InferRequest, batch: Sequence[int]) -> None:
            hidden = request.get_tensor("tapped").data
            for at, place in enumerate(batch):
                found[place] = _States(hidden[at, :len(rows[place])].astype(np.float16), rows[place])

        self._run(self._lower, [len(row) for row in rows], feed=feed, keep=keep)
        return found

    def _run(self, compiled: CompiledModel, lengths: Sequence[int], *, feed: Callable[[Sequence[int], int], Feed],
             keep: Callable[[InferRequest, Sequence[int]], None]) -> None:
        """All rows in batches of like length, a batch on each core at a time."""
        waiting = deque(batches(lengths))

        def work() -> None:
            with self._lock:
                request = self._idle[compiled].pop() if self._idle[compiled] else None
            request = request or compiled.create_infer_request()
            while True:
                try:
                    batch = waiting.popleft()
                except IndexError:
                    break
                longest = max(lengths[at] for at in batch)
                request.infer(feed(batch, padded_length(longest, limit=self._longest)), share_inputs=True)
                keep(request, batch)
            with self._lock:
                self._idle[compiled].append(request)

        working = [self._pool.submit(work) for _ in range(min(self._streams, len(waiting)))]
        wait(working)
        for ended in working:
            ended.result()


def has_cross_encoder(encoder: str) -> bool:
    """Whether one is shipped for the encoder of this name."""
    return files.find(encoder) is not None


def open_cross_encoder(choice: str, *, embedder: str, cache: ModelCache, precision: str = "auto", threads: int = 0
                       ) -> CrossEncoder | None:
    """The cross-encoder for the setting's `choice`: auto, or a file of weights. None if auto finds none for this embedder.

    Raises:
        ConfigError: the file is for no encoder that we run. Else as `CrossEncoder`.
    """
    found = resolve(embedder, cache=cache, role="embedder")
    if found.backend != "openvino":
        if choice == "auto":
            return None
        raise ConfigError(f"The cross-encoder {choice} needs an encoder that runs in OpenVINO, and {embedder} does not.",
                          hint="Set cross_encoder to auto or off.", field="cross_encoder")
    folder = Path(found.location)
    if choice == "auto":
        return CrossEncoder(folder, precision=precision, threads=threads) if files.find(described(folder).identity) else None
    return CrossEncoder(folder, weights=Path(choice).expanduser(), precision=precision, threads=threads)


def _compiled_lower(folder: Path, identity: str, model: CrossModel, *, precision: str, streams: int) -> CompiledModel:
    graph, ranges = load_graph(folder), int8.find(folder, identity=identity)
    chosen = precision_of(precision, has_ranges=ranges is not None)
    if chosen == "int8" and ranges is not None:
        graph = int8.quantised(graph, int8.read(ranges))
    return compile_graph(lower(graph, tap=model.facts.tap), precision=chosen, streams=streams)


def _compiled_joint(model: CrossModel, ranges: Path, *, precision: str, streams: int) -> CompiledModel:
    """Weights without ranges of their own run in floats, whatever the encoder runs in."""
    graph, small = joint(model), ranges.is_file()
    chosen = precision_of("auto" if precision == "int8" and not small else precision, has_ranges=small)
    if chosen == "int8":
        graph = int8.quantised(graph, int8.read(ranges))
    return compile_graph(graph, precision=chosen, streams=streams)
