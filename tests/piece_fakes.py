"""An encoder with term weights that works as WordPiece and expansion do, without any model: words of Latin letters are cut into
pieces of five letters, stop words weigh nothing, and passages get the words that `RELATED` has for a piece added."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from indexers.encoders import Vectors
from indexers.impacts import Impacts, Query, Statistics
from tests.fakes import WordEncoder
from tests.term_fakes import SCALE, model, number

STOP_WORDS = {"the", "is", "it", "what", "a", "of", "in", "to", "and"}
RELATED = {"otter": "animal", "kettl": "appliance"}
ADDED = 0.5
_PIECE = re.compile(r"[^\W_]{1,5}")
_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")


def pieces(text: str) -> list[str]:
    return [("##" if at else "") + part for word in _WORD.findall(text.lower()) for at, part in enumerate(_PIECE.findall(word))]


def asked(piece: str) -> float:
    """The weight of a piece in queries; 0 for stop words and other scripts."""
    return 0.0 if piece in STOP_WORDS or not piece.isascii() else 1 + len(piece) / 8


def weights_of(text: str) -> dict[str, float]:
    """The weight of each piece of a passage, and of what is added to it."""
    times = Counter(piece for piece in pieces(text) if asked(piece))
    own = {piece: min(SCALE, 1 + count / 2) for piece, count in times.items()}
    added = {part: ADDED for piece, related in RELATED.items() if piece in own for part in pieces(related) if part not in own}
    return {**own, **added}


class PieceEncoder(WordEncoder):
    def __init__(self, name: str = "words@1", terms: str = "tilde@pieces01") -> None:
        super().__init__(name)
        self.terms = model(terms)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [(word.start() + piece.start(), word.start() + piece.end()) for word in _WORD.finditer(text)
                for piece in _PIECE.finditer(word.group()) or ()]

    def encode_with_terms(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None
                          ) -> tuple[Vectors, list[Impacts]]:
        return self.encode(texts, on_batch=on_batch), [_impacts(weights_of(text)) for text in texts]

    def query(self, text: str, *, statistics: Statistics | None = None) -> Query:
        times = Counter(piece for piece in pieces(text) if asked(piece))
        return _impacts({piece: count * asked(piece) for piece, count in times.items()})


def _impacts(weights: dict[str, float]) -> Impacts:
    by_number = {number(piece): weight for piece, weight in weights.items()}
    assert len(by_number) == len(weights), "two pieces of the test's words have one number"
    ids = sorted(by_number)
    return np.asarray(ids, np.int32), np.asarray([by_number[i] for i in ids], np.float32)
