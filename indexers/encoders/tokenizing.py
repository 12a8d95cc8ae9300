"""Text to tokens for encoders: counted without truncation, encoded with it, offsets in the characters of the given text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.errors import ModelCorrupt

_SURROGATE = re.compile("[\ud800-\udfff]")


class EncoderTokenizer:
    """A Hugging Face tokenizer twice: as it is, and cut at `max_tokens`. Thread-safe."""

    def __init__(self, definition: str, *, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        self._whole = Tokenizer.from_str(definition)
        self._cut = Tokenizer.from_str(definition)
        for tokenizer in (self._whole, self._cut):
            tokenizer.no_padding()
        self._whole.no_truncation()
        self._cut.enable_truncation(max_tokens)

    @classmethod
    def from_file(cls, path: Path, *, max_tokens: int) -> EncoderTokenizer:
        """
        Raises:
            ModelCorrupt: the file is missing or no tokenizer.
        """
        try:
            return cls(path.read_text(encoding="utf-8"), max_tokens=max_tokens)
        except Exception as error:      # the library raises bare Exception
            raise ModelCorrupt(f"{path} cannot be read as a tokenizer: {error}.",
                               hint="Pull or copy the model again.") from error

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(row.ids) for row in self._whole.encode_batch_fast([valid(text) for text in texts])]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return list(self._whole.encode(valid(text), add_special_tokens=False).offsets)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, at most `max_tokens`."""
        return [row.ids for row in self._cut.encode_batch_fast([valid(text) for text in texts])]


    def continues(self, ids: Sequence[int]) -> NDArray[np.bool_]:
        """Whether each of these tokens of a WordPiece vocabulary goes on with the word before it."""
        return np.asarray([(self._whole.id_to_token(token) or "").startswith("##") for token in ids], bool)


def valid(text: str) -> str:
    """Half of a surrogate pair has no UTF-8 form and would raise; the replacement keeps every other character's place."""
    return _SURROGATE.sub("\ufffd", text)
