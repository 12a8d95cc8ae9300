"""Encoders that run in the sentence-transformers library: any architecture a user names, and CUDA."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexers.encoders import Vectors
from indexers.encoders.tokenizing import EncoderTokenizer, valid
from rag.errors import ConfigError, ModelCorrupt, ModelUnavailable

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH_ROWS = 32
HUB_S = 5.0
WINDOW = 512                    # texts between two reports of progress


class SentenceTransformersEncoder:
    """A sentence-transformers model from a folder or a hub, on CUDA where there is one. One call computes at a time.

    `precision`: auto and f32 compute in f32, bf16 in bf16. Code that comes with a model is never run.

    Raises:
        ConfigError: the extra `torch` is not installed, or the model has no fast tokenizer.
        ModelUnavailable: there is no such model, or it cannot be loaded.
    """

    def __init__(self, location: str, *, name: str, precision: str = "auto", device: str | None = None) -> None:
        if precision not in ("auto", "bf16", "f32"):
            raise ConfigError(f"There is no precision {precision!r}.", hint="Use auto, bf16 or f32.", field="precision")
        self._model = _load(location, precision=precision, device=device)
        self._lock = threading.Lock()
        self.name = f"{name}@{_weights_sha256(location, self._model)[:8]}"
        self.dimension = int(self._model.encode([""]).shape[1])
        self.max_tokens = int(self._model.max_seq_length or 512)
        backend = getattr(self._model.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ConfigError(f"{location} has no fast tokenizer.", hint="Name a model with a tokenizer.json.")
        self._tokenizer = EncoderTokenizer(backend.to_str(), max_tokens=self.max_tokens)

    def count(self, texts: Sequence[str]) -> list[int]:
        return self._tokenizer.count(texts)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return self._tokenizer.offsets(text)

    def encode(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> Vectors:
        """Unit vectors in the order given. A batch that does not fit on the GPU is halved, at last computed on the CPU.

        Raises:
            ModelCorrupt: a vector came out that is not finite.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        with self._lock:
            for start in range(0, len(texts), WINDOW):
                window = [valid(text) for text in texts[start:start + WINDOW]]
                vectors[start:start + len(window)] = self._encode(window, rows=BATCH_ROWS)
                if on_batch is not None:
                    on_batch(start + len(window))
        if not np.isfinite(vectors).all():
            raise ModelCorrupt(f"Encoder {self.name} gave a vector that is not finite.", hint="Set precision to f32.")
        return vectors

    def _encode(self, texts: list[str], *, rows: int) -> Vectors:
        from torch.cuda import OutOfMemoryError

        try:
            return np.asarray(self._model.encode(texts, batch_size=rows, normalize_embeddings=True, show_progress_bar=False,
                                                 convert_to_numpy=True), np.float32)
        except OutOfMemoryError:
            if rows > 1:
                return self._encode(texts, rows=rows // 2)
            self._model.to("cpu")
            return self._encode(texts, rows=BATCH_ROWS)


def _load(location: str, *, precision: str, device: str | None) -> SentenceTransformer:
    try:
        import torch
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise ConfigError(f"{location} needs sentence-transformers, which is not installed ({error}).",
                          hint="pip install 'thriftrag[torch]'", code="extra_missing") from error

    def load(*, offline: bool) -> SentenceTransformer:
        return SentenceTransformer(location, device=device, local_files_only=offline, trust_remote_code=False)

    try:
        model = load(offline=True)      # no network for what is here already
    except (OSError, ValueError, RuntimeError) as missing:
        if not Path(location).exists():
            _require_hub(location)
        try:
            model = load(offline=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelUnavailable(f"{location} cannot be loaded by sentence-transformers: {_brief(error)}",
                                   hint="Name a folder that holds the whole model.") from missing
    return model.to(torch.bfloat16 if precision == "bf16" else torch.float32)


def _require_hub(location: str) -> None:
    """The library would try an absent hub for more than a minute."""
    import httpx
    from huggingface_hub.constants import ENDPOINT

    try:
        httpx.head(ENDPOINT, timeout=HUB_S, follow_redirects=False)
    except httpx.HTTPError as error:
        raise ModelUnavailable(f"{location} is no folder and not in the Hugging Face cache; {ENDPOINT}: {_brief(error)}.",
                               hint="Name a folder that holds the model, or check the network.") from error


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _weights_sha256(location: str, model: SentenceTransformer) -> str:
    """Of the published file where there is one, so that it agrees with other backends; else of the tensors."""
    published = Path(location) / "model.safetensors"
    if published.is_file():
        with published.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
