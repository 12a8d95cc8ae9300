"""A question-answering data set in one folder: `corpus.jsonl[.gz]` and `queries.jsonl[.gz]`, one JSON object a line.

    corpus    {"id", "title", "text"}                                  title may be empty
    queries   {"id", "question", "answers", "evidence", "type"}        any answer is right, unless "all_answers_needed"

`answers: []` with type `unanswerable` or `null_query` means that declining is right; with any other type it only means
that no short answer is known. `evidence: []` means that no gold passage is known. Further fields are ignored, because
some of them give the answer away; only a question's `lang` is read, and guessed where it is missing.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from indexers.loaders.language import guess_language
from rag.errors import InputError

UNANSWERABLE_TYPES = frozenset({"unanswerable", "null_query"})
# Told by their letters even in a short question; languages in Latin letters need more text than that.
_BY_SCRIPT = frozenset({"ar", "el", "he", "hi", "ja", "ko", "ru", "zh"})
_SHAPES = {
    "corpus": 'Each line is {"id": "...", "title": "...", "text": "..."}.',
    "queries": 'Each line is {"id": "...", "question": "...", "answers": ["..."], "evidence": ["id"], "type": "..."}.',
}


@dataclass(frozen=True, slots=True)
class Passage:
    """One document of the corpus."""

    id: str
    title: str
    text: str

    def line(self) -> str:
        """The record as ingestion takes it: nothing but what a reader of the document would see."""
        return json.dumps({"id": self.id, "title": self.title, "text": self.text}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Question:
    """One question; `evidence` are corpus ids, each once, in file order. `language` decides how answers are compared."""

    id: str
    text: str
    answers: tuple[str, ...]
    evidence: tuple[str, ...]
    type: str
    all_answers_needed: bool = False
    language: str = "en"

    @property
    def unanswerable(self) -> bool:
        """The right behaviour is to decline."""
        return not self.answers and self.type in UNANSWERABLE_TYPES


@dataclass(frozen=True, slots=True)
class Dataset:
    """Passages and questions in file order. `digest` changes with any of them, `corpus_digest` with the passages only."""

    name: str
    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]
    digest: str
    corpus_digest: str


def load(folder: Path) -> Dataset:
    """The data set in `folder`, named after it.

    Raises:
        InputError: a missing folder, file or field, a field of the wrong type, an id used twice, evidence that is not in
            the corpus, broken JSON, UTF-8 or gzip, or no questions. The message names the file and the line.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder.", code="dataset_missing",
                         hint="Name a folder that holds corpus.jsonl and queries.jsonl (either may end in .gz).")
    corpus_path, queries_path = _find(folder, "corpus"), _find(folder, "queries")
    passages = tuple(_passages(corpus_path))
    questions = _questions(queries_path, {passage.id for passage in passages}, corpus_path.name)
    if not questions:
        raise InputError(f"{queries_path} holds 0 questions.", code="dataset_invalid", hint=_SHAPES["queries"])
    corpus_digest = _digest(passage.line() for passage in passages)
    digest = _digest([corpus_digest, *(repr(question) for question in questions)])
    return Dataset(name=folder.resolve().name, passages=passages, questions=questions, digest=digest,
                   corpus_digest=corpus_digest)


def chosen(dataset: Dataset, *, limit: int | None = None, answerable: bool = False) -> tuple[Question, ...]:
    """The first `limit` questions in file order, after dropping those without answers if only `answerable` ones are wanted.

    Raises:
        InputError: nothing is left.
    """
    kept = [question for question in dataset.questions if question.answers or not answerable]
    if not kept:
        raise InputError(f"No question of {dataset.name} has an answer.", code="dataset_invalid",
                         hint="Leave --answerable out, or use `eval retrieval` for data without answers.")
    return tuple(kept[:limit])


def _find(folder: Path, stem: str) -> Path:
    for name in (f"{stem}.jsonl", f"{stem}.jsonl.gz"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} holds neither {stem}.jsonl nor {stem}.jsonl.gz.", code="dataset_missing", hint=_SHAPES[stem])


def _passages(path: Path) -> Iterator[Passage]:
    seen: dict[str, int] = {}
    for number, record in _records(path, "corpus"):
        row = _Row(path, number, record, "corpus")
        yield Passage(id=row.identifier(seen), title=row.string("title"), text=row.string("text"))
    if not seen:
        raise InputError(f"{path} holds 0 documents.", code="dataset_invalid", hint=_SHAPES["corpus"])


