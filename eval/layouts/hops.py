"""Questions with their own paragraphs, some of them gold: HotpotQA (Yang et al. 2018), 2WikiMultihopQA (Ho et al. 2020) and
MuSiQue (Trivedi et al. 2022), as JSON or JSON lines.

    HotpotQA, 2Wiki   {"_id", "question", "answer", "type",
                       "context": [["Title", ["Sentence.", ...]], ...], "supporting_facts": [["Title", 0], ...]}
    MuSiQue           {"id", "question", "answer", "answer_aliases", "answerable",
                       "paragraphs": [{"title", "paragraph_text", "is_supporting"}, ...]}

The corpus is all paragraphs of all questions in the file, each title with text once: search has to find a question's own among
them. HotpotQA's form with columns (`{"title": [...], "sentences": [[...]]}`) is read too. Files of test questions have no
gold, and the full-wiki files of HotpotQA hold what a retriever found instead of the gold paragraphs: both are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from eval.layouts.files import rows
from eval.layouts.parts import Pool, Question
from eval.layouts.rows import Row

HOTPOT_SHAPE = ('A record is {"_id": "...", "question": "...", "answer": "...", "context": [["Title", ["Sentence."]]], '
                '"supporting_facts": [["Title", 0]]}. Use the train or dev (distractor) file.')
MUSIQUE_SHAPE = ('A record is {"id": "...", "question": "...", "answer": "...", "paragraphs": [{"title": "...", "paragraph_text": '
                 '"...", "is_supporting": true}]}. Use the train or dev file.')


def fits_hotpot(record: Mapping[str, object]) -> bool:
    context = record.get("context")
    listed = isinstance(context, list) and bool(context) and isinstance(context[0], list)
    return "question" in record and (listed or (isinstance(context, dict) and "title" in context))


def fits_musique(record: Mapping[str, object]) -> bool:
    found = record.get("paragraphs")
    return "question" in record and isinstance(found, list) and bool(found) and "paragraph_text" in found[0]


def read_hotpot(path: Path, pool: Pool) -> Iterator[Question]:
    seen: dict[str, str] = {}
    for row in rows(path, shape=HOTPOT_SHAPE):
        name = "_id" if "_id" in row.record else "id"
        identifier = row.fresh(row.label(name), seen, field=name)
        evidence = supported(row, row.value("supporting_facts"), paragraphs(row, row.value("context"), pool))
        yield Question(identifier, row.told("question"), (row.told("answer"),), evidence,
                       row.string("type", default="multi-hop") or "multi-hop", language="")


def read_musique(path: Path, pool: Pool) -> Iterator[Question]:
    """Leaves out the questions of MuSiQue-Full that are not answerable: what answers them is missing from their own paragraphs
    alone, and in the corpus because their answerable twins brought it."""
    seen: dict[str, str] = {}
    asked = left_out = 0
    for row in rows(path, shape=MUSIQUE_SHAPE):
        asked += 1
        supporting = []
        for paragraph in row.inside("paragraphs", each="paragraph"):
            passage = pool.add(paragraph.string("title"), paragraph.string("paragraph_text"))
            if paragraph.boolean("is_supporting"):
                supporting.append(passage)
        if not row.boolean("answerable", default=True):
            left_out += 1
            continue
        identifier = row.fresh(row.label("id"), seen)
        if not supporting:
            raise row.error("has no paragraph marked is_supporting", field="paragraphs")
        aliases = row.strings("answer_aliases") if "answer_aliases" in row.record else ()
        answers = tuple(dict.fromkeys((row.told("answer"), *(alias for alias in aliases if alias.strip()))))
        hops = identifier.partition("__")[0] if "__" in identifier else "multi-hop"  # for instance 3hop1__...
        yield Question(identifier, row.told("question"), answers, tuple(dict.fromkeys(supporting)), hops, language="")
    if left_out:
        pool.notes.append(f"{left_out} of {asked} questions are marked as not answerable and left out: the paragraphs of all "
                          "questions together hold their answers.")


def paragraphs(row: Row, context: object, pool: Pool) -> dict[str, list[str]]:
    """Passages of the record by title, from either form of a context, put into the pool."""
    if isinstance(context, dict):
        inner = row.inner(context, "context")
        bodies = inner.values("sentences" if "sentences" in context else "content")
        pairs: list[object] = [[title, body] for title, body in zip(inner.values("title"), bodies, strict=False)]
    elif isinstance(context, list):
        pairs = context
    else:
        raise row.error(f"has context of type {type(context).__name__}; it must be a list", field="context")
    found: dict[str, list[str]] = {}
    for number, pair in enumerate(pairs, start=1):
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[1], list):
            raise row.error(f"has a paragraph {number} that is not [title, [sentences]]", field="context")
        title = row.as_text("context", pair[0])
        passage = pool.add(title, _joined([row.as_text("context", sentence) for sentence in pair[1]]))
        found.setdefault(title, []).append(passage)
    return found


def supported(row: Row, facts: object, passages: Mapping[str, list[str]]) -> tuple[str, ...]:
    """Ids of the passages that the supporting facts name, each once, in the order of the facts."""
    if isinstance(facts, dict):
        titles: list[object] = row.inner(facts, "supporting_facts").values("title")
    elif isinstance(facts, list) and all(isinstance(fact, list) and fact for fact in facts):
        titles = [fact[0] for fact in facts]
    else:
        raise row.error("has supporting_facts that are not [[title, sentence number], ...]", field="supporting_facts")
    if not titles:
        raise row.error("has no supporting facts", field="supporting_facts")
    found: list[str] = []
    for title in dict.fromkeys(titles):
        if not isinstance(title, str) or title not in passages:
            raise row.error(f"names supporting fact {title!r}, which is no title in its context", field="supporting_facts")
        found += passages[title]
    return tuple(dict.fromkeys(found))


def _joined(sentences: list[str]) -> str:
    """Sentences as running text; some files keep the blank before a sentence in it, some do not."""
    text = ""
    for sentence in sentences:
        apart = text and sentence and not text[-1].isspace() and not sentence[0].isspace()
        text += (" " if apart else "") + sentence
    return text.strip()
