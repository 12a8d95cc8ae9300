"""Folders of BEIR (Thakur et al. 2021): `corpus.jsonl`, `queries.jsonl` and judgements in `qrels/SPLIT.tsv`.

    corpus    {"_id", "title", "text"}          title may be missing
    queries   {"_id", "text"}                   of all splits
    qrels     query-id, corpus-id, score        a table with that header; above 0 is relevant

Questions are those with a relevant document in the split (default: test). There are no answers: such a set measures retrieval.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eval.layouts.files import lines, table
from eval.layouts.folder import find, language, there
from eval.layouts.parts import Parts, Passage, Question
from eval.layouts.rows import INVALID
from rag.errors import InputError

CORPUS_SHAPE = 'Each line is {"_id": "...", "title": "...", "text": "..."}.'
QUERIES_SHAPE = 'Each line is {"_id": "...", "text": "..."}.'
QRELS_SHAPE = "The first line is query-id, corpus-id, score, parted by tabs; every other line is one judgement."
DEFAULT_SPLIT = "test"


def fits(folder: Path) -> bool:
    """Whether the queries of the folder have the ids and texts of BEIR."""
    queries = there(folder, "queries")
    if queries is None:
        return False
    first = next(lines(queries, shape=QUERIES_SHAPE), None)
    return first is not None and {"_id", "text"} <= set(first.record) and "question" not in first.record


def read(folder: Path, *, split: str | None) -> Parts:
    judgements = _judgements(folder, split)
    passages = tuple(_passages(find(folder, "corpus")))
    relevant, notes = _relevant(judgements, {passage.id for passage in passages})
    seen: dict[str, str] = {}
    questions = []
    for row in lines(find(folder, "queries"), shape=QUERIES_SHAPE):
        identifier = row.fresh(row.label("_id"), seen, field="_id")
        if identifier in relevant:
            evidence = tuple(relevant[identifier])
            questions.append(Question(identifier, row.told("text"), (), evidence, "retrieval", language=language(row)))
    for identifier, found in relevant.items():
        if identifier not in seen:
            raise InputError(f"{judgements}, {next(iter(found.values()))} judges the query {identifier!r}, which is not in "
                             "queries.jsonl.", code=INVALID, hint=QUERIES_SHAPE, field="query-id")
    left_out = len(seen) - len(questions)
    if left_out:
        notes.append(f"{left_out} of {len(seen)} queries have no relevant document in {judgements.name} and are left out.")
    return Parts(passages, tuple(questions), tuple(notes))


def _judgements(folder: Path, split: str | None) -> Path:
    found = {path.name.removesuffix(".gz").removesuffix(".tsv"): path for path in sorted((folder / "qrels").glob("*.tsv*"))}
    if not found:
        raise InputError(f"{folder} holds no qrels/*.tsv.", code="dataset_missing", hint=QRELS_SHAPE)
    wanted = split or (next(iter(found)) if len(found) == 1 else DEFAULT_SPLIT)
    if wanted not in found:
        raise InputError(f"{folder / 'qrels'} has no split {wanted!r}.", field="split", code="dataset_missing",
                         hint=f"Use --split with one of {', '.join(found)}.")
    return found[wanted]


def _passages(path: Path) -> Iterator[Passage]:
    seen: dict[str, str] = {}
    for row in lines(path, shape=CORPUS_SHAPE):
        yield Passage(row.fresh(row.label("_id"), seen, field="_id"), row.string("title", default=""), row.string("text"))
    if not seen:
        raise InputError(f"{path} holds 0 documents.", code=INVALID, hint=CORPUS_SHAPE)


def _relevant(path: Path, corpus_ids: set[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """For each query its relevant documents with their places, and what to tell about the judgements."""
    found: dict[str, dict[str, str]] = {}
    grades = set()
    for row in table(path, shape=QRELS_SHAPE):
        query, document, score = row.label("query-id"), row.label("corpus-id"), row.string("score")
        try:
            grade = float(score)
        except ValueError:
            raise row.error(f"has the score {score!r}, which is no number", field="score") from None
        if grade <= 0:
            continue
        if document not in corpus_ids:
            raise row.error(f"judges {document!r}, which is not an id in the corpus", field="corpus-id")
        grades.add(grade)
        found.setdefault(query, {})[document] = row.where
    graded = f"The grades {', '.join(f'{grade:g}' for grade in sorted(grades))} all count as relevant."
    return found, [f"Judgements: {path.name}.", *([graded] if len(grades) > 1 else [])]
