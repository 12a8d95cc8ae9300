"""A second look: what the best candidates mention is searched in turn, so that the passage which a question only leads to through
another becomes a candidate. No model is asked, and nothing is encoded.

    first look -> its best passages -> names and rare words that the question lacks -> BM25 -> chance of each -> the pool

Documents refer to each other by name, and what they refer to often bears that name as its title: following such mentions is how
multi-hop questions are made and answered (GoldEn Retriever, Qi et al. 2019, section 3; graph retriever, Asai et al. 2020,
section 3.1, which follows hyperlinks). Departures: no query is generated and no link is stored; mentions are found in the text,
and the word index finds what they name, so that any collection can be searched so, and rare words serve where there are no titles.

The first three quarters of the pool stay as they were. For the places left, what the first look had there and what the second
one brought compete by their chance to be evidence (`retrievers.second_look_model`): where nothing leads on, little changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from indexers import lexical
from indexers.encoders import Vectors
from rag.filters import Filter
from rag.types import Chunk, Led, ScoredChunk
from retrievers import mentions
from retrievers.bm25 import Bm25
from retrievers.bm25_native import NativeBm25
from retrievers.hybrid import Found, Searcher
from retrievers.second_look_model import Chances, shipped
from retrievers.segments import Allowed

ORIGIN = "second_look"
# Passages of the first look whose mentions are followed; names and rare words of each; results of each search.
SEEDS = 4
NAMES = 10
RARE = 12
BY_NAME = 3
BY_RARE = 10
# Mentions count the less, the further down the passage that has them.
_FADING = 0.3


@dataclass(frozen=True, slots=True)
class Brought:
    """A candidate that only the second look has. `chance`: to be evidence; `by`: the chunk that led to it, `why` how."""

    chunk_id: str
    source: str
    chance: float
    by: str
    why: str

    def to_dict(self) -> dict[str, object]:
        return {"chunk_id": self.chunk_id, "source": self.source, "chance": round(self.chance, 4), "by": self.by, "why": self.why}


@dataclass(frozen=True, slots=True)
class SecondLook:
    """`found`: the pool, first what the first look keeps in its order, then what came to it, likeliest first, with the origin
    `second_look`; their scores only continue the order. `asked`: what was searched, one text each; empty if nothing was."""

    found: Found
    asked: tuple[str, ...] = ()
    brought: tuple[Brought, ...] = ()

    def facts(self) -> dict[str, object]:
        return {"asked": list(self.asked), "brought": [each.to_dict() for each in self.brought]}


@dataclass(slots=True)
class Lead:
    """What leads to one row: the features of `second_look_model` that searches give, and the best way, for the trace."""

    linked: float = 0.0
    one_word: float = 0.0
    rare: float = 0.0
    named: float = 0.0
    by: str = ""
    why: str = ""

    @property
    def led(self) -> Led | None:
        """None where nothing leads to the row."""
        return Led(self.linked, self.one_word, self.rare, self.named, self.by) if self.by else None

    def note(self, *, rare: float = 0.0, named: float = 0.0, by: str, why: str) -> None:
        # Of two ways alike the name says more.
        if rare > max(self.rare, self.named) or 0 < named >= max(self.rare, self.named):
            self.by, self.why = by, why
        self.rare, self.named = max(self.rare, rare), max(self.named, named)


@dataclass(frozen=True, slots=True)
class Leads:
    """All rows that a second look met, whatever becomes of them, with the features of each, in order of rows."""

    asked: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    cosines: tuple[float, ...] = ()
    features: tuple[tuple[float, ...], ...] = ()
    leads: tuple[Lead, ...] = ()


def kept_of(k: int) -> int:
    """How many places of a pool of `k` the first look fills in any case: three quarters, at least one."""
    return max(1, k - k // 4)


def second_look(question: str, found: Found, *, searcher: Searcher, k: int, vector: Vectors, where: Filter | None = None,
                chances: Chances | None = None) -> SecondLook:
    """The pool of the best `k` after two looks; `found` is the first, which may hold more. `vector`: the question's. `chances`: by
    other weights than those shipped. Deleted chunks and those that `where` excludes are never brought.

    Where the first look holds all there is, or `k` leaves no place, the pool is the first look's.
    """
    first = Found(found.hits[:k], found.rows[:k], found.plan)
    if not first.hits or kept_of(k) == k or (len(found.hits) < k and "dense" in found.plan.origins):
        return SecondLook(first)
    seen = leads(question, first, searcher=searcher, vector=vector, where=where)
    return chosen(first, seen, k=k, chances=shipped() if chances is None else chances)


def leads(question: str, first: Found, *, searcher: Searcher, vector: Vectors, where: Filter | None = None) -> Leads:
    """The rows of the first look and those that mentions in its best passages lead to, each once."""
    trail = Trail.begun(question, searcher=searcher, where=where)
    for hit, row in zip(first.hits[:SEEDS], first.rows, strict=False):
        trail.follow(hit.chunk, row=row)
    return trail.leads(first, searcher=searcher, vector=vector)


def chosen(first: Found, seen: Leads, *, k: int, chances: Chances) -> SecondLook:
    """The pool of `k` from the leads; ties by the first look's rank, then by row."""
    chance = dict(zip(seen.rows, chances.of(seen.features).tolist(), strict=True))
    places = {row: place for place, row in enumerate(first.rows)}
    kept = kept_of(k)
    rivals = sorted((row for row in seen.rows if places.get(row, k) >= kept),
                    key=lambda row: (-chance[row], places.get(row, k), row))[:k - min(kept, len(first.rows))]
    stay = sorted((row for row in rivals if row in places), key=places.__getitem__)
    come = [row for row in rivals if row not in places]
    at = {row: place for place, row in enumerate(seen.rows)}
    hits = [replace(first.hits[places[row]], led=seen.leads[at[row]].led) for row in (*first.rows[:kept], *stay)]
    least = min(hit.score for hit in hits)
    brought = []
    for row in come:
        chunk, lead = seen.chunks[at[row]], seen.leads[at[row]]
        # Below all that stay, in the order of chances, on a scale that has no other meaning here.
        origins = {"dense": seen.cosines[at[row]], ORIGIN: chance[row]}
        hits.append(ScoredChunk(chunk, least - (1 - chance[row]) * abs(least), origins, lead.led))
        brought.append(Brought(chunk.id, chunk.source, chance[row], lead.by, lead.why))
    return SecondLook(Found(tuple(hits), (*first.rows[:kept], *stay, *come), first.plan), seen.asked, tuple(brought))


