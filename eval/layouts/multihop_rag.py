"""MultiHop-RAG (Tang and Yang 2024): `MultiHopRAG.json` beside `corpus.json`.

    MultiHopRAG.json   [{"query", "answer", "question_type", "evidence_list": [{"title", "url", "fact", ...}]}]
    corpus.json        [{"title", "url", "source", "published_at", "body", ...}]

The evidence is the whole articles that the gold facts were taken from. Questions have no ids, so theirs is their number. The
answer of a null_query is that the articles do not tell: declining is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from eval.layouts.files import rows
from eval.layouts.parts import UNANSWERABLE_TYPES, Pool, Question
from eval.layouts.rows import Row

SHAPE = ('A record is {"query": "...", "answer": "...", "question_type": "...", "evidence_list": [{"title": "...", '
         '"url": "..."}]}; the articles belong beside it as corpus.json.')


def fits(record: Mapping[str, object]) -> bool:
    return "query" in record and "evidence_list" in record


def read(path: Path, pool: Pool) -> Iterator[Question]:
    for number, row in enumerate(rows(path, shape=SHAPE), start=1):
        kind = row.string("question_type")
        evidence = tuple(dict.fromkeys(_article(fact, pool) for fact in row.inside("evidence_list", each="evidence")))
        answers = () if kind in UNANSWERABLE_TYPES else (row.told("answer"),)
        if answers and not evidence:
            raise row.error(f"has no evidence, and its question_type is {kind}", field="evidence_list")
        yield Question(f"q{number}", row.told("query"), answers, evidence, kind, language="")


def _article(fact: Row, pool: Pool) -> str:
    """By address, else by title, which must then be that of one article."""
    url = fact.string("url", default="")
    if url in pool.passages:
        return url
    titled = pool.titled(fact.string("title"))
    if len(titled) != 1:
        said = "no article" if not titled else f"{len(titled)} articles"
        raise fact.error(f"names {url or fact.string('title')!r}, which is {said} of the corpus", field="evidence_list")
    return titled[0]
