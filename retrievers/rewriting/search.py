"""The search of a rewritten question: what its first look, feedback, bridges and proposed queries find, as one pool.

The first half of the first look stays as it is, so that the question itself is always kept and fused. All other candidates are
ordered by their chance to be evidence (`retrievers.rewriting.model`). What proposed queries find is then fused with that order by
reciprocal rank, in the last quarter of the pool alone: a model may propose anything, so it never moves what was found best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from indexers import lexical
from indexers.encoders import Vectors
from rag.filters import Filter
from rag.settings import Settings
from rag.types import Chunk, ScoredChunk
from retrievers import fusion
from retrievers.dense import Ranked
from retrievers.hybrid import Found, Searcher
from retrievers.rewriting import feedback
from retrievers.rewriting.bridge import bridged
from retrievers.rewriting.model import BRIDGE, FEEDBACK, Model, shipped
from retrievers.rewriting.proposal import SearchQuery
from retrievers.second_look import Lead, covered, kept_of

ORIGIN = "rewrite"
_COVERED = BRIDGE.index("covered")
# Of each feedback search and each proposed query, and of the pool that bridges begin from.
DEPTH = 50


@dataclass(frozen=True, slots=True)
class Brought:
    """A candidate that the first look's pool lacked. `chance`: to be evidence; `why`: what led to it, in words."""

    chunk_id: str
    source: str
    chance: float
    why: str

    def to_dict(self) -> dict[str, object]:
        return {"chunk_id": self.chunk_id, "source": self.source, "chance": round(self.chance, 4), "why": self.why}


