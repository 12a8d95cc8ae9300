"""An encoder that gives term weights without any model: a word's weight is how often it occurs, its number comes from a hash."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from indexers import lexical
from indexers.encoders import Vectors
from indexers.encoders.term_weights import TermFacts, TermModel
from indexers.impacts import Impacts, Query, Statistics
from tests.fakes import WordEncoder

VOCABULARY = 3000
SCALE = 4.0


def number(word: str) -> int:
    return zlib.crc32(word.encode()) % VOCABULARY


def terms_of(text: str) -> Impacts:
    """What `WeighingEncoder` gives for a text."""
    times = Counter(number(word) for word in lexical.words(text))
    ids = np.asarray(sorted(times), np.int32)
    return ids, np.asarray([min(times[int(i)], SCALE) for i in ids], np.float32)


def model(name: str = "tilde@words001") -> TermModel:
    facts = TermFacts("words@1", "none", tap=1, heads=1, epsilon=1e-12, activation="erf", scale=SCALE, expanded=0, steepness=1.0,
                      cut=0.0, k1=1.2, b=0.75, mean_length=10.0, from_idf=1.0)
    nothing = np.zeros(1, np.float32)
    return TermModel(name, facts, {}, nothing, 0.0, {}, np.zeros(VOCABULARY, np.float32), np.ones(VOCABULARY, np.float32),
                     np.ones(VOCABULARY, bool), np.zeros(VOCABULARY, bool), np.arange(VOCABULARY, dtype=np.int32))


class WeighingEncoder(WordEncoder):
    """Counts in `weighed` the texts whose term weights it made."""

    def __init__(self, name: str = "words@1", terms: str = "tilde@words001") -> None:
        super().__init__(name)
        self.terms = model(terms)
        self.weighed: list[str] = []

    def encode_with_terms(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None
                          ) -> tuple[Vectors, list[Impacts]]:
        self.weighed.extend(texts)
        return self.encode(texts, on_batch=on_batch), [terms_of(text) for text in texts]

    def query(self, text: str, *, statistics: Statistics | None = None) -> Query:
        ids, _ = terms_of(text)
        return ids, np.ones(len(ids), np.float32)
