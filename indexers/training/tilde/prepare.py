"""What training reads: made once, kept below one folder, found again by the next run."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from eval.datasets import Dataset, sampled
from indexers.encoders.openvino import OpenVinoEncoder
from indexers.encoders.tokenizing import EncoderTokenizer
from indexers.store import passage_text
from indexers.training.tilde import teacher
from indexers.training.tilde.batches import Material, missing_tokens, tokenised
from indexers.training.tilde.corpus import Corpus
from indexers.training.tilde.dev import K, Slice
from indexers.training.tilde.mining import bm25, mined
from indexers.training.tilde.network import Backbone, Floats
from indexers.training.tilde.states import States, StatesOf, states
from rag.types import OnProgress, Progress

_QUERY_TOKENS = 64
_DEV_PASSAGES, _DEV_QUESTIONS = 1500, 150


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """`options`: of the command line. `encoder`: the folder of the converted backbone."""

    out: Path
    encoder: Path
    base: Backbone
    options: argparse.Namespace
    on_progress: OnProgress

    def states(self, name: str, texts: Sequence[str], digest: str) -> States:
        wanted = StatesOf(self.base.name, digest, self.base.tap, self.options.tokens)
        found = states(self.out / "states" / name, texts, wanted=wanted, encoder=self.encoder, on_progress=self.on_progress)
        return found.folded(self.base.folds)

    def vectors(self, name: str, texts: Sequence[str], digest: str) -> Floats:
        path = self.out / f"queries-{name}-{digest}.npy"
        if not path.is_file():
            encoder = OpenVinoEncoder(self.encoder, precision="f32")
            np.save(path, encoder.encode(texts, on_batch=lambda done: self.on_progress(
                Progress("queries", done, len(texts), "texts"))), allow_pickle=False)
        found: Floats = np.load(path, allow_pickle=False)
        return found

    def material(self, corpus: Corpus) -> Material:
        held = self.states("training", corpus.texts, corpus.digest)
        queries = self.vectors("training", corpus.queries, corpus.digest)
        tokens, further = (tokenised(texts, tokenizer=self._tokenizer(_QUERY_TOKENS), backbone=self.base)
                           for texts in (corpus.queries, [text for text, _ in corpus.further]))
        path = self.out / f"candidates-{corpus.digest}-{self.options.depth}.npy"
        if not path.is_file():
            index = bm25(self.out / f"bm25-{corpus.digest}", corpus.texts)
            np.save(path, mined(corpus, index=index, passages=held.vectors, queries=queries, depth=self.options.depth,
                                on_progress=self.on_progress), allow_pickle=False)
        return Material(corpus, held, queries, tokens, np.load(path, allow_pickle=False),
                        missing_tokens(corpus, held, tokens, further=further, addable=self.base.addable),
                        self._taught("passages", corpus.texts, corpus.digest, self.options.tokens),
                        self._taught("queries", corpus.queries, corpus.digest, _QUERY_TOKENS), self.base.folds)

    def held_out(self, corpus: Corpus, material: Material) -> list[Slice]:
        """One slice for each data set that has held-out questions: their passages among others of the set."""
        found = []
        for number, name in enumerate(corpus.names):
            queries = corpus.development(number, questions=_DEV_QUESTIONS)
            if len(queries):
                inside = np.flatnonzero(corpus.source == number)
                others = np.random.default_rng(self.options.seed).permutation(inside[~corpus.held[inside]])
                rows = np.sort(np.concatenate([inside[corpus.held[inside]], others])[:_DEV_PASSAGES])
                gold = [frozenset({int(corpus.gold[query])}) for query in queries]
                kept = [at for at, wanted in enumerate(gold) if wanted <= set(rows.tolist())]
                found.append(Slice(name, corpus.digest, material.states, rows, [corpus.texts[row] for row in rows],
                                   [corpus.queries[queries[at]] for at in kept], material.queries[queries[kept]],
                                   material.tokens, queries[kept], [gold[at] for at in kept]))
        return found

    def other(self, data: Dataset) -> Slice:
        """A data set of another style, whole, with its first questions in a seeded order."""
        texts = [passage_text(passage.title, "", passage.text) for passage in data.passages]
        place = {passage.id: at for at, passage in enumerate(data.passages)}
        asked = sampled([question for question in data.questions if question.evidence])[:_DEV_QUESTIONS]
        words = [question.text for question in asked]
        found = self.states(f"sanity-{data.name}", texts, data.corpus_digest)
        return Slice(data.name, data.digest, found, np.arange(len(texts)), texts, words,
                     self.vectors(data.name, words, data.digest),
                     tokenised(words, tokenizer=self._tokenizer(_QUERY_TOKENS), backbone=self.base), np.arange(len(words)),
                     [frozenset(place[each] for each in question.evidence) for question in asked])

    def words(self, held: Slice) -> Callable[[str], Sequence[int]]:
        """BM25 over the passages of a slice alone."""
        index = bm25(self.out / f"bm25-{held.name}-{held.digest}", held.passages)
        return lambda text: [int(held.rows[row]) for row, _ in index.search(text, k=K)]

    def _tokenizer(self, max_tokens: int) -> EncoderTokenizer:
        return EncoderTokenizer.from_file(self.encoder / "tokenizer.json", max_tokens=max_tokens)

    def _taught(self, what: str, texts: Sequence[str], digest: str, max_tokens: int) -> teacher.Taught | None:
        if self.options.teacher is None:
            return None
        splade = teacher.Splade(self.options.teacher, vocabulary=self.base.vocabulary)
        return teacher.kept(self.out / f"taught-{what}.safetensors", lambda: splade.taught(
            texts, max_tokens=max_tokens, stage=f"teacher's {what}", on_progress=self.on_progress), digest=f"{digest} {max_tokens}")
