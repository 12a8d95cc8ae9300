"""Text to unit vectors, behind one protocol; the heavy libraries are imported only inside each backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from rag.types import OnProgress, no_progress

if TYPE_CHECKING:
    from rag.models import ModelCache

Vectors = NDArray[np.float32]


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


def open_encoder(name: str, *, cache: ModelCache, precision: str = "auto", threads: int = 0,
                 on_progress: OnProgress = no_progress) -> Encoder:
    """The encoder that `name` stands for: a registry name, an OpenVINO or sentence-transformers folder, or OWNER/NAME
    on a hub.

    `precision`: auto, bf16 or f32. `threads`: 0 leaves it to the runtime. A folder of a BERT model is converted once, which
    `on_progress` hears of.

    Raises:
        ConfigError: nothing goes by that name, it is no embedder, or it needs an extra that is not installed.
        ModelUnavailable: it was not pulled, or cannot be loaded.
        ModelCorrupt: its files are damaged.
    """
    from rag.models import resolve

    found = resolve(name, cache=cache, role="embedder", on_progress=on_progress)
    if found.backend == "openvino":
        from indexers.encoders.openvino import OpenVinoEncoder

        return OpenVinoEncoder(Path(found.location), precision=precision, threads=threads)
    from indexers.encoders.sentence_transformers import SentenceTransformersEncoder

    return SentenceTransformersEncoder(found.location, name=found.name, precision=precision)
