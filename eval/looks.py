"""Questions of a data set with their first look of retrieval, the searcher for a second, and how good a pool of candidates is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from eval.corpus import FOLDER, collection_name, opened
from eval.datasets import Dataset, Question
from eval.metrics import answer_in_context
from eval.retrieval import with_evidence
from indexers.encoders import Encoder, Vectors
from indexers.snapshot import Snapshot
from rag.llm import Reader
from rag.settings import Settings
from rag.types import OnProgress, Progress, ScoredChunk
from retrievers.hybrid import Found, Searcher

# Of a pool: whether it holds all gold documents, the share of them that it holds, and whether it holds the answer.
MEASURES = ("all evidence", "recall", "answer")


@dataclass(frozen=True, slots=True)
class Looked:
    """One question, its vector, and its first look."""

    question: Question
    vector: Vectors
    first: Found


@dataclass(frozen=True, slots=True)
class Searched:
    """One data set's questions and what searches its passages."""

    name: str
    questions: tuple[Looked, ...]
    searcher: Searcher


@contextmanager
def searched(dataset: Dataset, *, settings: Settings, encoder: Encoder, k: int, limit: int, seed: int,
             on_progress: OnProgress) -> Iterator[Searched]:
    """At most `limit` questions whose gold documents are known, drawn with `seed`, with the best `k` of hybrid search. The passages
    are ingested below `settings.home`, if they are not there from an earlier run.

    Raises:
        InputError: as `eval.corpus.opened`, or no question names its evidence.
    """
    from rag.thriftrag import ThriftRAG, folder_of

    def open_collection(name: str, *, settings: Settings, reader: Reader | None, cold: bool) -> ThriftRAG:
        return ThriftRAG.open(name, settings=settings, reader=reader, encoder=encoder)

    asked = with_evidence(dataset, limit=limit, seed=seed)
    kb = opened(dataset, settings=settings, open_collection=open_collection, reader=None, on_progress=on_progress)
    if kb is not None:
        kb.close()
    name = collection_name(dataset, settings)
    with closing(Snapshot(folder_of(name, settings=replace(settings, home=settings.home / FOLDER)))) as snapshot:
        searcher = Searcher(snapshot, encoder, settings=settings)
        on_progress(Progress("search", 0, len(asked), "questions", dataset.name))
        vectors = encoder.encode([question.text for question in asked])
        yield Searched(dataset.name, tuple(
            Looked(question, vector, searcher.find(question.text, mode="hybrid", k=k, vector=vector))
            for question, vector in zip(asked, vectors, strict=True)), searcher)


def judged(question: Question, pool: Iterable[ScoredChunk]) -> dict[str, float | None]:
    """`MEASURES` of one pool; the answer None where there is none that a passage could hold."""
    chunks = [hit.chunk for hit in pool]
    gold, held = set(question.evidence), {chunk.doc_id for chunk in chunks}
    text = "\n".join(f"{chunk.title}\n{chunk.heading}\n{chunk.text}" for chunk in chunks)
    answer = answer_in_context(text, question.answers, every=question.all_answers_needed, language=question.language)
    return dict(zip(MEASURES, (float(gold <= held), len(gold & held) / len(gold), answer), strict=True))
