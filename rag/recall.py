"""Remembered passages as candidates for a question: which of them still stand, what has come since, and what the trigger sees.

**Nothing stale.** A remembered passage is offered only if its row holds the same chunk in the open snapshot: text and citation are
read from there. And what is offered serves only if nothing came since that the question's retrieval would have shown in its place
(`Arrivals`): no chunk that was added after these passages were last read for a question is as near to the question as the fourth
best of them, less a margin, or holds nearly as much of the question's idf weight as the best of them does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from indexers import lexical
from indexers.encoders import Vectors
from indexers.snapshot import Snapshot
from indexers.store import passage_text
from optimizers import relevance
from optimizers.crossencoder import reading
from optimizers.crossencoder.encoder import CrossEncoder
from optimizers.pool import Pool
from rag import prompts
from rag.filters import Filter
from rag.pooling import SentenceVectors, pooled
from rag.settings import Settings, default
from rag.tokens import TokenCounter
from rag.types import Chunk, ScoredChunk
from retrievers.hybrid import Found, Searcher
from retrievers.origins import Plan
from retrievers.recollection import Near
from retrievers.reservoir import Asked, Knowledge

ORIGIN = "memory"
# What decides whether memory is used, and nothing about an answer from the index.
MEMORY_SETTINGS = ("memory", "memory_tau", "memory_theta", "memory_error", "answer_cache")
# Chunks that came since are compared one by one up to this many; more are taken to matter.
MOST_NEW = 1000
_MARGIN, _SHARE = 0.05, 0.8
_FOURTH = 4
# Passages that the cross-encoder reads before memory is trusted.
_PAIRS = 8
# From this cosine on a question brings along what was read for its neighbour.
SAME = 0.8
# Under this chance memory is not worth reading any closer.
UNLIKELY = 0.02


@dataclass(frozen=True, slots=True)
class Asking:
    """One question with what serves it. `question`: as it is searched; `told`: as the reader gets it. `limit`: context tokens.
    `reader`: its name. `way`: what else decides how candidates are found."""

    question: str
    searcher: Searcher
    vectors: SentenceVectors
    counter: TokenCounter
    settings: Settings
    reader: str
    limit: int
    cross: CrossEncoder | None = None
    where: Filter | None = None
    told: str = ""
    way: tuple[object, ...] = ()

    def scope(self, owner: str) -> str:
        """A hash of what two questions must share to share remembered passages."""
        settings = self.settings
        return _hashed(owner, self.searcher.encoder.name, settings.mode, settings.origins, settings.fusion, settings.candidates,
                       settings.second_look, str(self.where), self.way)

    def answer_scope(self, owner: str) -> str:
        """A hash of everything else that an answer from the index depends on, too. Memory's own settings are no part of that:
        what memory served is not kept as an answer."""
        plain = dataclasses.replace(self.settings, **{name: default(name) for name in MEMORY_SETTINGS})
        return _hashed(self.scope(owner), self.searcher.snapshot.id, plain.config_hash(), self.reader, self.limit,
                       self.told if self.told != self.question else "",
                       prompts.build("", ""))


@dataclass(frozen=True, slots=True)
class Offer:
    """Remembered passages, the nearest first. `below`: chunks from this row on came after one of them was last read."""

    numbers: tuple[int, ...]
    found: Found
    pool: Pool
    below: int
    passes: int


def offered(asking: Asking, vector: Vectors, remembered: Mapping[int, Knowledge]) -> tuple[Offer | None, list[int]]:
    """Those that still stand, and the numbers of those that do not. None where none does."""
    snapshot = asking.searcher.snapshot
    live = snapshot.known([each.row for each in remembered.values()])
    standing = [(number, each, live[each.row]) for number, each in remembered.items()
                if each.row in live and stands(each, live[each.row])]
    kept = {number for number, _, _ in standing}
    gone = [number for number in remembered if number not in kept]
    if not standing:
        return None, gone
    cosines = (snapshot.vectors([each.row for _, each, _ in standing]) @ vector).tolist()
    order = sorted(range(len(standing)), key=lambda i: (-cosines[i], standing[i][1].row))
    hits, rows = [], []
    for i in order:
        _, each, chunk = standing[i]
        asking.vectors.know([chunk.sentence(j) for j in range(len(chunk.sentences))], each.sentences.astype(np.float32))
        hits.append(ScoredChunk(chunk, cosines[i], {"dense": cosines[i], ORIGIN: cosines[i]}))
        rows.append(each.row)
    weights = asking.searcher.bm25.idf(lexical.words(asking.question))
    pool, passes = pooled(asking.question, hits, vectors=asking.vectors, counter=asking.counter, weights=weights)
    found = Found(tuple(hits), tuple(rows), Plan((ORIGIN,)))
    return Offer(tuple(standing[i][0] for i in order), found, pool, min(each.below for _, each, _ in standing), passes), gone


def stands(each: Knowledge, chunk: Chunk) -> bool:
    """Whether a chunk is still what was remembered."""
    return (chunk.id == each.chunk_id and chunk.content_hash == each.content_hash
            and len(chunk.sentences) == len(each.sentences) and title_of(chunk) == each.title)


def title_of(chunk: Chunk) -> str:
    """What the paper's rule goes by: the document's title, or what it is called where it has none."""
    return chunk.title or chunk.source


class Arrivals:
    """What has come to a collection since passages were remembered. Threads may share it."""

    def __init__(self) -> None:
        self._snapshot = ""
        self._rows = np.zeros(0, np.int64)
        self._words: dict[int, frozenset[str]] = {}
        self._lock = Lock()

    def matter(self, asking: Asking, vector: Vectors, offer: Offer) -> str | None:
        """Why what has come may belong in the place of what is offered; None where nothing does."""
        snapshot = asking.searcher.snapshot
        if snapshot.next_row == offer.below:
            return None
        if snapshot.next_row < offer.below:
            return "the collection was made anew"
        with self._lock:
            if self._snapshot != snapshot.id:
                self._snapshot, self._rows, self._words = snapshot.id, snapshot.rows(), {}
            new = self._rows[np.searchsorted(self._rows, offer.below):]
            if len(new) > MOST_NEW:
                return f"{len(new)} passages came since"
            self._learn(snapshot, new.tolist())
            words = [self._words[row] for row in new.tolist()]
        if not len(new):
            return None
        cosines = [hit.origins["dense"] for hit in offer.found.hits]
        near = sorted(cosines, reverse=True)[min(_FOURTH, len(cosines)) - 1] - _MARGIN
        if float((snapshot.vectors(new.tolist()) @ vector).max()) >= near:
            return "a passage came since that is as near to the question"
        weights = offer.pool.term_weights
        held = max(_held(weights, frozenset().union(*each.sentence_terms)) for each in offer.pool.candidates)
        if max(_held(weights, own) for own in words) >= _SHARE * held:
            return "a passage came since that holds as much of the question's words"
        return None

    def _learn(self, snapshot: Snapshot, rows: Sequence[int]) -> None:
        unread = [row for row in rows if row not in self._words]
        for row, chunk in snapshot.known(unread).items():
            self._words[row] = frozenset(lexical.words(passage_text(chunk.title, chunk.heading, chunk.text)))


def seen(asking: Asking, offer: Offer, past: tuple[Near, Asked] | None) -> tuple[Pool, str, tuple[float, ...]] | None:
    """The pool, read by the cross-encoder where there is one, which model judges it, and its features in that model's order. None
    where the passages are so unlikely to hold the answer that they need not be looked at more closely. `past`: the nearest question
    that was answered from the index."""
    pool = offer.pool
    plain = max(relevance.plain_chances(pool).values())
    if plain < UNLIKELY:
        return None
    cosines = sorted((hit.origins["dense"] for hit in offer.found.hits), reverse=True)
    weights = pool.term_weights
    total = sum(weights.values())
    held = max(_held(weights, frozenset().union(*each.sentence_terms)) for each in pool.candidates)
    values = (cosines[0], max(max(each.sentence_relevance) for each in pool.candidates), float(np.mean(cosines[:3])),
              *_beside(asking, past), held / total if total else 0.0, _logit(plain))
    if asking.cross is None:
        return pool, "passages_unread", values
    read = reading.read(pool, asking.question, encoder=asking.cross, pairs=min(_PAIRS, asking.settings.cross_pairs))
    return read, "passages", (*values, _logit(max(relevance.chances(read).values())))


def _beside(asking: Asking, past: tuple[Near, Asked] | None) -> tuple[float, float, float, float]:
    """The cosine to the past question, how far that is on its way from SAME to 1, and what else `compared` says."""
    if past is None:
        return 0.0, 0.0, 0.0, 1.0
    near, asked = past
    idf = asking.searcher.bm25.idf(lexical.words(f"{asking.question} {asked.question}"))
    cosine, shared, apart = compared(asking.question, asked.question, cosine=near.cosine, idf=idf)
    return cosine, max(0.0, cosine - SAME) / (1 - SAME), shared, apart


def compared(question: str, past: str, *, cosine: float, idf: Mapping[str, float]) -> tuple[float, ...]:
    """Features of two questions: cosine, the share of idf weight that they have in common, and the weight of the heaviest term that
    only one has, as a share of the heaviest of all."""
    ours, theirs = frozenset(lexical.words(question)), frozenset(lexical.words(past))
    rarest = max(idf.values(), default=1.0) or 1.0
    weight = {term: idf.get(term, rarest) for term in ours | theirs}
    total = sum(weight.values())
    apart = max((weight[term] for term in ours ^ theirs), default=0.0)
    return cosine, sum(weight[term] for term in ours & theirs) / total if total else 0.0, apart / max(weight.values(), default=1.0)


def _held(weights: Mapping[str, float], terms: frozenset[str]) -> float:
    return sum(weight for term, weight in weights.items() if term in terms)


def _logit(chance: float) -> float:
    bounded = min(max(chance, 1e-6), 1 - 1e-6)
    return math.log(bounded / (1 - bounded))


def _hashed(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:16]
