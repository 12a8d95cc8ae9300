"""A file of passages beside a file of questions: the corpus of question sets that come without one.

Records as JSON lines, as a JSON list or as a table, in any of these forms:

    {"id", "title", "text"}      ours; BEIR writes "_id"; the Wikipedia passages of DPR are a table with these columns
    {"id", "contents"}           FlashRAG and Pyserini: the first line is the title if more lines follow
    {"title", "body", "url"}     the articles of MultiHop-RAG; source and date of a newspaper stand above its text
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eval.layouts.files import rows
from eval.layouts.parts import Passage, Pool
from eval.layouts.rows import INVALID, Row
from rag.errors import InputError

SHAPE = 'A passage is {"id": "...", "title": "...", "text": "..."}.'


def fits(record: Mapping[str, object]) -> bool:
    known = "text" in record or "contents" in record or ("body" in record and "title" in record)
    return known and not {"question", "query", "qas", "answers"} & set(record) and bool({"id", "_id", "url", "title"} & set(record))


def read(path: Path, pool: Pool) -> None:
    """Raises InputError for a passage without text or with an id that was used before, and for a file without passages."""
    seen: dict[str, str] = {}
    for row in rows(path, shape=SHAPE):
        pool.keep(_passage(row, seen))
    if not seen:
        raise InputError(f"{path} holds 0 passages.", code=INVALID, hint=SHAPE)


def _passage(row: Row, seen: dict[str, str]) -> Passage:
    if "body" in row.record:
        name = next((name for name in ("url", "id", "_id") if name in row.record), "title")
        by = ", ".join(part for part in (row.string("source", default=""), row.string("published_at", default="")[:10]) if part)
        text = f"{by}\n\n{row.told('body')}" if by else row.told("body")
        return Passage(row.fresh(row.label(name), seen, field=name), row.string("title"), text)
    name = "_id" if "_id" in row.record else "id"
    identifier = row.fresh(row.label(name), seen, field=name)
    if "contents" in row.record and "text" not in row.record:
        title, _, text = row.told("contents").partition("\n")
        return Passage(identifier, title.strip('"'), text) if text.strip() else Passage(identifier, "", title)
    return Passage(identifier, row.string("title", default=""), row.string("text"))
