"""The shipped sample: complete, small, attributed, and its questions answerable from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from indexers.loaders import discover, load
from rag.settings import Settings
from rag.types import Document, FileFailure

SAMPLE = Path(__file__).parents[2] / "eval" / "data" / "sample"


def rows(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()]


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.fixture
def files(settings: Settings) -> dict[str, Document]:
    found = [item for item in discover([SAMPLE / "files"], settings=settings) if not isinstance(item, FileFailure)]
    documents = [document for item in found for document in load(item, settings=settings)]
    return {Path(document.source).name: document for document in documents if isinstance(document, Document)}


def test_it_is_small_and_every_file_of_it_can_be_ingested(files: dict[str, Document]) -> None:
    every = [path for path in SAMPLE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in every) < 1_000_000
    assert max(path.stat().st_size for path in (SAMPLE / "files").iterdir()) < 100_000
    assert set(files) == {path.name for path in (SAMPLE / "files").iterdir()}
    assert {Path(name).suffix for name in files} == {".pdf", ".docx", ".html", ".csv", ".md"}


def test_evidence_is_in_the_corpus_and_holds_an_answer() -> None:
    corpus = {row["id"]: str(row["text"]) for row in rows("corpus.jsonl")}
    queries = rows("queries.jsonl")
    assert 250 <= len(corpus) <= 350
    assert 300 <= len(queries) <= 400
    for query in queries:
        evidence, answers = query["evidence"], query["answers"]
        assert isinstance(evidence, list)
        assert isinstance(answers, list)
        assert any(plain(answer).strip(" .").lower() in plain(corpus[id_]).lower() for id_ in evidence for answer in answers), query


def test_the_files_answer_their_questions_on_the_page_named(files: dict[str, Document]) -> None:
    questions = json.loads((SAMPLE / "file_questions.json").read_text(encoding="utf-8"))
    assert {row["file"] for row in questions} == set(files)
    for row in questions:
        document = files[row["file"]]
        blocks = [document.text[slice(*block.span)] for block in document.blocks if block.page == row.get("page")]
        assert any(answer in plain(block) for block in blocks for answer in row["answers"]), row


def test_the_files_say_where_they_are_from(files: dict[str, Document]) -> None:
    for document in files.values():
        assert "Wikipedia" in plain(document.text)
        assert "CC BY-SA 3.0" in plain(document.text)


def test_the_files_are_not_in_the_corpus(files: dict[str, Document]) -> None:
    corpus = " ".join(str(row["text"]) for row in rows("corpus.jsonl"))
    assert "Wilhelm Gustloff" in files["baltic-sea.pdf"].text
    assert "Wilhelm Gustloff" not in corpus


def test_the_page_is_free_of_its_navigation(files: dict[str, Document]) -> None:
    for noise in ("cookies", "Related", "Contact", "console.log", "Gases"):
        assert noise not in files["tin.html"].text


def test_every_source_is_attributed() -> None:
    notice = (SAMPLE.parents[2] / "NOTICE").read_text(encoding="utf-8")
    readme = (SAMPLE / "README.md").read_text(encoding="utf-8")
    for text in (notice, readme):
        assert "SQuADShifts" in text
        assert "creativecommons.org/licenses/by/4.0" in text
        assert "creativecommons.org/licenses/by-sa/3.0" in text
    assert "Qwen2.5-Coder" in notice
    assert "MiniLM" in notice
    assert all(f"- {row['title']}:" in readme for row in rows("corpus.jsonl"))