@dataclass(slots=True)
class Trail:
    """What was followed for one question, and what that led to. `met`: what leads to each row."""

    question: str
    bm25: Bm25
    chunks: int
    known: frozenset[str]
    allowed: Allowed
    asked: dict[str, None] = field(default_factory=dict)
    met: dict[int, Lead] = field(default_factory=dict)
    followed: dict[int, Chunk] = field(default_factory=dict)
    # Of rows that were looked at before: their chunks, and how much of the question each covers.
    read: dict[int, Chunk] = field(default_factory=dict)
    covered: dict[int, float] = field(default_factory=dict)

    @classmethod
    def begun(cls, question: str, *, searcher: Searcher, where: Filter | None) -> Trail:
        return cls(question, _words_of(searcher), searcher.snapshot.size, frozenset(lexical.words(question)),
                   searcher.snapshot.allowed(where))

    def follow(self, seed: Chunk, *, row: int) -> None:
        """Searches what one passage mentions; the passage itself is no result. What is followed later counts less."""
        share = self._share(len(self.followed))
        self.followed[row] = seed
        idf = self.bm25.idf(lexical.words(_text(seed)))
        words = mentions.rare(idf, known=self.known, chunks=self.chunks, most=RARE)
        for rank, other in enumerate(self._rows(" ".join(words), k=BY_RARE, but=row)):
            self._lead(other).note(rare=share / (1 + rank), by=seed.id, why="it shares rare words")
        own = self.known.union(lexical.words(seed.title))
        weights = {name: mentions.weight(name, known=own, idf=idf) for name in mentions.names(f"{seed.heading}\n{seed.text}")}
        names = sorted((name for name, weight in weights.items() if weight > 0), key=lambda name: (-weights[name], name))
        for name in names[:NAMES]:
            for rank, other in enumerate(self._rows(name, k=BY_NAME, but=row)):
                self._lead(other).note(named=share / (1 + rank), by=seed.id, why=f"it holds the name {name!r}")

    def leads(self, first: Found, *, searcher: Searcher, vector: Vectors) -> Leads:
        """The rows of the first look and all that were met so far, each once."""
        rows = tuple(sorted({*first.rows, *self.met}))
        known = self.read
        known.update(zip(first.rows, (hit.chunk for hit in first.hits), strict=True))
        fetched = [row for row in rows if row not in known]
        known.update(zip(fetched, searcher.snapshot.chunks(fetched), strict=True))
        self._link({row: known[row] for row in self.met})
        new = [row for row in rows if row not in self.covered]
        self.covered.update(zip(new, covered([known[row] for row in new], self.bm25.idf(sorted(self.known))), strict=True))
        cosines = (searcher.snapshot.vectors(rows) @ vector).astype(np.float64).tolist()
        places = {row: place for place, row in enumerate(first.rows)}
        found = tuple(self.met.get(row, Lead()) for row in rows)
        features = tuple(
            (10 / (10 + places[row]) if row in places else 0.0, cosine, self.covered[row], lead.linked, lead.one_word, lead.rare,
             lead.named) for row, cosine, lead in zip(rows, cosines, found, strict=True))
        return Leads(tuple(self.asked), rows, tuple(known[row] for row in rows), tuple(cosines), features, found)

    def _link(self, met: Mapping[int, Chunk]) -> None:
        """Notes which of the chunks met have a title that a followed passage mentions. A title that the question names was
        searched already."""
        asked = mentions.spread(self.question)
        texts = [(seed, mentions.titled(seed.title), mentions.spread(_text(seed))) for seed in self.followed.values()]
        for row, chunk in met.items():
            title = mentions.titled(chunk.title)
            if not title or title in asked:
                continue
            place = next((place for place, (_, own, text) in enumerate(texts) if own != title and title in text), None)
            if place is not None:
                lead = self.met[row]
                lead.linked, lead.one_word = self._share(place), float(len(title.split()) == 1)
                lead.by, lead.why = texts[place][0].id, f"its title is mentioned: {chunk.title}"

    @staticmethod
    def _share(place: int) -> float:
        return 1 / (1 + _FADING * place)

    def _rows(self, text: str, *, k: int, but: int) -> list[int]:
        """Nothing for what was searched already, for an earlier passage."""
        if not text or text in self.asked:
            return []
        self.asked[text] = None
        return [row for row, _ in self.bm25.search(text, k=k + 1, allowed=self.allowed) if row != but][:k]

    def _lead(self, row: int) -> Lead:
        return self.met.setdefault(row, Lead())


def _words_of(searcher: Searcher) -> Bm25:
    """There are dozens of searches, too many for a server or an engine that takes milliseconds; all engines rank alike."""
    return searcher.bm25 if searcher.bm25.engine == NativeBm25.engine else NativeBm25(searcher.snapshot.segments)


def covered(chunks: Sequence[Chunk], idf: Mapping[str, float]) -> list[float]:
    """The share of the question's terms, by their idf, that each chunk holds; 0 if the collection holds none."""
    total = sum(idf.values())
    return [sum(weight for term, weight in idf.items() if term in held) / total if total else 0.0
            for held in (frozenset(lexical.words(_text(chunk))) for chunk in chunks)]


def _text(chunk: Chunk) -> str:
    return f"{chunk.title}\n{chunk.heading}\n{chunk.text}"