@dataclass(frozen=True, slots=True)
class Rewritten:
    """`found`: the pool. `facts`: of what was searched and why, for the trace. Scores of `found` only continue the order."""

    found: Found
    brought: tuple[Brought, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Met:
    """All candidates, each once, by row: their chunks, features of `model.BRIDGE` and what led to them. `facts`: for the trace."""

    rows: tuple[int, ...]
    chunks: tuple[Chunk, ...]
    cosines: tuple[float, ...]
    features: tuple[tuple[float, ...], ...]
    leads: tuple[Lead, ...]
    facts: Mapping[str, object]


def kept(k: int) -> int:
    """How many places of a pool of `k` the first look fills in any case: half of them, at least one. With fewer, questions that one
    passage answers lost it."""
    return max(1, k // 2)


def rewritten(question: str, first: Found, *, searcher: Searcher, vector: Vectors, k: int, bridges: bool,
              queries: Sequence[SearchQuery] = (), where: Filter | None = None, settings: Settings | None = None,
              stop: Callable[[], bool] = lambda: False, model: Model | None = None) -> Rewritten:
    """The pool of the best `k` after feedback, after `bridges` if they are asked for, and after searches for `queries`. `first`:
    the first look of hybrid search, which may hold more than `k`; `vector`: the question's; `settings`: what hybrid fuses, and how.
    `stop`: whether no further round shall be made. Deleted chunks and those that `where` excludes are never brought.

    A first look that holds nothing leads nowhere.
    """
    if not first.hits:
        return Rewritten(first)
    proposed = proposals(queries, searcher=searcher, where=where, settings=settings)
    seen = met(question, first, searcher=searcher, vector=vector, k=k, bridges=bridges, proposed=proposed, where=where, stop=stop)
    found = pool(first, seen, chances(seen, bridges=bridges, model=model), k=k, proposed=proposed)
    return replace(found, facts={**seen.facts, "brought": [each.to_dict() for each in found.brought]})


def proposals(queries: Sequence[SearchQuery], *, searcher: Searcher, where: Filter | None,
              settings: Settings | None) -> list[Ranked]:
    """What hybrid search finds for each query; all are encoded in one pass."""
    if not queries:
        return []
    vectors = searcher.encoder.encode([query.text for query in queries])
    found = [searcher.find(query.text, mode="hybrid", k=DEPTH, vector=vector, where=where, settings=settings)
             for query, vector in zip(queries, vectors, strict=True)]
    return [[(row, hit.score) for row, hit in zip(each.rows, each.hits, strict=True)] for each in found]


def chances(seen: Met, *, bridges: bool, model: Model | None = None) -> list[float]:
    """Of each candidate to be evidence, in order. Without `bridges` by what feedback says alone."""
    weighing = shipped() if model is None else model
    if bridges:
        return [float(chance) for chance in weighing.bridge.of(seen.features)]
    columns = [BRIDGE.index(name) for name in FEEDBACK]
    return [float(chance) for chance in weighing.feedback.of([[row[at] for at in columns] for row in seen.features])]


def met(question: str, first: Found, *, searcher: Searcher, vector: Vectors, k: int, bridges: bool, proposed: Sequence[Ranked] = (),
        where: Filter | None = None, stop: Callable[[], bool] = lambda: False) -> Met:
    """What feedback and, if asked for, `bridges` meet, beside what was `proposed`, from a first look that holds something."""
    query = feedback.expanded(question, first, searcher=searcher, vector=vector)
    fed = fusion.reciprocal_rank(feedback.searched(query, searcher=searcher, k=DEPTH, where=where), k=DEPTH)
    facts: dict[str, object] = {"feedback": list(query.words)}
    shares: dict[int, float] = {}
    known: dict[int, tuple[Chunk, Lead]] = {row: (hit.chunk, Lead()) for row, hit in zip(first.rows, first.hits, strict=True)}
    if bridges:
        bridge = bridged(question, first, searcher=searcher, vector=vector, k=k, where=where, stop=stop)
        found = bridge.leads
        known.update(zip(found.rows, zip(found.chunks, found.leads, strict=True), strict=True))
        shares.update(zip(found.rows, (row[_COVERED] for row in found.features), strict=True))
        facts |= {"followed": list(found.asked), "rounds": bridge.rounds, "ended": bridge.ended}
    missing = sorted({row for ranking in (fed, *proposed) for row, _ in ranking} - known.keys())
    known.update((row, (chunk, Lead())) for row, chunk in zip(missing, searcher.snapshot.chunks(missing), strict=True))
    rows = tuple(sorted(known))
    chunks, led = tuple(known[row][0] for row in rows), tuple(known[row][1] for row in rows)
    vectors = np.asarray(searcher.snapshot.vectors(rows), np.float32)
    cosines, moved = (vectors @ vector).tolist(), (vectors @ query.vector).tolist()
    new = [row for row in rows if row not in shares]
    idf = searcher.bm25.idf(sorted(set(lexical.words(question))))
    shares.update(zip(new, covered([known[row][0] for row in new], idf), strict=True))
    places, ranks = ({row: 10 / (10 + at) for at, row in enumerate(order)} for order in (first.rows, [row for row, _ in fed]))
    features = tuple(
        (places.get(row, 0.0), cosine, shares[row], lead.linked, lead.one_word, lead.rare, lead.named, near, ranks.get(row, 0.0))
        for row, cosine, lead, near in zip(rows, cosines, led, moved, strict=True))
    return Met(rows, chunks, tuple(cosines), features, led, facts)


def pool(first: Found, seen: Met, chance: Sequence[float], *, k: int, proposed: Sequence[Ranked] = ()) -> Rewritten:
    """The pool of `k`. `chance`: of each row of `seen`; `proposed`: what each proposed query found. Ties by the first look's rank,
    then by row."""
    places = {row: place for place, row in enumerate(first.rows)}
    at = {row: place for place, row in enumerate(seen.rows)}
    stay = list(first.rows[:kept(k)])
    order = stay + sorted((row for row in seen.rows if row not in set(stay)),
                          key=lambda row: (-chance[at[row]], places.get(row, len(places)), row))
    if proposed:
        best = order[:kept_of(k)]
        tail = {"rewritten": [(row, 0.0) for row in order if row not in set(best)],
                **{str(number): [(row, score) for row, score in ranking if row not in set(best)]
                   for number, ranking in enumerate(proposed)}}
        order = best + [row for row, _ in fusion.reciprocal_rank(tail, k=k)]
    return _scored(first, seen, dict(zip(seen.rows, chance, strict=True)), order[:k], stay=len(stay))


def _scored(first: Found, seen: Met, chance: Mapping[int, float], order: Sequence[int], *, stay: int) -> Rewritten:
    places, at = ({row: place for place, row in enumerate(rows)} for rows in (first.rows, seen.rows))
    hits, brought = [], []
    below = min(hit.score for hit in first.hits[:stay])
    for rank, row in enumerate(order):
        own = first.hits[places[row]] if row in places else None
        chunk = seen.chunks[at[row]]
        led = seen.leads[at[row]].led
        if rank < stay and own is not None:
            hits.append(replace(own, led=led))
            continue
        origins = {**(own.origins if own is not None else {"dense": seen.cosines[at[row]]}), ORIGIN: chance[row]}
        # Below all that stay, and falling with the rank, on a scale that has no other meaning here.
        hits.append(ScoredChunk(chunk, below - abs(below) * (rank - stay + 1) / (len(order) + 1), origins, led))
        if places.get(row, len(order)) >= len(order):
            why = seen.leads[at[row]].why or ("it was further down" if own is not None else "it resembles the best passages")
            brought.append(Brought(chunk.id, chunk.source, chance[row], why))
    return Rewritten(Found(tuple(hits), tuple(order), first.plan), tuple(brought))
