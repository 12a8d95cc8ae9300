"""Memory on the way to an answer: before retrieval, whether what past answers read is enough (`Memory.recall`); after an answer,
what is worth keeping (`Memory.remember`).

The answer is repeated (setting `answer_cache`) where the very same was asked of the same snapshot with the same settings, reader
and budget, or a question that surely asks the same. Else remembered passages take the place of retrieval (setting `memory`) where
the trigger's rule says so, and nothing forbids it: a number or name of the question that they lack, or what has come since.

Whatever memory would have done is checked against the fresh answer wherever that is made: passages were enough if those that the
answer cites are among them, an answer was right if it says the same words. `thriftrag reservoir calibrate` fits these cases.
"""

from __future__ import annotations

import json
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import numpy as np

from indexers import lexical
from indexers.encoders import Vectors
from indexers.snapshot import Snapshot
from optimizers import BY_CHANCE, relevance
from optimizers.pool import Pool, best_of
from rag.calibration import FEATURES
from rag.errors import ConfigError
from rag.recall import SAME, Arrivals, Asking, Offer, compared, offered, seen, stands, title_of
from rag.types import Answer, Citation
from retrievers import trigger, veto
from retrievers.hybrid import Found
from retrievers.recollection import Near, Recollection
from retrievers.reservoir import FILE, Asked, Case, Knowledge, Reservoir
from retrievers.trigger import Model, Verdict

