"""How well each retrieval mode finds the gold documents, and how long a search takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eval.datasets import Dataset, Question
from eval.metrics import ndcg_at, ranked_documents, recall_at, reciprocal_rank, sufficiency_at
from eval.statistics import mean
from eval.systems import KnowledgeBase
from rag.errors import InputError
from rag.types import Mode, OnProgress, Progress, no_progress

MODES: tuple[Mode, ...] = ("bm25", "dense", "hybrid")
# Named in the contract of the command line.
_NOT_BUILT = frozenset({"sparse", "clustered"})
# Chunks that the ranking is made from. Documents may have several chunks, so ten documents need more than ten.
DEPTH = 100
# Documents looked at, and chunks asked for in the search that is timed: what a user asks for.
_K = 10


@dataclass(frozen=True, slots=True)
class ModeResult:
    """Means over `n` questions by document; `mrr` looks `DEPTH` chunks deep; `ms_p50`: median of a search for ten chunks."""

    mode: Mode
    n: int
    recall_at_10: float
    ndcg_at_10: float
    mrr: float
    ms_p50: float
    sufficiency_at_10: float

    def to_dict(self) -> dict[str, object]:
        """The contract's shape, which has no room for sufficiency."""
        return {"mode": self.mode, "n": self.n, "recall@10": round(self.recall_at_10, 6),
                "ndcg@10": round(self.ndcg_at_10, 6), "mrr": round(self.mrr, 6), "ms_p50": round(self.ms_p50, 3)}


def modes_named(names: Sequence[str]) -> tuple[Mode, ...]:
    """The modes in the order given, each once.

    Raises:
        InputError: none, or an unknown one.
    """
    hint = f"There are: {', '.join(MODES)}."
    if not names:
        raise InputError("No retrieval mode is named.", hint=hint, field="modes", code="mode_unknown")
    for name in names:
        if name not in MODES:
            what = "is not built yet" if name in _NOT_BUILT else "is unknown"
            raise InputError(f"The retrieval mode {name!r} {what}.", hint=hint, field="modes", code="mode_unknown")
    return tuple(mode for name in dict.fromkeys(names) for mode in MODES if mode == name)


def with_evidence(dataset: Dataset, *, limit: int | None) -> list[Question]:
    """The first `limit` questions whose gold documents are known.

    Raises:
        InputError: there is none.
    """
    found = [question for question in dataset.questions if question.evidence][:limit]
    if not found:
        raise InputError(f"No question of {dataset.name} names its evidence.", code="dataset_invalid",
                         hint="Retrieval can only be measured where the gold documents are known.")
    return found


def measure(questions: Sequence[Question], kb: KnowledgeBase, *, mode: Mode, note: str = "",
            on_progress: OnProgress = no_progress, cancelled: Callable[[], bool] = lambda: False,
            clock: Callable[[], float] = time.perf_counter) -> ModeResult | None:
    """None if `cancelled` before the end, because a part would not be comparable.

    Every question is searched twice: for ten chunks, by the clock, then deeper for the ranking. Before the first, one
    search loads the index, which no later one pays for.
    """
    kb.search(questions[0].text, mode=mode, k=_K)
    scores, times = [], []
    for done, question in enumerate(questions):
        if cancelled():
            return None
        on_progress(Progress(f"search {mode}", done, len(questions), unit="questions", note=note))
        began = clock()
        kb.search(question.text, mode=mode, k=_K)
        times.append(clock() - began)
        ranking = ranked_documents([hit.chunk.doc_id for hit in kb.search(question.text, mode=mode, k=DEPTH)])
        scores.append((recall_at(ranking, question.evidence, k=_K), ndcg_at(ranking, question.evidence, k=_K),
                       reciprocal_rank(ranking, question.evidence), sufficiency_at(ranking, question.evidence, k=_K)))
    recall, ndcg, mrr, sufficiency = (mean(column) or 0.0 for column in zip(*scores, strict=True))
    return ModeResult(mode=mode, n=len(questions), recall_at_10=recall, ndcg_at_10=ndcg, mrr=mrr,
                      sufficiency_at_10=sufficiency, ms_p50=1000 * float(np.median(times)))
