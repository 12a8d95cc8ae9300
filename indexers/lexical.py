"""Words for BM25: one tokenisation for documents and questions, stored per segment so that opening needs no re-reading.

Text is NFKC-normalised and case-folded; a word is a run of letters, marks and digits; scripts written without spaces
give character bigrams, which is what Lucene's CJK analysis does. English inflection is folded by the Porter2 stemmer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = "lexical.npz"
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1780-\u17ff\U00020000-\U0002fa1f"
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_RUN = re.compile(rf"[{_UNSPACED}]")


def words(text: str) -> list[str]:
    """Index terms of `text`, in order, repeats kept."""
    found: list[str] = []
    for match in _WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
        word = match.group()
        if _RUN.match(word):
            found.extend(word[i:i + 2] for i in range(max(1, len(word) - 1)))
        else:
            found.append(_stem(word))
    return found


@lru_cache(maxsize=200_000)
def _stem(word: str) -> str:
    return _stemmer().stemWord(word) if word.isascii() else word


@lru_cache(maxsize=1)
def _stemmer():  # type: ignore[no-untyped-def]  # the C extension ships no types
    import Stemmer

    return Stemmer.Stemmer("english")


def write(folder: Path, texts: Sequence[str]) -> Path:
    vocabulary: dict[str, int] = {}
    ids: list[int] = []
    offsets = [0]
    for text in texts:
        ids.extend(vocabulary.setdefault(word, len(vocabulary)) for word in words(text))
        offsets.append(len(ids))
    path = folder / FILE
    save(path, vocabulary, ids=np.asarray(ids, np.int32), offsets=np.asarray(offsets, np.int64))
    return path


def save(path: Path, vocabulary: Iterable[str], *, ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
    # Words hold no newline, so one joined byte array stores them without any object array.
    joined = np.frombuffer("\n".join(vocabulary).encode(), np.uint8)
    np.savez(path, vocabulary=joined, ids=ids, offsets=offsets)


def load(folder: Path) -> tuple[list[str], NDArray[np.int32], NDArray[np.int64]]:
    """Vocabulary, word ids of all chunks end to end, and where each chunk starts (length chunks + 1)."""
    with np.load(folder / FILE, allow_pickle=False) as arrays:
        joined = arrays["vocabulary"].tobytes().decode()
        return (joined.split("\n") if joined else []), arrays["ids"], arrays["offsets"]
