"""Passages to pairs, each checked by answering it again from its passage and without it. What was tried is in the file,
kept or dropped with its reason, so that a run which was stopped goes on with the next passage."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from eval import metrics
from eval.tune import pairs as files
from eval.tune import sampling, vetting, writing
from eval.tune.bounds import Spent
from eval.tune.pairs import Pair
from indexers.encoders import Encoder, Vectors
from indexers.loaders.language import guess_language
from indexers.snapshot import DocumentInfo
from rag.llm import Generation, Reader
from rag.types import Answer, Chunk, Extract, OnProgress, Progress, no_progress, whole

# An answer that shares this much with the expected one, in token F1, is the same answer said otherwise.
SAME_ANSWER = 0.8
# Passages tried for each pair wanted, before giving up: a small reader spoils every second one.
TRIES_PER_PAIR = 4


class Collection(Protocol):
    """What generation asks of the pipeline's front (`rag.ThriftRAG`)."""

    @property
    def encoder(self) -> Encoder: ...

    def documents(self) -> list[DocumentInfo]: ...

    def chunks_of(self, document_ids: Sequence[str]) -> list[Chunk]: ...

    def answer_from(self, question: str, extracts: Sequence[Extract], *, budget: int) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Generated:
    """All pairs so far, dropped ones too. `finished`: as many as were wanted are kept, or there is nothing left to try."""

    pairs: tuple[Pair, ...]
    finished: bool


def generate(collection: Collection, reader: Reader, *, path: Path, wanted: int, tries: int, seed: int,
             on_progress: OnProgress = no_progress, cancelled: Callable[[], bool] = lambda: False) -> Generated:
    """Adds pairs to the file at `path` until `wanted` are kept or `tries` passages were tried, those in the file included.

    Written after every passage. Ends early, with what there is, when `cancelled` or when the reader's bounds are spent.

    Raises:
        InputError: the file is no file of pairs. UpstreamError: the reader fails; the pairs before are safe.
    """
    found = files.read(path) if path.is_file() else []
    documents = [document.id for document in collection.documents()]
    checker = _Checker(collection, reader, kept=found, cancelled=cancelled)
    known = {pair.chunk_id for pair in found}
    for chunk in sampling.passages(collection, documents, seed=seed, known=known):
        kept = sum(pair.keep for pair in found)
        tried = sum(pair.generated for pair in found)
        on_progress(Progress("pairs", kept, wanted, unit="pairs", note=f"{tried} passages tried"))
        if kept >= wanted or tried >= tries:
            break
        try:
            pair = checker.pair(chunk)
        except (Spent, _Cancelled):
            return Generated(tuple(found), finished=False)
        if pair is not None:
            found.append(pair)
            files.write(path, found)
    on_progress(Progress("pairs", wanted, wanted, unit="pairs"))
    return Generated(tuple(found), finished=True)


def without_lost_passages(pairs: Sequence[Pair], collection: sampling.Chunks) -> list[Pair]:
    """The pairs with those dropped whose passage the collection does not hold any more; nothing in it can answer them."""
    def there(pair: Pair) -> bool:
        return any(chunk.id == pair.chunk_id for chunk in collection.chunks_of([pair.doc_id]))

    return [replace(pair, keep=False, reason="source_gone") if pair.keep and pair.generated and not there(pair) else pair
            for pair in pairs]


def counts(pairs: Sequence[Pair]) -> dict[str, int]:
    """How many were kept, and dropped for each reason, the most frequent first."""
    dropped = Counter(pair.reason or "dropped" for pair in pairs if not pair.keep)
    return {"kept": sum(pair.keep for pair in pairs), **dict(dropped.most_common())}


def quality(answer: Answer, pair: Pair) -> float:
    """Token F1 of an answer as it was given; where nothing is right, 1 for declining."""
    if not pair.answers or answer.verdict == "abstained":
        return float(not pair.answers and answer.verdict == "abstained")
    return metrics.f1(metrics.without_citations(answer.text), pair.answers, language=pair.language)


