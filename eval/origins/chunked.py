"""A data set as searches see it: its chunks, made as ingestion makes them, and some questions whose gold documents are known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from eval.datasets import SEED, Dataset, Question
from eval.retrieval import with_evidence
from indexers.chunking import chunk, embedding_text
from indexers.encoders import Encoder
from indexers.loaders.jsonl import load_jsonl_lines
from rag.errors import InputError
from rag.types import Document


@dataclass(frozen=True, slots=True)
class Chunked:
    """`texts`: what encoders and word indexes read of each chunk; `documents`: the document of each. `digest` is of the texts, in
    order, and of how they were cut."""

    name: str
    texts: tuple[str, ...]
    documents: tuple[str, ...]
    questions: tuple[Question, ...]
    digest: str

    @property
    def asked(self) -> list[str]:
        return [question.text for question in self.questions]

    @property
    def asked_digest(self) -> str:
        return digest_of(self.asked)


def chunked(dataset: Dataset, *, encoder: Encoder, chunk_tokens: int, limit: int | None, seed: int = SEED) -> Chunked:
    """Passages that are blank are left out, as in `eval.corpus`. At most `limit` questions, drawn with `seed`.

    Raises:
        InputError: a passage that ingestion refuses, or no question that names its evidence.
    """
    most = min(chunk_tokens, encoder.max_tokens)
    texts, documents = [], []
    lines = (passage.line() for passage in dataset.passages if passage.text.strip())
    for document in load_jsonl_lines(lines, dataset.name):
        if not isinstance(document, Document):
            raise InputError(f"{document.source}: {document.message}", code="dataset_invalid", hint=document.hint)
        for each in chunk(document, max_tokens=most, count=encoder.count, offsets=encoder.offsets):
            texts.append(embedding_text(each))
            documents.append(document.id)
    questions = with_evidence(dataset, limit=limit, seed=seed)
    return Chunked(dataset.name, tuple(texts), tuple(documents), tuple(questions), digest_of(texts))


def digest_of(texts: Iterable[str]) -> str:
    """Sixteen hex digits over the texts in order."""
    total = hashlib.sha256()
    for text in texts:
        coded = text.encode("utf-8", "surrogatepass")
        total.update(len(coded).to_bytes(8, "little") + coded)
    return total.hexdigest()[:16]
