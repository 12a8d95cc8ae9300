"""Dense vectors and term weights from one pass in OpenVINO."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexers.encoders import Padding, Vectors, int8, term_weights
from indexers.encoders.bert import IR
from indexers.encoders.int8 import Site
from indexers.encoders.openvino import OpenVinoEncoder, described, precision_of
from indexers.encoders.term_weights import TermModel, impacts_of, query_of
from indexers.encoders.term_weights_graph import SITES, extend
from indexers.encoders.term_weights_tokens import read_vocabulary, vocabulary_digest
from indexers.impacts import NOTHING, Impacts, Query, Statistics
from rag.errors import ConfigError, ModelCorrupt
from rag.models.runtime import core

if TYPE_CHECKING:
    from openvino import InferRequest, Model


class OpenVinoTermWeights(OpenVinoEncoder):
    """An encoder of ours with the branch that gives term weights. Its `name` and its vectors are those of the plain encoder;
    `encode` is the plain encoder, and the graph with the branch is made when term weights are first asked for.

    `weights`: a file of `term_weights.write`; None: the one in the folder or shipped for this encoder. 8-bit ranges of the branch
    lie beside it; without them int8 is refused, and auto takes floats.

    Raises:
        ConfigError: there are no term weights for this encoder, or its graph is not ours.
        SnapshotMismatch: the weights are for another encoder or vocabulary.
        ModelCorrupt: a file cannot be read.
    """

    def __init__(self, folder: Path, *, weights: Path | None = None, precision: str = "auto", threads: int = 0) -> None:
        description = described(folder)
        path = weights or term_weights.find(description.identity, folder=folder)
        if path is None:
            raise ConfigError(f"There are no term weights for {description.identity}.", field="encoder", code="no_term_weights",
                              hint="Train them with `python -m indexers.training.tilde`, or use another encoder.")
        vocabulary = vocabulary_digest(read_vocabulary(folder / "tokenizer.json"))
        self.terms = term_weights.read(path, encoder=description.identity, vocabulary=vocabulary)
        backbone, own = int8.find(folder, identity=description.identity), term_weights.ranges_of(path)
        chosen = precision_of(precision, has_ranges=backbone is not None and own.is_file())
        super().__init__(folder, precision=chosen, threads=threads)
        self._ranges = (int8.read(backbone), int8.read(own)) if chosen == "int8" and backbone is not None else None
        self._folder, self._threads = folder, threads
        self._making = threading.Lock()
        self._branch: _Branch | None = None
        if self._ranges is not None and len(self._ranges[1]) != len(SITES):
            raise ConfigError(f"The 8-bit ranges of {self.terms.name} are for {len(self._ranges[1])} layers, not {len(SITES)}.",
                              field="precision",
                              hint="Run `python -m indexers.training.tilde` again, or set precision to bf16 or f32.")

    def encode_with_terms(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None
                          ) -> tuple[Vectors, list[Impacts]]:
        """As the protocol says; each text is encoded in a batch of others of about its length.

        Raises:
            ModelCorrupt: a number came out that is not finite. ConfigError: the graph is not one of ours.
        """
        with self._making:
            if self._branch is None:
                self._branch = _Branch(self._folder, self.terms, ranges=self._ranges, precision=self.precision,
                                       threads=self._threads)
        vectors, found = self._branch.both(texts, on_batch=on_batch)
        with self._lock:
            self.padding += self._branch.drained()
        return vectors, found

    def query(self, text: str, *, statistics: Statistics | None = None) -> Query:
        """What a question becomes, without the network; see `term_weights.query_of`."""
        return query_of(text, self.terms, tokenizer=self._tokenizer, statistics=statistics)


class _Branch(OpenVinoEncoder):
    """The graph that gives term weights beside vectors."""

    def __init__(self, folder: Path, terms: TermModel, *, ranges: tuple[Sequence[Site], Sequence[Site]] | None, precision: str,
                 threads: int) -> None:
        # A graph in 8 bits already has its steps: what is left of it runs in bf16 where that is real.
        rest = "bf16" if "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        super().__init__(folder, precision=rest if precision == "int8" else precision, threads=threads,
                         model=_extended(folder, terms, ranges))
        self._terms = terms

    def both(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None) -> tuple[Vectors, list[Impacts]]:
        found: list[Impacts] = [NOTHING] * len(texts)

        def keep(request: InferRequest, batch: Sequence[int], rows: Sequence[Sequence[int]]) -> None:
            for index, impacts in zip(batch, self._impacts(request, rows), strict=True):
                found[index] = impacts

        return self._encoded(texts, on_batch=on_batch, also=keep), found

    def drained(self) -> Padding:
        """What was computed since this was last asked."""
        with self._lock:
            found, self.padding = self.padding, Padding()
        return found

    def _impacts(self, request: InferRequest, rows: Sequence[Sequence[int]]) -> list[Impacts]:
        weights: NDArray[np.float32] = request.get_tensor("term_weights").data
        added: NDArray[np.int32] = request.get_tensor("expansion_ids").data
        logits: NDArray[np.float32] = request.get_tensor("expansion_logits").data
        if not np.isfinite(weights).all() or not np.isfinite(logits).all():
            raise ModelCorrupt(f"{self._terms.name} gave a term weight that is not finite.",
                               hint="Verify the model; if it is whole, set precision to f32.")
        return [impacts_of(np.asarray(row), weights[at, :len(row)], added=added[at], logits=logits[at], model=self._terms)
                for at, row in enumerate(rows)]


def _extended(folder: Path, terms: TermModel, ranges: tuple[Sequence[Site], Sequence[Site]] | None) -> Model:
    try:
        model = core().read_model(folder / IR)
    except RuntimeError as error:
        raise ModelCorrupt(f"{folder / IR} cannot be read: {str(error).strip().splitlines()[-1]}",
                           hint="Pull or convert the model again.") from error
    if ranges is None:
        return extend(model, terms)
    return extend(model, terms, sites=ranges[0], own=ranges[1])
