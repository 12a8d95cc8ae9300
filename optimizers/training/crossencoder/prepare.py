"""What training reads: made once, kept below one folder, found again by the next run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.datasets import Dataset, Question, sampled
from eval.metrics import contains, is_polar
from indexers.encoders.tokenizing import EncoderTokenizer
from indexers.store import passage_text
from indexers.training.tilde.corpus import Corpus
from indexers.training.tilde.mining import bm25, mined
from indexers.training.tilde.states import States, StatesOf, states
from optimizers.training.crossencoder.batches import Ints, Material, fair, placed, touching
from optimizers.training.crossencoder.corpus import Marked, Span, spans_of
from optimizers.training.crossencoder.dev import Slice
from rag.types import OnProgress

_QUERY_TOKENS = 48
_CANDIDATES = 8             # of BM25, and as many of the dense vectors, for each question of a slice
_QUESTIONS = 60


@dataclass(frozen=True, slots=True)
class Prepared:
    """`options`: of the command line. `encoder`: the folder of the converted backbone, `name` its identity."""

    out: Path
    encoder: Path
    name: str
    options: argparse.Namespace
    on_progress: OnProgress

    def states(self, name: str, texts: Sequence[str], digest: str, *, tokens: int) -> States:
        wanted = StatesOf(self.name, digest, self.options.tap, tokens)
        return states(self.out / "states" / name, texts, wanted=wanted, encoder=self.encoder, on_progress=self.on_progress)

    def material(self, marked: Marked) -> Material:
        corpus, digest = marked.corpus, marked.corpus.digest
        passages = self.states("passages", corpus.texts, digest, tokens=self.options.tokens)
        queries = self.states("queries", corpus.queries, digest, tokens=_QUERY_TOKENS)
        tokenizer = self._tokenizer(self.options.tokens)
        right = _right(marked, passages, tokenizer)
        live = corpus.training
        real = np.asarray([query for query in live if corpus.gold[query] >= 0 and len(right[query])], np.int64)
        place = placed(corpus.texts, marked.sentences, tokenizer=tokenizer, passages=passages)
        return Material(marked, passages, queries, place, right, self._negatives(marked, passages, queries), real,
                        live[corpus.gold[live] < 0])

    def held_out(self, material: Material) -> list[Slice]:
        """One slice for each training set with held-out questions: their candidates among all passages of the set."""
        corpus, found = material.marked.corpus, []
        for number, name in enumerate(corpus.names):
            asked = corpus.development(number, questions=_QUESTIONS)
            asked = np.asarray([query for query in asked if len(material.right[query])], np.int64)
            inside = np.flatnonzero(corpus.source == number)
            if len(asked):
                gold = [{int(corpus.gold[query])} for query in asked]
                bearing = {(int(query), int(corpus.gold[query])): _sentences_at(material, int(query)) for query in asked}
                found.append(self._slice(name, material.passages, material.queries, material.place, asked, inside, corpus,
                                         gold=gold, bearing=bearing))
        return found

    def other(self, data: Dataset) -> Slice:
        """A data set of another style with its first answerable questions in a seeded order."""
        texts = [passage_text(passage.title, "", passage.text) for passage in data.passages]
        rows = {passage.id: at for at, passage in enumerate(data.passages)}
        asked = sampled([each for each in data.questions if each.evidence and each.language == "en"])[:_QUESTIONS]
        passages = self.states(f"other-{data.name}", texts, data.corpus_digest, tokens=self.options.tokens)
        queries = self.states(f"asked-{data.name}", [each.text for each in asked], data.digest, tokens=_QUERY_TOKENS)
        spans = [spans_of(passage) for passage in data.passages]
        place = placed(texts, spans, tokenizer=self._tokenizer(self.options.tokens), passages=passages)
        gold = [{rows[each] for each in question.evidence} for question in asked]
        bearing = {(at, row): _bearing(texts[row], spans[row], question)
                   for at, question in enumerate(asked) for row in gold[at]}
        words, none = tuple(each.text for each in asked), np.zeros(len(asked), np.int32)
        corpus = Corpus((data.name,), tuple(texts), np.zeros(len(texts), np.int32), np.zeros(len(texts), bool), words, none, none,
                        (), data.digest)
        return self._slice(data.name, passages, queries, place, np.arange(len(asked)), np.arange(len(texts)), corpus, gold=gold,
                           bearing=bearing)

    def _slice(self, name: str, passages: States, queries: States, place: NDArray[np.int32], asked: Ints, inside: Ints,
               corpus: Corpus, *, gold: Sequence[set[int]], bearing: dict[tuple[int, int], frozenset[int]]) -> Slice:
        index = bm25(self.out / f"bm25-{name}-{corpus.digest}", [corpus.texts[row] for row in inside])
        kept, rows, right, sentences = [], [], [], []
        for query, wanted in zip(asked.tolist(), gold, strict=True):
            words = [int(inside[row]) for row, _ in index.search(corpus.queries[query], k=_CANDIDATES)]
            similar = passages.vectors[inside] @ queries.vectors[query]
            near = inside[np.argsort(-similar, kind="stable")[:_CANDIDATES]].tolist()
            pool = list(dict.fromkeys(each for pair in zip(near, words, strict=False) for each in pair))
            if wanted.intersection(pool):
                kept.append(query)
                rows.append(np.asarray(pool, np.int64))
                right.append(frozenset(at for at, row in enumerate(pool) if row in wanted))
                sentences.append(tuple(bearing.get((query, row), frozenset()) for row in pool))
        return Slice(name, passages, queries, place, np.asarray(kept, np.int64), tuple(rows), tuple(right), tuple(sentences))

    def _negatives(self, marked: Marked, passages: States, queries: States) -> NDArray[np.int32]:
        """Mined, less those that hold the answer or are clearly nearer than the right one; passages beside it in front."""
        corpus = marked.corpus
        path = self.out / f"negatives-{corpus.digest}-{self.options.depth}.npy"
        if not path.is_file():
            index = bm25(self.out / f"bm25-{corpus.digest}", corpus.texts)
            found = mined(corpus, index=index, passages=passages.vectors, queries=queries.vectors, depth=self.options.depth,
                          on_progress=self.on_progress)
            beside = _beside(corpus)
            found = np.concatenate([beside, found], axis=1)
            for query in corpus.training:
                gold = int(corpus.gold[query])
                if gold >= 0:
                    found[query] = _fair(marked, passages, queries, int(query), found[query])
            np.save(path, found, allow_pickle=False)
        kept: NDArray[np.int32] = np.load(path, allow_pickle=False)
        return kept

    def _tokenizer(self, max_tokens: int) -> EncoderTokenizer:
        return EncoderTokenizer.from_file(self.encoder / "tokenizer.json", max_tokens=max_tokens)


def _right(marked: Marked, passages: States, tokenizer: EncoderTokenizer) -> list[NDArray[np.int32]]:
    offsets: dict[int, list[Span]] = {}
    found = []
    for query, spans in enumerate(marked.answers):
        row = int(marked.corpus.gold[query])
        if row < 0 or not spans:
            found.append(np.zeros(0, np.int32))
            continue
        if row not in offsets:
            offsets[row] = tokenizer.offsets(marked.corpus.texts[row])
        found.append(touching(offsets[row], spans, length=int(passages.starts[row + 1] - passages.starts[row])))
    return found


def _sentences_at(material: Material, query: int) -> frozenset[int]:
    start = int(material.passages.starts[material.marked.corpus.gold[query]])
    return frozenset(int(place) for place in material.place[start + material.right[query]] if place >= 0)


def _bearing(text: str, spans: Sequence[Span], question: Question) -> frozenset[int]:
    if is_polar(question.answers):
        return frozenset()
    return frozenset(at for at, (start, end) in enumerate(spans) if contains(text[start:end], question.answers))


def _beside(corpus: Corpus) -> NDArray[np.int32]:
    """The passages before and after the right one, of the same set, that training may see; they are often of one article."""
    found = np.full((len(corpus.queries), 2), -1, np.int32)
    for column, step in enumerate((-1, 1)):
        rows = corpus.gold + step
        inside = (corpus.gold >= 0) & (rows >= 0) & (rows < len(corpus.texts))
        safe = np.where(inside, rows, 0)
        fit = inside & (corpus.source[safe] == corpus.source[np.maximum(corpus.gold, 0)]) & ~corpus.held[safe]
        found[fit, column] = rows[fit]
    return found


def _fair(marked: Marked, passages: States, queries: States, query: int, candidates: NDArray[np.int32]) -> NDArray[np.int32]:
    corpus, gold = marked.corpus, int(marked.corpus.gold[query])
    said = {corpus.texts[gold][start:end].lower() for start, end in marked.answers[query]}
    similar = passages.vectors[np.maximum(candidates, 0)] @ queries.vectors[query]
    kept = fair(candidates, similar.astype(np.float32), float(passages.vectors[gold] @ queries.vectors[query]))
    return np.asarray([row if row >= 0 and row != gold and not any(each in corpus.texts[row].lower() for each in said) else -1
                       for row in kept], np.int32)
