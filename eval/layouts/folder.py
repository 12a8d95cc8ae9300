"""Our own format: a folder with `corpus.jsonl[.gz]` and `queries.jsonl[.gz]`, as `eval.datasets` describes it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from eval.layouts.files import lines
from eval.layouts.parts import Parts, Passage, Question
from eval.layouts.rows import INVALID, Row
from rag.errors import InputError

SHAPES = {
    "corpus": 'Each line is {"id": "...", "title": "...", "text": "..."}.',
    "queries": 'Each line is {"id": "...", "question": "...", "answers": ["..."], "evidence": ["id"], "type": "..."}.',
}
_LANGUAGE = re.compile(r"([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]+)*")


def read(folder: Path, *, queries: Path | None = None) -> Parts:
    """The data set in `folder`; its questions from `queries` where that is another file than queries.jsonl."""
    corpus_path, queries_path = find(folder, "corpus"), queries or find(folder, "queries")
    passages = tuple(_passages(corpus_path))
    ids = {passage.id for passage in passages}
    return Parts(passages, tuple(_questions(queries_path, ids, corpus_path.name)))


def find(folder: Path, stem: str) -> Path:
    """Raises InputError where neither form of the file is there."""
    found = there(folder, stem)
    if found is None:
        raise InputError(f"{folder} holds neither {stem}.jsonl nor {stem}.jsonl.gz.", code="dataset_missing", hint=SHAPES[stem])
    return found


def there(folder: Path, stem: str) -> Path | None:
    return next((folder / name for name in (f"{stem}.jsonl", f"{stem}.jsonl.gz") if (folder / name).is_file()), None)


def extras(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """The first of the fields `names` that each record of the corpus has and that is not empty, by the record's id."""
    found = {}
    for row in lines(find(folder, "corpus"), shape=SHAPES["corpus"]):
        value = next(filter(None, (row.string(name, default="") for name in names)), "")
        if value:
            found[row.string("id")] = value
    return found


def language(row: Row, name: str = "lang") -> str:
    """The primary tag in lower case, empty where the record tells none."""
    told = row.string(name, default="")
    found = _LANGUAGE.fullmatch(told)
    if told and found is None:
        raise row.error(f"has {name} {told!r}, which is no language tag such as en or zh-Hant", field=name)
    return found.group(1).lower() if found else ""


def _passages(path: Path) -> Iterator[Passage]:
    seen: dict[str, str] = {}
    for row in lines(path, shape=SHAPES["corpus"]):
        yield Passage(id=row.fresh(row.string("id"), seen), title=row.string("title"), text=row.string("text"))
    if not seen:
        raise InputError(f"{path} holds 0 documents.", code=INVALID, hint=SHAPES["corpus"])


def _questions(path: Path, corpus_ids: set[str], corpus_name: str) -> Iterator[Question]:
    seen: dict[str, str] = {}
    for row in lines(path, shape=SHAPES["queries"]):
        identifier = row.fresh(row.string("id"), seen)
        found = row.strings("answers")
        kind = row.string("type")
        evidence = tuple(dict.fromkeys(row.strings("evidence")))
        for name in evidence:
            if name not in corpus_ids:
                raise row.error(f"names evidence {name!r}, which is not an id in {corpus_name}", field="evidence")
        answers = row.answers(found, field="answers", none="has nothing but empty answers; write [] where there is none") \
            if found else ()
        yield Question(id=identifier, text=row.told("question"), answers=answers, evidence=evidence, type=kind,
                       all_answers_needed=row.boolean("all_answers_needed"), language=language(row))
    if not seen:
        raise InputError(f"{path} holds 0 questions.", code=INVALID, hint=SHAPES["queries"])


def line(question: Question) -> dict[str, object]:
    """The record of a question in `queries.jsonl`."""
    told: dict[str, object] = {"id": question.id, "question": question.text, "answers": list(question.answers),
                               "evidence": list(question.evidence), "type": question.type, "lang": question.language}
    return {**told, "all_answers_needed": True} if question.all_answers_needed else told
