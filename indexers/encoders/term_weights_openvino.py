"""Dense vectors and term weights from one pass in OpenVINO."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexers.encoders import Vectors, int8, term_weights
from indexers.encoders.bert import IR
from indexers.encoders.describe import describe
from indexers.encoders.int8 import Site
from indexers.encoders.openvino import OpenVinoEncoder, batches, padding, precision_of
from indexers.encoders.term_weights import TermModel, impacts_of, query_of
from indexers.encoders.term_weights_graph import SITES, extend
from indexers.encoders.term_weights_tokens import read_vocabulary, vocabulary_digest
from rag.errors import ConfigError, ModelCorrupt
from rag.models.runtime import core

if TYPE_CHECKING:
    from openvino import InferRequest, Model

    from indexers.impacts import Impacts, Query

RANGES = ".int8.safetensors"    # beside a weights file, in place of its suffix


class OpenVinoTermWeights(OpenVinoEncoder):
    """An encoder of ours with the branch that gives term weights. Its `name` and its vectors are those of the plain encoder;
    `encode` does not ask for the term weights but computes them.

    `weights`: a file of `term_weights.write`; None: the one in the folder or shipped for this encoder. 8-bit ranges of the branch
    lie beside it; without them int8 is refused, and auto takes floats.

    Raises:
        ConfigError: there are no term weights for this encoder, or its graph is not ours.
        SnapshotMismatch: the weights are for another encoder or vocabulary.
        ModelCorrupt: a file cannot be read.
    """

    def __init__(self, folder: Path, *, weights: Path | None = None, precision: str = "auto", threads: int = 0) -> None:
        description = describe(folder, name=folder.resolve().name, weights=(folder / IR).with_suffix(".bin"))
        path = weights or term_weights.find(description.identity, folder=folder)
        if path is None:
            raise ConfigError(f"There are no term weights for {description.identity}.", field="encoder", code="no_term_weights",
                              hint="Train them with `python -m indexers.training.tilde`, or use another encoder.")
        vocabulary = vocabulary_digest(read_vocabulary(folder / "tokenizer.json"))
        self.terms = term_weights.read(path, encoder=description.identity, vocabulary=vocabulary)
        backbone, own = int8.find(folder, identity=description.identity), path.with_name(path.stem + RANGES)
        chosen = precision_of(precision, has_ranges=backbone is not None and own.is_file())
        both = (int8.read(backbone), int8.read(own)) if chosen == "int8" and backbone is not None else None
        graph = _extended(folder, self.terms, both)
        # The graph is in 8 bits already: what is left of it runs in bf16 where that is real.
        rest = "bf16" if chosen == "int8" and "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else chosen
        super().__init__(folder, precision="f32" if rest == "int8" else rest, threads=threads, model=graph)
        self.precision = chosen

    def encode_with_terms(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None
                          ) -> tuple[Vectors, list[Impacts]]:
        """As the protocol says; each text is encoded in a batch of others of about its length.

        Raises:
            ModelCorrupt: a number came out that is not finite.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        found: list[Impacts] = [(np.zeros(0, np.int32), np.zeros(0, np.float32))] * len(texts)
        rows = self._tokenizer.encode(texts)
        lengths = [len(row) for row in rows]
        waiting, done = deque(batches(lengths)), 0
        telling = threading.Lock()

        def work() -> None:
            nonlocal done
            with self._request() as request:
                while True:
                    try:
                        batch = waiting.popleft()
                    except IndexError:
                        return
                    vectors[batch] = self._infer(request, [rows[index] for index in batch])
                    for index, impacts in zip(batch, self._impacts(request, [rows[index] for index in batch]), strict=True):
                        found[index] = impacts
                    with telling:
                        done += len(batch)
                        if on_batch is not None:
                            on_batch(done)

        wait(working := [self._pool.submit(work) for _ in range(min(self._streams, len(waiting)))])
        for ended in working:
            ended.result()
        with self._lock:
            self.padding += padding(lengths, limit=self.max_tokens)
        if not np.isfinite(vectors).all():
            raise ModelCorrupt(f"Encoder {self.name} gave a vector that is not finite.",
                               hint="Verify the model; if it is whole, set precision to f32.")
        if not self._normalise:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors, found

    def query(self, text: str) -> Query:
        """What a question becomes, without the network; see `term_weights.query_of`."""
        return query_of(text, self.terms, tokenizer=self._tokenizer)

    def _impacts(self, request: InferRequest, rows: Sequence[Sequence[int]]) -> list[Impacts]:
        weights: NDArray[np.float32] = request.get_tensor("term_weights").data
        added: NDArray[np.int32] = request.get_tensor("expansion_ids").data
        logits: NDArray[np.float32] = request.get_tensor("expansion_logits").data
        if not np.isfinite(weights).all() or not np.isfinite(logits).all():
            raise ModelCorrupt(f"{self.terms.name} gave a term weight that is not finite.",
                               hint="Verify the model; if it is whole, set precision to f32.")
        return [impacts_of(np.asarray(row), weights[at, :len(row)], added=added[at], logits=logits[at], model=self.terms)
                for at, row in enumerate(rows)]


def _extended(folder: Path, terms: TermModel, ranges: tuple[Sequence[Site], Sequence[Site]] | None) -> Model:
    try:
        model = core().read_model(folder / IR)
    except RuntimeError as error:
        raise ModelCorrupt(f"{folder / IR} cannot be read: {str(error).strip().splitlines()[-1]}",
                           hint="Pull or convert the model again.") from error
    if ranges is None:
        return extend(model, terms)
    backbone, own = ranges
    if len(own) != len(SITES):
        raise ConfigError(f"The 8-bit ranges of {terms.name} are for {len(own)} layers, not {len(SITES)}.", field="precision",
                          hint="Run `python -m indexers.training.tilde` again, or set precision to bf16 or f32.")
    return extend(model, terms, sites=backbone, own=own)
