"""Data folders as training material of a cross-encoder: passages with their sentences, queries with where their answer stands.

What is known differs by data set: the characters of the answer, the sentence that was asked about, or the passage alone. All
three are spans of the right passage, so one loss serves them (`losses`). Data sets of single sentences (pairs) are put together
to passages of neighbours: what stands beside the right sentence is the hardest negative there is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eval.datasets import Dataset, Passage, Question, load
from indexers import sentences
from indexers.store import passage_text
from indexers.training.tilde.corpus import Corpus, combined

Span = tuple[int, int]
_PAIR = "pair"
_RUN = (2, 6)                           # sentences in a passage that is put together
_LETTER = re.compile(r"\w")


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """`corpus`: passages and queries. `sentences`: spans of each passage, in characters of its text, title included.
    `answers`: for each query, spans in its gold passage that answer it; empty for made-up ones."""

    corpus: Corpus
    sentences: tuple[tuple[Span, ...], ...]
    answers: tuple[tuple[Span, ...], ...]


def read(folders: Sequence[Path], *, seed: int, most: int, largest: int, limit: int | None = None) -> Marked:
    """`most`: queries drawn for training, half of them real. `largest`: passages of a data set at most, the first. `limit`: the
    same, smaller, for a trial.

    Raises:
        InputError: a folder is no data set, or two have the same name.
    """
    data = [_first(together(load(folder), seed=seed), min(largest, limit or largest)) for folder in folders]
    corpus = combined(data, seed=seed, most=most)
    told = _answers(data)
    spans = tuple(spans_of(passage, lines=pairs(dataset)) for dataset in data for passage in dataset.passages)
    answers = tuple(told.get((query, int(row)), ()) for query, row in zip(corpus.queries, corpus.gold, strict=True))
    return Marked(corpus, spans, answers)


def together(dataset: Dataset, *, seed: int) -> Dataset:
    """A data set of single sentences as one of passages; others as they are."""
    if not pairs(dataset):
        return dataset
    rng = random.Random(f"{seed}:{dataset.name}")
    passages: list[Passage] = []
    place: dict[str, tuple[str, str]] = {}
    start = 0
    while start < len(dataset.passages):
        run = dataset.passages[start:start + rng.randint(*_RUN)]
        start += len(run)
        name = f"{run[0].id}+{len(run)}"
        passages.append(replace(run[0], id=name, text="\n".join(" ".join(each.text.split()) for each in run)))
        place.update((each.id, (name, " ".join(each.text.split()))) for each in run)
    questions = tuple(replace(question, evidence=(place[question.evidence[0]][0],), answers=(place[question.evidence[0]][1],))
                      for question in dataset.questions if question.evidence)
    return replace(dataset, passages=tuple(passages), questions=questions)


def pairs(dataset: Dataset) -> bool:
    """Whether its passages are single sentences, or were before `together`."""
    return bool(dataset.questions) and all(question.type == _PAIR for question in dataset.questions)


def occurrences(text: str, answers: Sequence[str]) -> tuple[Span, ...]:
    """Where any of the answers stands in `text` as whole words, whatever the case."""
    found: set[Span] = set()
    for answer in answers:
        wanted = answer.strip()
        if _LETTER.search(wanted):
            pattern = r"(?<!\w)" * wanted[0].isalnum() + re.escape(wanted) + r"(?!\w)" * wanted[-1].isalnum()
            found.update(match.span() for match in re.finditer(pattern, text, re.IGNORECASE))
    return tuple(sorted(found))


def _first(dataset: Dataset, limit: int) -> Dataset:
    passages = dataset.passages[:limit]
    known = {passage.id for passage in passages}
    return replace(dataset, passages=passages,
                   questions=tuple(each for each in dataset.questions if known.issuperset(each.evidence)))


def _answers(data: Sequence[Dataset]) -> dict[tuple[str, int], tuple[Span, ...]]:
    """By question and place of the passage among those of all data sets."""
    found: dict[tuple[str, int], tuple[Span, ...]] = {}
    first = 0
    for dataset in data:
        place = {passage.id: at for at, passage in enumerate(dataset.passages)}
        for question in dataset.questions:
            if question.evidence:
                at = place[question.evidence[0]]
                spans = tuple(_spans(dataset.passages[at], question))
                if spans:
                    found[question.text, first + at] = spans
        first += len(dataset.passages)
    return found


def _spans(passage: Passage, question: Question) -> Iterator[Span]:
    """Without an answer the whole passage answers."""
    shift = _shift(passage)
    if question.answers:
        yield from ((start + shift, end + shift) for start, end in occurrences(passage.text, question.answers))
    else:
        yield shift, shift + len(passage.text)


def spans_of(passage: Passage, *, lines: bool = False) -> tuple[Span, ...]:
    """The sentences in what the encoder reads of a passage. `lines`: each line is one."""
    shift = _shift(passage)
    spans = [match.span() for match in re.finditer(r"[^\n]+", passage.text)] if lines else sentences.split(passage.text)
    return tuple((start + shift, end + shift) for start, end in spans)


def _shift(passage: Passage) -> int:
    return len(passage_text(passage.title, "", passage.text)) - len(passage.text)
