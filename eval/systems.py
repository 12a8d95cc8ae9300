"""The systems that `eval run` compares: all through our pipeline, on the same corpus, encoder, reader and rendering.

    closed_book      the question alone: what the reader knows by heart
    gold             the gold passages, whole                                      (a ceiling, not bound by the budget)
    gold_sentences   only the sentences of the gold passages that bear an answer   (a ceiling, not bound by the budget)
    topk             rank-order fill, the last chunk cut at a sentence
    sentences        untrained choice of sentences by similarity
    greedy           greedy selection by utility per token
    thrift           the default pipeline, whatever the settings make it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from eval.datasets import Question
from eval.metrics import contains, is_polar
from rag.errors import InputError
from rag.types import Answer, Chunk, Extract, Hit, IngestReport, Mode, OnProgress

# Named in the contract of `eval run`, so that a typing error and a missing system read differently.
_NOT_BUILT = frozenset({"topk_whole", "mmr", "knapsack", "adagres", "carrot", "beam", "exact", "mcts",
                        "llamaindex", "haystack", "txtai"})
# An answer that crosses a sentence end is borne by up to this many neighbours together.
_WIDEST_BEARER = 3


class KnowledgeBase(Protocol):
    """What the evaluation asks of the pipeline's front (`rag.ThriftRAG`)."""

    def ingest(self, *, lines: Iterable[str], on_progress: OnProgress, cancelled: Callable[[], bool]) -> IngestReport: ...

    def ask(self, question: str, *, budget: int, selector: str | None = None) -> Answer: ...

    def search(self, query: str, *, mode: Mode, k: int) -> Sequence[Hit]: ...

    def answer_from(self, question: str, extracts: Sequence[Extract], *, budget: int) -> Answer: ...

    def chunks_of(self, document_ids: Sequence[str]) -> Sequence[Chunk]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class System:
    """One way to answer. `bounded` ones get the run's budgets; the others once a budget that holds whatever they show."""

    name: str
    bounded: bool
    answer: Callable[[KnowledgeBase, Question, int], Answer]


def closed_book(kb: KnowledgeBase, question: Question, budget: int) -> Answer:
    return kb.answer_from(question.text, (), budget=budget)


def gold(kb: KnowledgeBase, question: Question, budget: int) -> Answer:
    """In the order of the evidence and of the document. Without gold passages this is the closed book."""
    return kb.answer_from(question.text, gold_passages(kb, question), budget=budget)


def gold_sentences(kb: KnowledgeBase, question: Question, budget: int) -> Answer:
    """Whole gold passages where no sentence bears an answer, as for yes/no and computed answers."""
    passages = gold_passages(kb, question)
    return kb.answer_from(question.text, list(answer_bearing(passages, question)) or passages, budget=budget)


def gold_passages(kb: KnowledgeBase, question: Question) -> list[Extract]:
    rank = {doc_id: place for place, doc_id in enumerate(question.evidence)}
    chunks = sorted(kb.chunks_of(question.evidence), key=lambda chunk: (rank[chunk.doc_id], chunk.ordinal))
    return [Extract(chunk, tuple(range(len(chunk.sentences)))) for chunk in chunks if chunk.sentences]


def answer_bearing(passages: Sequence[Extract], question: Question) -> Iterator[Extract]:
    """The passages cut down to the sentences that hold an answer; passages without any are left out."""
    if is_polar(question.answers):
        return
    for passage in passages:
        kept = _bearers(passage.chunk, question)
        if kept:
            yield Extract(passage.chunk, kept)


def _bearers(chunk: Chunk, question: Question) -> tuple[int, ...]:
    """Indexes of the sentences that hold an answer: alone if any does, else the shortest runs that do together."""
    count = len(chunk.sentences)
    for width in range(1, min(_WIDEST_BEARER, count) + 1):
        runs = [range(first, first + width) for first in range(count - width + 1)
                if contains(_run_text(chunk, first, width), question.answers, language=question.language)]
        if runs:
            return tuple(sorted({index for run in runs for index in run}))
    return ()


def _run_text(chunk: Chunk, first: int, width: int) -> str:
    return chunk.text[chunk.sentences[first][0]:chunk.sentences[first + width - 1][1]]


def _with_selector(name: str) -> System:
    return System(name, True, lambda kb, question, budget: kb.ask(question.text, budget=budget, selector=name))


SYSTEMS: Mapping[str, System] = MappingProxyType({system.name: system for system in (
    System("closed_book", False, closed_book),
    System("gold", False, gold),
    System("gold_sentences", False, gold_sentences),
    _with_selector("topk"),
    _with_selector("sentences"),
    _with_selector("greedy"),
    System("thrift", True, lambda kb, question, budget: kb.ask(question.text, budget=budget)),
)})


def named(names: Sequence[str]) -> tuple[System, ...]:
    """The systems in the order given, each once.

    Raises:
        InputError: no name, or one that is not built; the hint lists those that are.
    """
    hint = f"There are: {', '.join(SYSTEMS)}."
    if not names:
        raise InputError("No system is named.", hint=hint, field="systems", code="system_unknown")
    for name in names:
        if name not in SYSTEMS:
            what = "is not built yet" if name in _NOT_BUILT else "is unknown"
            raise InputError(f"The system {name!r} {what}.", hint=hint, field="systems", code="system_unknown")
    return tuple(SYSTEMS[name] for name in dict.fromkeys(names))
