"""SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018), and the sets that share their JSON: XQuAD, MLQA, PIAF, FQuAD, CMRC 2018, DRCD.

    {"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers": [{"text"}], "is_impossible"}]}]}]}

CMRC 2018 has a form of its own too: [{"context_text", "title", "qas": [{"query_id", "query_text", "answers": ["..."]}]}].
The passages are the paragraphs; a question's evidence is the paragraph it was asked about, and none if it cannot be answered
from it. With all paragraphs in one corpus, another may by chance answer such a question: nobody has checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from eval.layouts.files import rows
from eval.layouts.parts import Pool, Question
from eval.layouts.rows import Row

SHAPE = ('SQuAD JSON is {"data": [{"title": "...", "paragraphs": [{"context": "...", "qas": [{"id": "...", "question": "...", '
         '"answers": [{"text": "..."}]}]}]}]}.')
_NONE = "has no answer and is not marked is_impossible; files of test questions without answers cannot be evaluated"


def fits(record: Mapping[str, object]) -> bool:
    data = record.get("data")
    return _paragraphed(record) or "qas" in record or (isinstance(data, list) and bool(data) and _paragraphed(data[0]))


def read(path: Path, pool: Pool) -> Iterator[Question]:
    seen: dict[str, str] = {}
    for row in rows(path, shape=SHAPE):
        for article in row.inside("data", each="article") if "data" in row.record else (row,):
            title = article.string("title", default="").replace("_", " ")
            for paragraph in article.inside("paragraphs", each="paragraph") if "paragraphs" in article.record else (article,):
                yield from _asked(paragraph, title, seen, pool)


def _paragraphed(record: object) -> bool:
    return isinstance(record, dict) and isinstance(record.get("paragraphs"), list) and "qas" in (record["paragraphs"] or [{}])[0]


def _asked(paragraph: Row, title: str, seen: dict[str, str], pool: Pool) -> Iterator[Question]:
    own = "context_text" in paragraph.record
    passage = pool.add(title, paragraph.told("context_text" if own else "context"))
    for row in paragraph.inside("qas", each="question"):
        name = "query_id" if own else "id"
        identifier = row.fresh(row.label(name), seen, field=name)
        text = row.told("query_text" if own else "question")
        if row.boolean("is_impossible"):
            yield Question(identifier, text, (), (), "unanswerable", language="")
            continue
        # Several annotators often gave the same answer.
        found = dict.fromkeys(row.as_text("answers", answer) if isinstance(answer, str)
                              else row.inner(answer, f"answer {number}").string("text")
                              for number, answer in enumerate(row.values("answers"), start=1))
        answers = row.answers(tuple(found), field="answers", none=_NONE)
        yield Question(identifier, text, answers, (passage,), "extractive", language="")
