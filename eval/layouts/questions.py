"""Questions with answers, one a record: tables (CSV, TSV) that anyone can write, PopQA (Mallen et al. 2023), FlashRAG's JSON lines.

    table      columns question and answer, and if there are any: id, context, title, type, lang; as JSON lines the same fields,
               where answers may be a list, or {"text": [...]} as in SQuAD exported by record
    PopQA      popQA.tsv: question, possible_answers (a JSON list), prop, s_wiki_title, ...
    FlashRAG   {"id", "question", "golden_answers": ["..."], "metadata": {"context", "supporting_facts"}}

The context of a record becomes a passage and is its evidence. Without contexts the passages must lie beside the questions in a
file of their own: a question set alone could only be asked closed book. PopQA names the page about the subject of a question;
a passage of that title is its evidence if it is the only one, for of several nobody says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from eval.layouts import hops
from eval.layouts.files import rows
from eval.layouts.folder import language
from eval.layouts.parts import UNANSWERABLE_TYPES, Pool, Question
from eval.layouts.rows import Row

TABLE_SHAPE = "A table has the columns question and answer, and if you like id, context, title, type and lang."
POPQA_SHAPE = 'A row has the columns id, question and possible_answers, which is a JSON list such as ["politician"].'
FLASHRAG_SHAPE = 'A line is {"id": "...", "question": "...", "golden_answers": ["..."]}.'
_QUESTION = ("question", "query")
_ANSWER = ("answer", "answers")
_CONTEXT = ("context", "passage")
_NONE = "has an empty answer; where declining is right, say so with the type unanswerable"


def fits_table(record: Mapping[str, object]) -> bool:
    return _column(record, _QUESTION) is not None and _column(record, _ANSWER) is not None and "evidence" not in record


def fits_popqa(record: Mapping[str, object]) -> bool:
    return {"question", "possible_answers"} <= set(record)


def fits_flashrag(record: Mapping[str, object]) -> bool:
    return {"question", "golden_answers"} <= set(record)


def has_contexts(record: Mapping[str, object]) -> bool:
    """Whether a record of any of these layouts brings its passages."""
    metadata = record.get("metadata")
    return _column(record, _CONTEXT) is not None or (isinstance(metadata, dict) and bool(metadata.get("context")))


def read_table(path: Path, pool: Pool) -> Iterator[Question]:
    seen: dict[str, str] = {}
    for number, row in enumerate(rows(path, shape=TABLE_SHAPE), start=1):
        asked, answer, context = _column(row.record, _QUESTION), _column(row.record, _ANSWER), _column(row.record, _CONTEXT)
        kind_name, id_name = _column(row.record, ("type",)), _column(row.record, ("id",))
        found, declined = _cell(row, answer or "answer")
        kind = (row.string(kind_name) if kind_name else "") or ("unanswerable" if declined else "")
        identifier = row.fresh(row.label(id_name) if id_name else f"q{number}", seen)
        text = row.told(asked or "question")
        answers = () if kind in UNANSWERABLE_TYPES and not any(part.strip() for part in found) \
            else row.answers(found, field=answer or "answer", none=_NONE)
        evidence: tuple[str, ...] = ()
        if context is not None and row.string(context).strip():
            passage = pool.add(row.string(_column(row.record, ("title",)) or "title", default=""), row.string(context))
            evidence = (passage,) if answers else ()
        yield Question(identifier, text, answers, evidence, kind or "question",
                       language=language(row, _column(row.record, ("lang", "language")) or "lang"))


def read_popqa(path: Path, pool: Pool) -> Iterator[Question]:
    seen: dict[str, str] = {}
    known = 0
    for row in rows(path, shape=POPQA_SHAPE):
        titled = pool.titled(row.string("s_wiki_title", default=""))
        evidence = tuple(titled) if len(titled) == 1 else ()
        known += bool(evidence)
        answers = row.answers(row.json_strings("possible_answers"), field="possible_answers", none="has no answer")
        yield Question(row.fresh(row.label("id"), seen), row.told("question"), answers, evidence,
                       row.string("prop", default="") or "question", language="")
    pool.notes.append(f"Evidence is known for {known} of {len(seen)} questions: those whose page has one passage in the corpus.")


def read_flashrag(path: Path, pool: Pool) -> Iterator[Question]:
    seen: dict[str, str] = {}
    for number, row in enumerate(rows(path, shape=FLASHRAG_SHAPE), start=1):
        metadata = row.inner(row.record.get("metadata") or {}, "metadata")
        evidence: tuple[str, ...] = ()
        if metadata.record.get("context"):
            found = hops.paragraphs(metadata, metadata.record["context"], pool)
            if metadata.record.get("supporting_facts"):
                evidence = hops.supported(metadata, metadata.record["supporting_facts"], found)
        answers = row.answers(row.strings("golden_answers"), field="golden_answers", none="has no answer")
        yield Question(row.fresh(row.label("id") if "id" in row.record else f"q{number}", seen), row.told("question"), answers,
                       evidence, metadata.string("type", default="") or "question", language="")


def _column(record: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    """The field with one of the names, whatever the case."""
    return next((key for name in names for key in record if key.strip().lower() == name), None)


def _cell(row: Row, name: str) -> tuple[tuple[str, ...], bool]:
    """Answers of a cell, a JSON list where it begins like one, else the one that it is; and whether it says that there is none."""
    value = row.value(name)
    if isinstance(value, dict):
        found = row.inner(value, name).strings("text")
        return tuple(dict.fromkeys(found)), not found
    if isinstance(value, list):
        return row.strings(name), False
    text = row.string(name)
    return (row.json_strings(name) if text.lstrip().startswith('["') else (text.strip(),)), False
