"""Text to unit vectors, behind one protocol; the heavy libraries are imported only inside each backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rag.types import OnProgress, no_progress

if TYPE_CHECKING:
    from rag.models import ModelCache

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Padding:
    """What an encoder computed, in tokens: those of the texts, those that went through the model with padding, and those
    that would have in batches of 32 in the order of arrival."""

    tokens: int = 0
    computed: int = 0
    unsorted: int = 0

    @property
    def share(self) -> float:
        """Padding as part of the work done."""
        return 1 - self.tokens / self.computed if self.computed else 0.0

    @property
    def share_unsorted(self) -> float:
        return 1 - self.tokens / self.unsorted if self.unsorted else 0.0

    def __add__(self, other: Padding) -> Padding:
        return Padding(self.tokens + other.tokens, self.computed + other.computed, self.unsorted + other.unsorted)

    def __sub__(self, other: Padding) -> Padding:
        return Padding(self.tokens - other.tokens, self.computed - other.computed, self.unsorted - other.unsorted)


def padding_of(encoder: object) -> Padding:
    """All that an encoder has computed so far; nothing where it does not keep count. Wrappers are seen through."""
    while not isinstance(found := getattr(encoder, "padding", None), Padding):
        inner = getattr(encoder, "inner", None)
        if inner is None:
            return Padding()
        encoder = inner
    return found


class Encoder(Protocol):
    """A dense encoder. Equal `name` means comparable vectors: a collection refuses any other."""

    name: str                   # model and checksum, for instance "all-minilm-l6-v2@53aa5117"
    dimension: int
    max_tokens: int             # longer texts are truncated, special tokens included in the count

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text without truncation, special tokens included."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character span of each token of `text`, special tokens left out, without truncation."""

    def encode(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> Vectors:
        """Unit vectors, shape (len(texts), dimension), in the order given. `on_batch` hears how many texts are done."""


def open_folder(folder: Path, *, precision: str = "auto", threads: int = 0) -> Encoder:
    """The OpenVINO encoder in a folder: with term weights where there are some for it. Raises as `open_encoder`."""
    from indexers.encoders import term_weights
    from indexers.encoders.openvino import OpenVinoEncoder, described

    if term_weights.find(described(folder).identity, folder=folder) is None:
        return OpenVinoEncoder(folder, precision=precision, threads=threads)
    from indexers.encoders.term_weights_openvino import OpenVinoTermWeights

    return OpenVinoTermWeights(folder, precision=precision, threads=threads)


def open_encoder(name: str, *, cache: ModelCache, precision: str = "auto", threads: int = 0,
                 on_progress: OnProgress = no_progress) -> Encoder:
    """The encoder that `name` stands for: a registry name, an OpenVINO or sentence-transformers folder, or OWNER/NAME
    on a hub.

    `precision`: auto, int8, bf16 or f32. `threads`: 0 leaves it to the runtime. A folder of a BERT model is converted once, which
    `on_progress` hears of.

    Raises:
        ConfigError: nothing goes by that name, it is no embedder, or it needs an extra that is not installed.
        ModelUnavailable: it was not pulled, or cannot be loaded.
        ModelCorrupt: its files are damaged.
    """
    from rag.models import resolve

    found = resolve(name, cache=cache, role="embedder", on_progress=on_progress)
    if found.backend == "openvino":
        return open_folder(Path(found.location), precision=precision, threads=threads)
    from indexers.encoders.sentence_transformers import SentenceTransformersEncoder

    return SentenceTransformersEncoder(found.location, name=found.name, precision=precision)