class _Cancelled(Exception):
    """The caller stopped the run: what came of the passage in hand is not kept."""


class _Checker:
    """Makes and checks one pair after another; knows the questions that were kept, so as to see duplicates."""

    def __init__(self, collection: Collection, reader: Reader, *, kept: Sequence[Pair], cancelled: Callable[[], bool]) -> None:
        self._collection = collection
        self._reader = reader
        self._cancelled = cancelled
        questions = [pair.question for pair in kept if pair.keep]
        self._kept: list[tuple[str, Vectors]] = []
        if questions:
            self._kept += zip(questions, collection.encoder.encode(questions), strict=True)

    def pair(self, chunk: Chunk) -> Pair | None:
        """Kept or dropped with the reason. None where the passage does not fit the reader's window."""
        prompt = writing.messages(chunk)
        if self._reader.prompt_tokens(prompt) + writing.LONGEST_REPLY > self._reader.context_window:
            return None
        self._go_on()
        reply = self._reader.generate(prompt, max_tokens=writing.LONGEST_REPLY, cancelled=self._cancelled)
        self._go_on(reply)
        draft = writing.parse(reply.text)
        blank = Pair(id=hashlib.sha256(chunk.id.encode()).hexdigest()[:10], question="", answers=(), keep=False,
                     source=chunk.source, doc_id=chunk.doc_id, chunk_id=chunk.id, language=guess_language(chunk.text))
        if draft is None:
            return replace(blank, reason="unparsed")
        pair = replace(blank, question=draft.question, answers=(draft.answer,), quote=_bearer(chunk, draft.answer, blank.language))
        reason = vetting.fault(draft, chunk, language=pair.language)
        return replace(pair, reason=reason) if reason else self._against_the_set(pair, chunk)

    def _against_the_set(self, pair: Pair, chunk: Chunk) -> Pair:
        question, passage = self._collection.encoder.encode([pair.question, chunk.text])
        pair = replace(pair, facts={"relevance": round(vetting.relevance(question, passage), 4),
                                    "overlap": round(vetting.overlap(pair.question, chunk), 4)})
        if vetting.is_off_topic(question, passage):
            return replace(pair, reason="off_topic")
        if vetting.is_duplicate(pair.question, question, self._kept, language=pair.language):
            return replace(pair, reason="duplicate")
        checked = self._answered_again(pair, chunk)
        if checked.keep:
            self._kept.append((checked.question, question))
        return checked

    def _answered_again(self, pair: Pair, chunk: Chunk) -> Pair:
        """Right from its own passage, or it would measure the pair and not the context; wrong without, or it would measure
        what the reader knows by heart."""
        answer, score = self._ask(pair, [whole(chunk)])
        pair = replace(pair, facts={**pair.facts, "source_answer": answer, "source_f1": score})
        if score < SAME_ANSWER:
            return replace(pair, reason="not_answered")
        answer, score = self._ask(pair, [])
        pair = replace(pair, facts={**pair.facts, "closed_book_answer": answer, "closed_book_f1": score})
        return replace(pair, reason="known_by_heart") if score >= SAME_ANSWER else replace(pair, keep=True)

    def _ask(self, pair: Pair, extracts: Sequence[Extract]) -> tuple[str, float]:
        self._go_on()
        answer = self._collection.answer_from(pair.question, extracts, budget=self._reader.context_window)
        return answer.text, round(quality(answer, pair), 4)

    def _go_on(self, made: Generation | None = None) -> None:
        if self._cancelled() or (made is not None and made.finish == "cancelled"):
            raise _Cancelled


def _bearer(chunk: Chunk, answer: str, language: str) -> str:
    """The first sentence that holds the answer, for people to look at; empty where it crosses a sentence end."""
    sentences = (chunk.sentence(i) for i in range(len(chunk.sentences)))
    return next((" ".join(text.split()) for text in sentences if metrics.contains(text, [answer], language=language)), "")
