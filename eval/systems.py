"""The systems that `eval run` compares: on the same corpus, encoder, reader and, but for the peers, rendering.

    closed_book      the question alone: what the reader knows by heart
    gold             the gold passages, whole                                      (a ceiling, not bound by the budget)
    gold_sentences   only the sentences of the gold passages that bear an answer   (a ceiling, not bound by the budget)
    topk             rank-order fill of hybrid retrieval, the last chunk cut at a sentence; topk_dense, topk_bm25: of these
    topk_whole       the same without cutting: what most programs do; topk_dense_whole, topk_bm25_whole
    sentences        untrained choice of sentences by similarity
    mmr, knapsack, adagres, carrot     the literature's selectors
    greedy           greedy selection by utility per token
    lazy, beam, exact, mcts            searches for the set of sentences of the largest worth
    thrift           the default pipeline, whatever the settings make it
    thrift:second_look=off+candidates=12      the same with other settings, of those that one question may change: for ablations
    llamaindex, haystack, txtai        the real programs: see `eval.peers`

Baselines read whatever they retrieve: only ours may decline before reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Protocol

from eval.datasets import Question
from eval.metrics import contains, is_polar
from eval.reply import Reply, of_answer, of_prepared
from rag.errors import InputError
from rag.settings import Settings, changed
from rag.types import Answer, Chunk, Extract, Hit, IngestReport, Mode, OnProgress, Prepared

PEERS = ("llamaindex", "haystack", "txtai")
VARIED = "thrift:"
# An answer that crosses a sentence end is borne by up to this many neighbours together.
_WIDEST_BEARER = 3

Changes = Mapping[str, object]


class KnowledgeBase(Protocol):
    """What the evaluation asks of the pipeline's front (`rag.ThriftRAG`)."""

    def ingest(self, *, lines: Iterable[str], on_progress: OnProgress, cancelled: Callable[[], bool]) -> IngestReport: ...

    def ask(self, question: str, *, budget: int, changes: Changes | None = None) -> Answer: ...

    def context(self, question: str, *, budget: int, changes: Changes | None = None,
                extracts: Sequence[Extract] | None = None) -> Prepared: ...

    def search(self, query: str, *, mode: Mode, k: int) -> Sequence[Hit]: ...

    def answer_from(self, question: str, extracts: Sequence[Extract], *, budget: int) -> Answer: ...

    def chunks_of(self, document_ids: Sequence[str]) -> Sequence[Chunk]: ...

    def close(self) -> None: ...


class Answers(Protocol):
    def __call__(self, kb: KnowledgeBase, question: Question, *, budget: int, read: bool) -> Reply:
        """The reply; without `read` its context alone, and the reader is not asked."""


@dataclass(frozen=True, slots=True)
class System:
    """One way to answer. `bounded` ones get the run's budgets; the others once a budget that holds whatever they show.
    `reply` is None for a peer, which has an index of its own."""

    name: str
    bounded: bool
    reply: Answers | None


def ours(changes: Changes, kb: KnowledgeBase, question: Question, *, budget: int, read: bool) -> Reply:
    """The pipeline with some settings changed."""
    if read:
        return of_answer(kb.ask(question.text, budget=budget, changes=changes))
    return of_prepared(kb.context(question.text, budget=budget, changes=changes))


def given(choice: Callable[[KnowledgeBase, Question], Sequence[Extract]], kb: KnowledgeBase, question: Question, *,
          budget: int, read: bool) -> Reply:
    """Passages that are not retrieved but known."""
    extracts = choice(kb, question)
    if read:
        return of_answer(kb.answer_from(question.text, extracts, budget=budget))
    return of_prepared(kb.context(question.text, budget=budget, extracts=extracts))


def nothing(kb: KnowledgeBase, question: Question) -> Sequence[Extract]:
    return ()


def gold_passages(kb: KnowledgeBase, question: Question) -> list[Extract]:
    """In the order of the evidence and of the document. Without gold passages this is the closed book."""
    rank = {doc_id: place for place, doc_id in enumerate(question.evidence)}
    chunks = sorted(kb.chunks_of(question.evidence), key=lambda chunk: (rank[chunk.doc_id], chunk.ordinal))
    return [Extract(chunk, tuple(range(len(chunk.sentences)))) for chunk in chunks if chunk.sentences]


def gold_sentences(kb: KnowledgeBase, question: Question) -> Sequence[Extract]:
    """Whole gold passages where no sentence bears an answer, as for yes/no and computed answers."""
    passages = gold_passages(kb, question)
    return list(answer_bearing(passages, question)) or passages


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


def _baseline(name: str, *, selector: str, mode: Mode = "hybrid") -> System:
    return System(name, True, partial(ours, {"selector": selector, "mode": mode, "abstain_below": 0.0, "second_look": "off"}))


SYSTEMS: Mapping[str, System] = MappingProxyType({system.name: system for system in (
    System("closed_book", False, partial(given, nothing)),
    System("gold", False, partial(given, gold_passages)),
    System("gold_sentences", False, partial(given, gold_sentences)),
    _baseline("topk", selector="topk"),
    _baseline("topk_dense", selector="topk", mode="dense"),
    _baseline("topk_bm25", selector="topk", mode="bm25"),
    _baseline("topk_whole", selector="topk_whole"),
    _baseline("topk_dense_whole", selector="topk_whole", mode="dense"),
    _baseline("topk_bm25_whole", selector="topk_whole", mode="bm25"),
    *(_baseline(name, selector=name) for name in ("sentences", "mmr", "knapsack", "adagres", "carrot")),
    *(System(name, True, partial(ours, {"selector": name})) for name in ("greedy", "lazy", "beam", "exact", "mcts")),
    System("thrift", True, partial(ours, {})),
    *(System(name, True, None) for name in PEERS),
)})


def named(names: Sequence[str]) -> tuple[System, ...]:
    """The systems in the order given, each once.

    Raises:
        InputError: no name, or an unknown one; the hint lists those that are.
        ConfigError: a variant of `thrift` with a setting that there is not, that no question may change, or with a wrong value.
    """
    hint = f"There are: {', '.join(SYSTEMS)}; and {VARIED}SETTING=VALUE+..."
    if not names:
        raise InputError("No system is named.", hint=hint, field="systems", code="system_unknown")
    for name in names:
        if name not in SYSTEMS and not name.startswith(VARIED):
            raise InputError(f"The system {name!r} is unknown.", hint=hint, field="systems", code="system_unknown")
    return tuple(SYSTEMS.get(name) or _varied(name) for name in dict.fromkeys(names))


def _varied(name: str) -> System:
    changes = {}
    for part in name.removeprefix(VARIED).split("+"):
        setting, equals, value = part.partition("=")
        if not (setting and equals):
            raise InputError(f"{name!r} does not say which setting becomes what: {part!r}.", field="systems", code="system_unknown",
                             hint=f"Write it like {VARIED}second_look=off+candidates=12.")
        changes[setting] = value
    changed(Settings(), changes, where=name)
    return System(name, True, partial(ours, changes))
