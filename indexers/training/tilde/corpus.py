"""Data folders as training material: passages, queries, what is held out.

Questions asked with a paragraph in view repeat its words. A model that sees nothing else learns to count matches and fails on
searches, which name a topic in other words. So made-up queries join the real ones: titles, sentences, and bags of key words.
They have no right passage; what to make of them the teachers say (`losses.divergence`).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.datasets import Dataset, load
from indexers import sentences
from indexers.encoders.term_weights_tokens import QUESTION_WORDS, STOP_WORDS
from indexers.store import passage_text
from rag.errors import InputError

REAL, TITLE, SENTENCE, KEYWORDS = range(4)
_WORD = re.compile(r"[^\W_]+")
_SENTENCE_WORDS = (5, 24)
_KEYWORDS = (2, 5)


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """Passages of all data sets, end to end, and the queries over them.

    `held`: passages that training never sees, nor the questions about them. `gold`: the passage of each query, -1 if it is
    made up. `further`: training questions beyond those drawn for batches, with their passages: what else passages are asked.
    `digest` changes with anything that is here.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    source: NDArray[np.int32]   # which of `names`, (N,)
    held: NDArray[np.bool_]     # (N,)
    queries: tuple[str, ...]
    gold: NDArray[np.int32]     # (Q,)
    kind: NDArray[np.int32]     # (Q,)
    further: tuple[tuple[str, int], ...]
    digest: str

    def development(self, source: int, *, questions: int) -> NDArray[np.int64]:
        """Queries about held passages of one data set, in the order of their hashes."""
        about = np.flatnonzero((self.gold >= 0) & self.held[self.gold] & (self.source[self.gold] == source))
        return np.asarray(sorted(about.tolist(), key=lambda at: _hash(self.queries[at]))[:questions], np.int64)

    @property
    def training(self) -> NDArray[np.int64]:
        """Queries to train on."""
        return np.flatnonzero((self.gold < 0) | ~self.held[self.gold])


def read(folders: Sequence[Path], *, seed: int, held_share: float = 0.03, made: int = 2, most: int = 24_000,
         limit: int | None = None) -> Corpus:
    """`made`: sentences and bags of key words, so many of both together, for each passage; titles come once each. `most`:
    queries drawn for training, half of them real; a run sees a query once or twice, and each costs the teachers time.
    `limit`: passages of each data set at most, the first, for a trial.

    Raises:
        InputError: a folder is no data set, or two have the same name.
    """
    return combined([_shortened(load(folder), limit) for folder in folders], seed=seed, held_share=held_share, made=made, most=most)


def combined(data: Sequence[Dataset], *, seed: int, most: int, held_share: float = 0.03, made: int = 2) -> Corpus:
    """These data sets end to end; see `read`."""
    names = tuple(each.name for each in data)
    if len(set(names)) < len(names) or not names:
        raise InputError(f"Training needs data sets of different names, not {', '.join(names) or 'none'}.", field="data",
                         hint="Give each folder once.")
    texts: list[str] = []
    queries: list[str] = []
    held: list[bool] = []
    source: list[int] = []
    gold: list[int] = []
    kind: list[int] = []
    for number, dataset in enumerate(data):
        first = len(texts)
        texts += [passage_text(passage.title, "", passage.text) for passage in dataset.passages]
        source += [number] * len(dataset.passages)
        held += [_hash(f"{seed}:{dataset.name}:{passage.id}") < held_share for passage in dataset.passages]
        for text, at, what in [*_asked(dataset), *_made(dataset, held[first:], made=made, seed=seed)]:
            queries.append(text)
            gold.append(first + at if at >= 0 else -1)
            kind.append(what)
    chosen, further = _drawn(queries, gold, held, most=most, seed=seed)
    queries = [queries[at] for at in chosen]
    gold, kind = ([each[at] for at in chosen] for each in (gold, kind))
    everything = "\0".join([*texts, *queries, str(held), str(further)])
    digest = hashlib.sha256(everything.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Corpus(names, tuple(texts), np.asarray(source, np.int32), np.asarray(held, bool), tuple(queries),
                  np.asarray(gold, np.int32), np.asarray(kind, np.int32), further, digest)


def _drawn(queries: Sequence[str], gold: Sequence[int], held: Sequence[bool], *, most: int, seed: int
           ) -> tuple[list[int], tuple[tuple[str, int], ...]]:
    """Places of the queries that are kept, in order: all about held passages, and of the real and the made-up ones `most` / 2
    each; and the real ones left over."""
    rng = random.Random(seed)
    about_held = [at for at, row in enumerate(gold) if row >= 0 and held[row]]
    real = [at for at, row in enumerate(gold) if row >= 0 and not held[row]]
    made = [at for at, row in enumerate(gold) if row < 0]
    taken = [rng.sample(each, min(len(each), most // 2)) for each in (real, made)]
    rest = sorted(set(real) - set(taken[0]))
    return sorted([*about_held, *taken[0], *taken[1]]), tuple((queries[at], gold[at]) for at in rest)


def _shortened(dataset: Dataset, limit: int | None) -> Dataset:
    """The first passages, and the questions whose evidence is among them."""
    if limit is None:
        return dataset
    passages = dataset.passages[:limit]
    known = {passage.id for passage in passages}
    questions = tuple(each for each in dataset.questions if known.issuperset(each.evidence))
    return replace(dataset, passages=passages, questions=questions)


def _asked(dataset: Dataset) -> Iterator[tuple[str, int, int]]:
    """Real questions that have a gold passage; of several passages, the first."""
    place = {passage.id: at for at, passage in enumerate(dataset.passages)}
    return ((question.text, place[question.evidence[0]], REAL) for question in dataset.questions if question.evidence)


def _made(dataset: Dataset, held: Sequence[bool], *, made: int, seed: int) -> Iterator[tuple[str, int, int]]:
    titles: set[str] = set()
    for passage, out in zip(dataset.passages, held, strict=True):
        if out:
            continue
        if passage.title and passage.title not in titles:
            titles.add(passage.title)
            yield passage.title, -1, TITLE
        rng = random.Random(f"{seed}:{dataset.name}:{passage.id}")
        spans = sentences.split(passage.text)
        for number in range(made if spans else 0):
            start, end = rng.choice(spans)
            words = _WORD.findall(passage.text[start:end])
            telling = [word for word in words if word.lower() not in STOP_WORDS | QUESTION_WORDS]
            if number % 2 == 0 and len(words) >= _SENTENCE_WORDS[0]:
                yield " ".join(words[:_SENTENCE_WORDS[1]]), -1, SENTENCE
            elif len(telling) >= _KEYWORDS[0]:
                yield " ".join(rng.sample(telling, min(len(telling), rng.randint(*_KEYWORDS)))), -1, KEYWORDS


def _hash(text: str) -> float:
    """From 0 to 1, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48