# Passages that memory offers, and how many of them are kept of one answer.
PASSAGES = 16
KEPT = 12
_NEIGHBOURS = 3
_SCOPES = 8
_SWEPT_AT_ONCE = 1000
Past = Sequence[tuple[Near, Asked]]


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer that was given before, and what it took."""

    question: str
    text: str
    reason: str | None
    citations: tuple[Citation, ...]
    snapshot: str
    naive_tokens: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float

    def to_dict(self) -> dict[str, object]:
        row: dict[str, object] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**row, "citations": [citation.to_dict() for citation in self.citations]}


@dataclass(frozen=True, slots=True)
class Recalled:
    """What memory has for a question. `found` and `pool`: its passages where the verdict is memory; `answer`: where one is
    repeated. `seen` and `likely` are the cases that a fresh answer will check: what was offered with its features, and the answer
    that might have been repeated with its."""

    verdict: Verdict
    facts: Mapping[str, object] = field(default_factory=dict)
    found: Found | None = None
    pool: Pool | None = None
    answer: Stored | None = None
    past: Asked | None = None
    passes: int = 0
    seen: tuple[str, tuple[float, ...], frozenset[str]] | None = None
    likely: tuple[Stored, tuple[float, ...]] | None = None


class Memory:
    """One collection's memory. Threads may share it; several processes may have one of the same collection."""

    def __init__(self, folder: Path, *, owner: str, entries: int, days: float, clock: Callable[[], float] = time.time,
                 draw: Callable[[], float] = random.random) -> None:
        """`owner`: tenant and collection, which no other tenant or collection has. `draw`: uniform in [0, 1), for audits."""
        self.owner = owner
        self.reservoir = Reservoir(folder / FILE, owner=owner, limit=entries, days=days, clock=clock)
        self._draw = draw
        self._arrivals = Arrivals()
        self._scopes: OrderedDict[str, Recollection] = OrderedDict()
        self._lock = Lock()

    def close(self) -> None:
        self.reservoir.close()

    def recall(self, asking: Asking) -> Recalled:
        """What memory has, and whether that is enough. Encodes the question; under `calibrated` a few passages may be read."""
        settings = asking.settings
        [vector], passes = asking.vectors.get([asking.question])
        recollection = self._recollection(asking)
        past = self.past(asking, vector)
        recalled = Recalled(Verdict("retrieve", "no answer is to be repeated"), {"rule": "answers"})
        if settings.answer_cache == "on":
            recalled = self._repeated(asking, past)
        if recalled.answer is None and settings.memory != "off":
            weigh = self._by_count if settings.memory == "count" else self._by_chance
            recalled = replace(weigh(asking, vector, past), likely=recalled.likely)
        facts = {**recalled.facts, "remembered": len(recollection),
                 **({"nearest_question": round(past[0][0].cosine, 4)} if past else {})}
        return replace(recalled, facts=facts, past=past[0][1] if past else None, passes=recalled.passes + passes)

    def remember(self, asking: Asking, recalled: Recalled, *, pool: Pool, answer: Answer) -> None:
        """Keeps what an answer from the index has read, and records whether memory would have been right. An answer without
        citations leaves nothing. `pool`: what was chosen from, less what the knowledge filter dropped."""
        if answer.verdict != "answered" or not answer.citations:
            return
        self._check(recalled, answer)
        seconds = answer.receipt.seconds
        answers = {asking.answer_scope(self.owner): _stored(asking.question, answer).to_dict()
                   } if asking.settings.answer_cache == "on" else None
        self.keep(asking, pool, read=frozenset(passage.chunk.id for passage in answer.context.passages),
                  naive_tokens=answer.receipt.naive_tokens, passes=answer.receipt.encoder_passes,
                  seconds=seconds.get("retrieve", 0.0) + seconds.get("read", 0.0), answers=answers)

    def keep(self, asking: Asking, pool: Pool, *, read: frozenset[str] = frozenset(), naive_tokens: int = 0, passes: int = 0,
             seconds: float = 0.0, answers: Mapping[str, Mapping[str, object]] | None = None) -> None:
        """Keeps the likeliest passages of a question's pool, those that were `read` (chunk ids) first."""
        snapshot = asking.searcher.snapshot
        rows = snapshot.rows_of([each.chunk.id for each in pool.candidates])
        kept = [each for i in _worth_keeping(asking, pool, read) if (each := pool.candidates[i]).chunk.id in rows]
        vectors, _ = asking.vectors.get([asking.question, *(title_of(each.chunk) for each in kept)])
        halves = vectors.astype(np.float16)
        knowledge = [Knowledge(chunk_id=each.chunk.id, row=rows[each.chunk.id], content_hash=each.chunk.content_hash,
                               title=title_of(each.chunk), below=snapshot.next_row, title_vector=title,
                               sentences=each.sentence_vectors.astype(np.float16))
                     for each, title in zip(kept, halves[1:], strict=True)]
        asked = Asked(question=asking.question, vector=halves[0], below=snapshot.next_row, naive_tokens=naive_tokens, passes=passes,
                      seconds=seconds, knowledge=tuple(each.chunk_id for each in knowledge))
        self.reservoir.remember(asking.scope(self.owner), asked, knowledge, answers=answers)

    def sweep(self, snapshot: Snapshot) -> int:
        """Forgets what has ended, passages that are in the snapshot no more, and answers of other snapshots. Returns how many
        entries went."""
        gone = self.reservoir.prune()
        numbers = [each.number for each in self.reservoir.listed("knowledge")]
        for start in range(0, len(numbers), _SWEPT_AT_ONCE):
            remembered = self.reservoir.knowledge(numbers[start:start + _SWEPT_AT_ONCE])
            live = snapshot.known([each.row for each in remembered.values()])
            dead = [number for number, each in remembered.items() if each.row not in live or not stands(each, live[each.row])]
            self.reservoir.forget("knowledge", dead)
            gone += len(dead)
        old = [each.number for each in self.reservoir.listed("answers")
               if (stored := _read(self.reservoir.answer(each.scope, each.name))) is None or stored.snapshot != snapshot.id]
        self.reservoir.forget("answers", old)
        return gone + len(old)

    def past(self, asking: Asking, vector: Vectors) -> list[tuple[Near, Asked]]:
        """The questions answered from the index that are nearest to this one, best first."""
        return self._recollection(asking).questions(vector, _NEIGHBOURS)

    def nearest(self, asking: Asking, vector: Vectors, past: Past) -> dict[int, Knowledge]:
        """The remembered passages nearest to the question, with what was kept for its neighbour where that is nearly the same;
        PASSAGES at most."""
        recollection = self._recollection(asking)
        found = recollection.of_chunks(past[0][1].knowledge) if past and past[0][0].cosine >= SAME else {}
        found |= {near.number: each for near, each in recollection.passages(vector, PASSAGES)}
        return dict(list(found.items())[:PASSAGES])

    def _repeated(self, asking: Asking, past: Past) -> Recalled:
        scope = asking.answer_scope(self.owner)
        same = _read(self.reservoir.answer(scope, asking.question))
        if same is not None:
            self.reservoir.served(scope, asking.question)
            return Recalled(Verdict("memory", "the same was asked before", 0.0, 1.0), _saved(same, "answers"), answer=same)
        why = "nothing that asks the same was answered from this snapshot with these settings"
        for near, asked in past:
            stored = _read(self.reservoir.answer(scope, asked.question))
            if stored is None:
                continue
            forbidden = veto.against_question(asking.question, asked.question)
            if forbidden is not None:
                why = forbidden
                continue
            idf = asking.searcher.bm25.idf(lexical.words(f"{asking.question} {asked.question}"))
            values = compared(asking.question, asked.question, cosine=near.cosine, idf=idf)
            verdict = self._judged("questions", values, asking)
            facts = {"rule": "answers", "chance": _rounded(verdict.chance)}
            if verdict.decision == "memory":
                self.reservoir.served(scope, asked.question)
                return Recalled(verdict, {**facts, **_saved(stored, "answers")}, answer=stored)
            return Recalled(verdict, facts, likely=(stored, values))
        return Recalled(Verdict("retrieve", why), {"rule": "answers"})

    def _by_count(self, asking: Asking, vector: Vectors, past: Past) -> Recalled:
        settings, recollection = asking.settings, self._recollection(asking)
        most = max(settings.memory_theta, settings.candidates)
        cosines, numbers = recollection.titles(vector, tau=settings.memory_tau, most=most)
        count = trigger.pop(cosines, tau=settings.memory_tau)
        verdict = trigger.counted(count, theta=settings.memory_theta)
        facts: dict[str, object] = {"rule": "count", "pop": count, "tau": settings.memory_tau, "theta": settings.memory_theta}
        if verdict.decision != "memory":
            return Recalled(verdict, facts)
        return self._served(asking, vector, verdict, facts, self._offer(asking, vector, recollection.knowledge(numbers)))

    def _by_chance(self, asking: Asking, vector: Vectors, past: Past) -> Recalled:
        facts: dict[str, object] = {"rule": "calibrated"}
        offer = self._offer(asking, vector, self.nearest(asking, vector, past))
        looked = None if offer is None else seen(asking, offer, past[0] if past else None)
        if offer is None or looked is None:
            return Recalled(Verdict("retrieve", "nothing that is remembered is likely to answer"), facts)
        pool, kind, values = looked
        verdict = self._judged(kind, values, asking)
        facts |= {"chance": _rounded(verdict.chance), "check": _rounded(verdict.explore)}
        case = (kind, values, frozenset(each.chunk.id for each in pool.candidates))
        if verdict.decision != "memory":
            return Recalled(verdict, facts, passes=offer.passes, seen=case)
        served = self._served(asking, vector, verdict, facts, replace(offer, pool=pool))
        if served.found is not None and asking.settings.memory == "watch":
            return Recalled(Verdict("retrieve", "memory would do, but only watches", verdict.explore, verdict.chance), served.facts,
                            passes=offer.passes, seen=case)
        return replace(served, seen=case)

    def _served(self, asking: Asking, vector: Vectors, verdict: Verdict, facts: Mapping[str, object],
                offer: Offer | None) -> Recalled:
        """What is offered, unless something forbids it."""
        if offer is None:
            return Recalled(replace(verdict, decision="retrieve", why="what is remembered is in the collection no more"), facts)
        texts = [f"{each.chunk.title}\n{each.chunk.heading}\n{each.chunk.text}" for each in offer.pool.candidates]
        forbidden = veto.against_texts(asking.question, texts) or self._arrivals.matter(asking, vector, offer)
        if forbidden is not None:
            return Recalled(replace(verdict, decision="retrieve", why=forbidden), {**facts, "vetoed": True},
                            passes=offer.passes)
        if asking.settings.memory != "watch":
            self.reservoir.used("knowledge", offer.numbers)
        return Recalled(verdict, {**facts, "passages": len(offer.numbers)}, found=offer.found, pool=offer.pool, passes=offer.passes)

    def _offer(self, asking: Asking, vector: Vectors, remembered: Mapping[int, Knowledge]) -> Offer | None:
        """These passages; those that stand no more are forgotten."""
        offer, gone = offered(asking, vector, remembered)
        if gone:
            self._recollection(asking).drop(gone)
            self.reservoir.forget("knowledge", gone)
        return offer

    def _judged(self, kind: str, values: tuple[float, ...], asking: Asking) -> Verdict:
        settings = asking.settings
        return trigger.calibrated(self.model(kind, asking.searcher.encoder.name), values, error=settings.memory_error,
                                  draw=1 - self._draw(), audit=settings.memory_audit)

    def model(self, kind: str, embedder: str) -> Model | None:
        """What the collection's own traffic gave, else what came with the program for the embedder."""
        own = self.reservoir.fitted(kind)
        if own is not None:
            try:
                found = trigger.model_of(own)
                if found.features == FEATURES[kind]:
                    return found
            except ConfigError:
                pass
            self.reservoir.fit(kind, None)      # damaged, or of a version that saw other things: as if it had never been fitted
        return trigger.shipped(kind, embedder)

    def _check(self, recalled: Recalled, answer: Answer) -> None:
        if recalled.seen is not None:
            kind, values, chunks = recalled.seen
            right = all(citation.chunk_id in chunks for citation in answer.citations)
            self.reservoir.observe(kind, Case(answer.question, values, right))
        if recalled.likely is not None:
            stored, values = recalled.likely
            right = lexical.words(stored.text) == lexical.words(answer.text)
            self.reservoir.observe("questions", Case(answer.question, values, right))

    def _recollection(self, asking: Asking) -> Recollection:
        scope = asking.scope(self.owner)
        snapshot = asking.searcher.snapshot
        with self._lock:
            found = self._scopes.setdefault(scope, Recollection(self.reservoir, scope, dimension=snapshot.dimension))
            self._scopes.move_to_end(scope)
            while len(self._scopes) > _SCOPES:
                self._scopes.popitem(last=False)
        found.refresh(lambda some: snapshot.vectors([each.row for each in some]))
        return found


