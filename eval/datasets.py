"""A question-answering data set: a folder of ours, or a file or folder in one of the public layouts of `eval.layouts`.

Ours holds `corpus.jsonl[.gz]` and `queries.jsonl[.gz]`, one JSON object a line:

    corpus    {"id", "title", "text"}                                  title may be empty
    queries   {"id", "question", "answers", "evidence", "type"}        any answer is right, unless "all_answers_needed"

`answers: []` with type `unanswerable` or `null_query` means that declining is right; with any other type it only means
that no short answer is known. `evidence: []` means that no gold passage is known. Further fields are ignored, because
some of them give the answer away; only a question's `lang` is read, and guessed where it is missing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval import layouts
from eval.layouts.parts import UNANSWERABLE_TYPES, Passage, Question
from rag.errors import InputError

__all__ = ["SEED", "UNANSWERABLE_TYPES", "Dataset", "Passage", "Question", "chosen", "load", "sampled"]
SEED = 13


@dataclass(frozen=True, slots=True)
class Dataset:
    """Passages and questions in file order. `digest` changes with any of them, `corpus_digest` with the passages only.

    `notes`: what the layout left out or decided, each a sentence.
    """

    name: str
    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]
    digest: str
    corpus_digest: str
    layout: str = layouts.FOLDER
    notes: tuple[str, ...] = ()

    @property
    def languages(self) -> dict[str, int]:
        """How many questions are in which language, the most frequent first."""
        return counted(question.language for question in self.questions)


def load(path: Path, *, layout: str | None = None, split: str | None = None) -> Dataset:
    """The data set in `path`, a file or folder, named after it. `layout` insists on one of `layouts.NAMES`.

    Raises:
        InputError: nothing there or in no known layout, a missing file or field, a field of the wrong type, an id used
            twice, evidence that is not in the corpus, no or only empty answers where there must be some, broken JSON, UTF-8
            or gzip, or no questions. The message names the file, and the line or the record with its id.
    """
    path = path.expanduser()
    found, parts = layouts.read(path, layout=layout, split=split)
    corpus_digest = _digest(passage.line() for passage in parts.passages)
    digest = _digest([corpus_digest, *(repr(question) for question in parts.questions)])
    return Dataset(name=_name(path.resolve()), passages=parts.passages, questions=parts.questions, digest=digest,
                   corpus_digest=corpus_digest, layout=found, notes=parts.notes)


def chosen(dataset: Dataset, *, limit: int | None = None, answerable: bool = False, seed: int = SEED) -> tuple[Question, ...]:
    """`limit` questions drawn with `seed`, after dropping those without answers if only `answerable` ones are wanted.

    They come in the order of the draw, so that fewer are always the beginning of more. Without a limit all come, in that order.

    Raises:
        InputError: nothing is left.
    """
    kept = [question for question in dataset.questions if question.answers or not answerable]
    if not kept:
        raise InputError(f"No question of {dataset.name} has an answer.", code="dataset_invalid",
                         hint="Leave --answerable out, or use `eval retrieval` for data without answers.")
    return sampled(kept, seed=seed)[:limit]


def sampled(questions: Sequence[Question], *, seed: int = SEED) -> tuple[Question, ...]:
    """The questions in an order that looks random and depends, for any two of them, on the seed and their ids alone.

    Files are grouped by article and type, so that their first questions are no sample; and a question keeps its place among
    the others when some are added or left out.
    """
    return tuple(sorted(questions, key=lambda question: (hashlib.sha256(f"{seed}:{question.id}".encode()).digest(), question.id)))


def counted(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first, equal counts by name."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _name(path: Path) -> str:
    """That of the folder, or of the file without the suffixes that say how it is stored; queries.jsonl is its folder's."""
    if path.is_dir():
        return path.name
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    return path.parent.name if stem == "queries" else stem


def _digest(lines: Iterable[str]) -> str:
    """Twelve hex digits over the lines in order."""
    total = hashlib.sha256()
    for line in lines:
        total.update(line.encode() + b"\n")
    return total.hexdigest()[:12]
