"""Clusters of an open collection: where the parts that make them meet the models. `ThriftRAG.clusters` and the CLI call this.

A model that writes summaries is asked once for each cluster, with the members nearest to its centroid. What it says is taken
sentence by sentence, and only sentences whose words the texts have: a small model adds what nobody said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexers import clusters_store as stored
from indexers import lexical
from indexers.clusters import Clustering, Plan
from indexers.clusters_build import Report, Tools, Written, build
from indexers.clusters_labels import Weigh
from indexers.encoders import Encoder
from indexers.encoders import term_weights as terms
from indexers.sentences import split
from indexers.snapshot import Snapshot
from optimizers.context import inert
from rag import prompts
from rag.errors import InputError, SnapshotMismatch, UpstreamError
from rag.filters.values import field_key, nameable
from rag.llm import Reader
from rag.types import Chunk, OnProgress, no_progress
from retrievers import sparse_rows
from retrievers.bm25 import Bm25
from retrievers.origins import weights_of

# Tokens of members that a model reads for one summary.
_READ = 1200
# A sentence of a summary is taken if the members have this share of its content words.
_SUPPORTED = 0.6
# Part of the name under which summaries are kept: another prompt writes others.
_PROMPT = "1"


@dataclass(frozen=True, slots=True)
class ModelWriter:
    """A reader that writes summaries: fulfils `indexers.clusters_build.Writer`."""

    reader: Reader

    @property
    def name(self) -> str:
        return f"{self.reader.name}/{_PROMPT}"

    def __call__(self, members: Sequence[Chunk], *, tokens: int) -> Written:
        texts = self._fitting([" ".join(inert(chunk.text).split()) for chunk in members], room=self._room(tokens))
        made = self.reader.generate(prompts.summary(texts), max_tokens=tokens + tokens // 2)
        return Written(self._supported(made.text, texts, tokens=tokens), made.prompt_tokens, made.completion_tokens)

    def _room(self, tokens: int) -> int:
        fixed = self.reader.prompt_tokens(prompts.summary([]))
        return max(1, min(_READ, self.reader.context_window - fixed - 2 * tokens))

    def _fitting(self, texts: Sequence[str], *, room: int) -> list[str]:
        """As many of the first as have room; of the very first its beginning, if it has none."""
        found, left = [], room
        for text, cost in zip(texts, self.reader.tokenizer.count_many(list(texts)), strict=True):
            if cost + 2 > left:
                break
            found.append(text)
            left -= cost + 2
        return found or [texts[0][:room]]

    def _supported(self, said: str, texts: Sequence[str], *, tokens: int) -> str:
        """The sentences that the texts have the words of, as long as they have room; the first has half as much again."""
        said = " ".join(inert(prompts.without_marks(said, tuple(prompts.marks(said)))).split())
        if prompts.abstains(said):
            return ""
        held = frozenset(word for text in texts for word in lexical.words(text))
        kept: list[str] = []
        spent = 0
        for start, end in split(said, "en"):
            sentence = said[start:end]
            content = frozenset(lexical.words(sentence)) - prompts.FUNCTION_WORDS
            cost = self.reader.tokenizer.count(sentence)
            limit = tokens if kept else tokens + tokens // 2
            if content and len(content & held) >= _SUPPORTED * len(content) and spent + cost <= limit and sentence not in kept:
                kept.append(sentence)
                spent += cost
        return " ".join(kept)


def checked_plan(*, group_by: str = "", k: int | None = None, budget: int, tokens: int, llm: bool, seed: int = 13) -> Plan:
    """Raises InputError for a value that cannot be, naming it."""
    if k is not None and k < 1:
        raise InputError(f"k = {k} is not possible.", hint="Use 1 or more, or leave it out to have it chosen.", field="k")
    if tokens < 8:
        raise InputError(f"A summary of {tokens} tokens says nothing.", hint="Use 8 or more.", field="summary_tokens")
    if budget < tokens:
        raise InputError(f"A budget of {budget} tokens holds no summary of {tokens}.", field="budget",
                         hint="Raise the budget, or ask for shorter summaries.")
    if group_by and not nameable(group_by):
        raise InputError(f"{group_by!r} cannot name a field.", hint="Name it as in --where.", field="group_by")
    return Plan(group_by=field_key(group_by) if group_by else "", k=k, budget=budget, tokens=tokens, llm=llm, seed=seed)


def built(folder: Path, snapshot: Snapshot, plan: Plan, *, encoder: Encoder, bm25: Bm25, reader: Reader, again: bool = False,
          on_progress: OnProgress = no_progress, cancelled: Callable[[], bool] = lambda: False) -> Report:
    """As `indexers.clusters_build.build`; when the model cannot be asked, its error says that the same command goes on."""
    tools = Tools(encode=encoder.encode, count=reader.tokenizer.count_many, weigh=weighing(snapshot, encoder, bm25),
                  writer=ModelWriter(reader) if plan.llm else None)
    try:
        return build(folder, snapshot, plan, tools=tools, again=again, on_progress=on_progress, cancelled=cancelled)
    except UpstreamError as error:
        error.hint = (f"{error.hint} The summaries that were written stay: the same command goes on from there. "
                      "Without a model: --summaries extractive.").strip()
        raise


def weighing(snapshot: Snapshot, encoder: Encoder, bm25: Bm25) -> Weigh:
    """Weights of words in texts: the collection's term weights, or BM25's idf where it has none or the encoder is another."""
    weighs = terms.of(encoder) if snapshot.terms else None
    if weighs is not None:
        try:
            weighs = weights_of(snapshot, encoder)
        except SnapshotMismatch:
            weighs = None
    if weighs is None:
        return lambda words, rows: _by_idf(snapshot, bm25, words, rows)
    model = weighs
    return lambda words, rows: _by_terms(snapshot, model, words, rows)


def _by_idf(snapshot: Snapshot, bm25: Bm25, words: Sequence[str], rows: Sequence[int]) -> NDArray[np.float64]:
    stems = [next(iter(lexical.words(word)), "") for word in words]
    idf = bm25.idf(stems)
    worth = np.asarray([idf.get(stem, 0.0) for stem in stems])
    held = [frozenset(lexical.words(chunk.text)) for chunk in snapshot.chunks(rows)]
    found = np.asarray([[stem in text for stem in stems] for text in held], np.float64).reshape(len(rows), len(words))
    found *= worth
    return found


def _by_terms(snapshot: Snapshot, model: terms.TermWeights, words: Sequence[str], rows: Sequence[int]) -> NDArray[np.float64]:
    """Of a word of several pieces the least: all of them have to be there."""
    found = np.zeros((len(rows), len(words)))
    segments, places = sparse_rows.weighed(snapshot.segments), np.asarray(rows, np.int64)
    for column, word in enumerate(words):
        query = model.query(word, statistics=snapshot.statistics)
        if len(query[0]):
            found[:, column] = (sparse_rows.weights(segments, query, places) * query[1].astype(np.float64)).min(axis=1)
    return found


def listed(folder: Path) -> list[Clustering]:
    """All clusterings of a collection, by name. Raises as `clusters_store.reading`."""
    if not stored.exists(folder):
        return []
    with stored.reading(folder) as db:
        found = [stored.load(db, name, folder=folder) for name in stored.names(db)]
    return [clustering for clustering in found if clustering is not None]


def one(folder: Path, name: str, *, known: Mapping[str, Clustering] | None = None) -> Clustering:
    """The clustering of this name. Raises InputError, which names those that there are."""
    there = {each.name: each for each in listed(folder)} if known is None else dict(known)
    wanted = name if name in there else field_key(name)
    if wanted not in there:
        what = f"There are: {', '.join(there)}." if there else "There are none yet."
        raise InputError(f"Collection {folder.name!r} has no clusters called {name!r}.", field="name", code="no_clusters",
                         hint=f"{what} Make them with `thriftrag clusters build`.")
    return there[wanted]


def deleted(folder: Path, name: str) -> None:
    """Forgets a clustering. Raises InputError where there is none."""
    wanted = one(folder, name).name
    with stored.building(folder) as db:
        stored.drop(db, wanted)