def _worth_keeping(asking: Asking, pool: Pool, read: frozenset[str]) -> list[int]:
    """Candidates by their place in the pool: what was read first, then the likeliest of what the knowledge filter kept."""
    best = best_of(relevance.chances(pool)) if asking.settings.selector in BY_CHANCE else {
        i: max(each.sentence_relevance) for i, each in enumerate(pool.candidates)}
    kept = [i for i in best if i not in pool.dropped]
    return sorted(kept, key=lambda i: (pool.candidates[i].chunk.id not in read, -best[i], i))[:KEPT]


def _stored(question: str, answer: Answer) -> Stored:
    receipt = answer.receipt
    return Stored(question=question, text=answer.text, reason=answer.reason, citations=answer.citations,
                  snapshot=answer.snapshot, naive_tokens=receipt.naive_tokens, prompt_tokens=receipt.prompt_tokens,
                  completion_tokens=receipt.completion_tokens, seconds=receipt.seconds["total"])


def _read(row: Mapping[str, object] | None) -> Stored | None:
    """As it was stored; None for nothing, and for what this version cannot read."""
    if row is None:
        return None
    try:
        facts = json.loads(json.dumps(row))
        citations = tuple(Citation(**each) for each in facts.pop("citations"))
        return Stored(citations=citations, **facts)
    except (TypeError, KeyError, ValueError):
        return None


def _saved(stored: Stored, rule: str) -> dict[str, object]:
    return {"rule": rule, "answered": True, "asked_before": stored.question,
            "saved": {"llm_calls": 1, "prompt_tokens": stored.prompt_tokens, "completion_tokens": stored.completion_tokens,
                      "seconds": round(stored.seconds, 6)}}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