def _questions(path: Path, corpus_ids: set[str], corpus_name: str) -> tuple[Question, ...]:
    seen: dict[str, int] = {}
    found = []
    for number, record in _records(path, "queries"):
        row = _Row(path, number, record, "queries")
        question = Question(id=row.identifier(seen), text=row.string("question"), answers=row.answers(),
                            evidence=tuple(dict.fromkeys(row.strings("evidence"))), type=row.string("type"),
                            all_answers_needed=row.boolean("all_answers_needed"), language=row.string("lang", default=""))
        if not question.text.strip():
            raise row.error("has an empty question")
        for identifier in question.evidence:
            if identifier not in corpus_ids:
                raise row.error(f"names evidence {identifier!r}, which is not an id in {corpus_name}", field="evidence")
        found.append(question)
    fallback = guess_language("\n".join(question.text for question in found))
    return tuple(replace(question, language=question.language or _language(question.text, fallback)) for question in found)


def _language(question: str, fallback: str) -> str:
    own = guess_language(question)
    return own if own in _BY_SCRIPT else fallback


def _records(path: Path, stem: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Line number (from 1) and object of every line that is not blank."""
    number = 0
    try:
        with (gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _parsed(line, path, number, stem)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read after line {number}: {error}.", code="dataset_invalid",
                         hint="Check that the file is complete and readable.") from error


def _parsed(line: bytes, path: Path, number: int, stem: str) -> Mapping[str, object]:
    try:
        record = json.loads(line.decode("utf-8"))
    except ValueError as error:  # broken JSON and broken UTF-8 alike
        raise InputError(f"{path}, line {number} is not JSON in UTF-8: {error}.", code="dataset_invalid",
                         hint=_SHAPES[stem]) from error
    if not isinstance(record, dict):
        raise InputError(f"{path}, line {number} is not a JSON object.", code="dataset_invalid", hint=_SHAPES[stem])
    return record


@dataclass(frozen=True, slots=True)
class _Row:
    """One record with its place, so that every complaint can say where."""

    path: Path
    number: int
    record: Mapping[str, object]
    stem: str

    def error(self, what: str, *, field: str | None = None) -> InputError:
        return InputError(f"{self.path}, line {self.number} {what}.", hint=_SHAPES[self.stem], field=field,
                          code="dataset_invalid")

    def value(self, name: str) -> object:
        if name not in self.record:
            raise self.error(f"has no field {name!r}", field=name)
        return self.record[name]

    def identifier(self, seen: dict[str, int]) -> str:
        """The id, which must be new; `seen` maps ids to their lines."""
        found = self.string("id")
        if not found.strip():
            raise self.error("has an empty id", field="id")
        if found in seen:
            raise self.error(f"uses the id {found!r} of line {seen[found]} again", field="id")
        seen[found] = self.number
        return found

    def string(self, name: str, *, default: str | None = None) -> str:
        return self._text(name, default if default is not None and name not in self.record else self.value(name))

    def strings(self, name: str) -> tuple[str, ...]:
        values = self.value(name)
        if not isinstance(values, list):
            raise self.error(f"has {name} of type {type(values).__name__}; it must be a list of strings", field=name)
        return tuple(self._text(name, value) for value in values)

    def answers(self) -> tuple[str, ...]:
        """Blank ones beside real ones say nothing and are left out; nothing but blank ones could mean anything."""
        found = self.strings("answers")
        told = tuple(answer for answer in found if answer.strip())
        if found and not told:
            raise self.error("has nothing but empty answers; write [] where there is none", field="answers")
        return told

    def boolean(self, name: str) -> bool:
        found = self.record.get(name, False)
        if not isinstance(found, bool):
            raise self.error(f"has {name} of type {type(found).__name__}; it must be true or false", field=name)
        return found

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise self.error(f"has {name} of type {type(value).__name__}; it must be a string", field=name)
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise self.error(f"has half of a surrogate pair in {name}", field=name)
        return value


def _digest(lines: Iterator[str] | list[str]) -> str:
    """Twelve hex digits over the lines in order."""
    total = hashlib.sha256()
    for line in lines:
        total.update(line.encode() + b"\n")
    return total.hexdigest()[:12]
