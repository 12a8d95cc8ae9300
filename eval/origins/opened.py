"""The models of one run, opened once, and a data set's scores by all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eval.corpus import FOLDER as EVALUATION
from eval.datasets import Dataset, load
from eval.origins import encoded, remembered
from eval.origins.bags import Bags, Scores, products
from eval.origins.chunked import Chunked, chunked
from eval.origins.remembered import Remembered
from eval.origins.scored import Scored, bm25
from indexers.encoders import term_weights
from rag.errors import ConfigError, InputError
from rag.models import ModelCache, resolve
from rag.settings import Settings
from rag.types import OnProgress, no_progress
from retrievers.origins import readable

if TYPE_CHECKING:
    from indexers.encoders.openvino import OpenVinoEncoder
    from indexers.encoders.term_weights_openvino import OpenVinoTermWeights
    from indexers.training.tilde.teacher import Splade


@dataclass(slots=True, eq=False)
class Opened:
    """`encoder` is `weighing` where there are term weights. `folder`: the encoder's."""

    encoder: OpenVinoEncoder
    weighing: OpenVinoTermWeights | None
    splade: Splade | None
    folder: Path
    chunk_tokens: int
    kept: Remembered
    scratch: Path
    on_progress: OnProgress
    terms: dict[str, encoded.Terms] = field(default_factory=dict)   # of the sets met so far, by name

    def plain(self) -> OpenVinoEncoder:
        """The same encoder without term weights, in the same arithmetic."""
        from indexers.encoders.openvino import OpenVinoEncoder

        return OpenVinoEncoder(self.folder, precision=self.encoder.precision)

    def scored(self, dataset: Dataset, *, limit: int | None, seed: int) -> Scored:
        """Scores by every origin that there is a model for, on the set's chunks.

        Raises: as `chunked`; StorageError if encodings cannot be kept.
        """
        chunks = chunked(dataset, encoder=self.encoder, chunk_tokens=self.chunk_tokens, limit=limit, seed=seed)
        by_origin = {"bm25": bm25(chunks.texts, chunks.asked, scratch=self.scratch)}
        without = np.zeros(len(chunks.questions), bool)
        if self.weighing is not None:       # first, as its pass gives the vectors as well
            with_terms, without = self._sparse(self.weighing, chunks)
            by_origin |= with_terms
        passages, questions = (
            encoded.vectors(self.encoder, texts, digest, kept=self.kept, note=chunks.name, on_progress=self.on_progress)
            for texts, digest in ((chunks.texts, chunks.digest), (chunks.asked, chunks.asked_digest)))
        by_origin["dense"] = questions @ passages.T
        if self.splade is not None:
            by_origin["splade"] = products(self._splade(self.splade, chunks.asked, chunks.asked_digest, chunks.name),
                                           self._splade(self.splade, chunks.texts, chunks.digest, chunks.name))
        return Scored(chunks, by_origin, without)

    def _sparse(self, weighing: OpenVinoTermWeights, chunks: Chunked) -> tuple[dict[str, Scores], encoded.Mask]:
        found = encoded.terms(weighing, self.folder, chunks, kept=self.kept, on_progress=self.on_progress)
        self.terms[chunks.name] = found
        scale = weighing.terms.facts.scale
        by_origin: Mapping[str, Bags] = {"sparse": found.passages, "sparse without expansion": found.passages.only(found.own)}
        return ({origin: products(found.queries, each.in_eight_bits(scale=scale)) for origin, each in by_origin.items()},
                np.asarray([not readable(text, found.queries.of(at)) for at, text in enumerate(chunks.asked)], bool))

    def _splade(self, model: Splade, texts: tuple[str, ...] | list[str], digest: str, note: str) -> Bags:
        return encoded.splade(model, texts, digest, kept=self.kept, note=note, on_progress=self.on_progress)


def loaded(folders: Sequence[Path]) -> list[Dataset]:
    """
    Raises:
        InputError: as `eval.datasets.load`, or two are named alike, whose figures could not be told apart.
    """
    found = [load(folder) for folder in folders]
    twice = [name for name, times in Counter(each.name for each in found).items() if times > 1]
    if twice:
        raise InputError(f"Two data sets are named {twice[0]!r}.", field="data", hint="Name each once, or rename a folder.")
    return found


def opened(settings: Settings, *, scratch: Path, weights: Path | None = None, teacher: Path | None = None, home: Path | None = None,
           on_progress: OnProgress = no_progress) -> Opened:
    """The embedder of the settings; term weights from the file `weights`, or as shipped, or none; SPLADE-tiny from the folder
    `teacher`, or none. Encodings are remembered below `home / evaluation`, or not at all.

    Raises:
        ConfigError: the embedder is none of ours, which alone give term weights.
        ModelUnavailable, ModelCorrupt, SnapshotMismatch: a model is not there, damaged, or for another encoder.
    """
    from indexers.encoders.openvino import OpenVinoEncoder
    from indexers.encoders.term_weights_openvino import OpenVinoTermWeights

    folder = _folder(settings, on_progress)
    plain = OpenVinoEncoder(folder, precision=settings.precision)
    weights = weights or term_weights.find(plain.name, folder=folder)
    weighing = None if weights is None else OpenVinoTermWeights(folder, weights=weights, precision=settings.precision)
    kept = Remembered(None if home is None else home / EVALUATION / remembered.FOLDER)
    return Opened(weighing or plain, weighing, _teacher(teacher, folder), folder, settings.chunk_tokens, kept, scratch, on_progress)


def _folder(settings: Settings, on_progress: OnProgress) -> Path:
    found = resolve(settings.embedder, cache=ModelCache(settings.models), role="embedder", on_progress=on_progress)
    if found.backend != "openvino":
        raise ConfigError(f"{settings.embedder} does not run in OpenVINO, so it has no term weights.", field="embedder",
                          hint="Set embedder to all-minilm-l6-v2.")
    return Path(found.location)


def _teacher(folder: Path | None, encoder: Path) -> Splade | None:
    if folder is None:
        return None
    from indexers.encoders.term_weights_tokens import read_vocabulary, vocabulary_digest
    from indexers.training.tilde.teacher import Splade

    return Splade(folder, vocabulary=vocabulary_digest(read_vocabulary(encoder / "tokenizer.json")))
