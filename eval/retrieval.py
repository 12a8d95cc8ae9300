"""How well each retrieval mode finds the gold documents, and how long a search takes.

Recall, nDCG, reciprocal rank and sufficiency are computed here, so that they need no further package; the first three equal
those of `ir-measures` (a test compares them). Any other measure that `ir-measures` knows (https://ir-measur.es) is computed
by it, under its own name, where the extra `eval` is installed. Rankings are of documents, gains 0 and 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from eval.datasets import SEED, Dataset, Question, sampled
from eval.metrics import ndcg_at, ranked_documents, recall_at, reciprocal_rank, sufficiency_at
from eval.statistics import mean
from eval.systems import KnowledgeBase
from rag.errors import ConfigError, InputError
from rag.types import Mode, OnProgress, Progress, no_progress

if TYPE_CHECKING:
    import ir_measures

MODES: tuple[Mode, ...] = ("bm25", "dense", "sparse", "hybrid")
# Named in the contract of the command line.
_NOT_BUILT = frozenset({"clustered"})
# Chunks that the ranking is made from. Documents may have several chunks, so ten documents need more than ten.
DEPTH = 100
# Documents looked at, and chunks asked for in the search that is timed: what a user asks for.
_K = 10


@dataclass(frozen=True, slots=True)
class ModeResult:
    """Means over `n` questions by document; `mrr` looks `DEPTH` chunks deep; `ms_p50`: median of a search for ten chunks.

    Sufficiency at k: how often all of the evidence is among the first k documents. `further`: measures asked for by name.
    """

    mode: Mode
    n: int
    recall_at_10: float
    ndcg_at_10: float
    mrr: float
    ms_p50: float
    sufficiency_at_10: float
    sufficiency_at_20: float
    further: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """The contract's shape, and after it what came to it."""
        return {"mode": self.mode, "n": self.n, "recall@10": round(self.recall_at_10, 6),
                "ndcg@10": round(self.ndcg_at_10, 6), "mrr": round(self.mrr, 6), "ms_p50": round(self.ms_p50, 3),
                "sufficiency@10": round(self.sufficiency_at_10, 6), "sufficiency@20": round(self.sufficiency_at_20, 6),
                **{name: round(value, 6) for name, value in self.further.items()}}


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


def with_evidence(dataset: Dataset, *, limit: int | None, seed: int = SEED) -> Sequence[Question]:
    """`limit` questions whose gold documents are known, drawn with `seed`; without a limit all of them.

    Raises:
        InputError: there is none.
    """
    found = sampled([question for question in dataset.questions if question.evidence], seed=seed)[:limit]
    if not found:
        raise InputError(f"No question of {dataset.name} names its evidence.", code="dataset_invalid",
                         hint="Retrieval can only be measured where the gold documents are known.")
    return found


def measures_named(names: Sequence[str]) -> tuple[ir_measures.measures.Measure, ...]:
    """Measures of `ir-measures` by their own names ("AP", "P@5", "Rprec"), in the order given, each once.

    Raises:
        ConfigError: `ir-measures` is not installed.
        InputError: it knows no measure of that name.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise ConfigError("Further retrieval measures need the package ir-measures, which is not installed.",
                          hint='pip install "thriftrag[eval]"', code="extra_missing") from error
    found = []
    for name in dict.fromkeys(names):
        try:
            measure = ir_measures.parse_measure(name)
        except (ValueError, NameError) as error:
            raise _unknown(name, str(error)) from error
        if not ir_measures.DefaultPipeline.supports(measure):  # type: ignore[no-untyped-call]
            raise _unknown(name, "no installed package computes it")
        found.append(measure)
    return tuple(found)


def _unknown(name: str, why: str) -> InputError:
    return InputError(f"The retrieval measure {name!r} cannot be used: {why}.", field="measures", code="measure_unknown",
                      hint="Use names as on https://ir-measur.es, for instance AP,P@5,Rprec.")


def means(rankings: Mapping[str, Sequence[str]], relevant: Mapping[str, Sequence[str]],
          measures: Sequence[ir_measures.measures.Measure]) -> dict[str, float]:
    """Each measure's mean over the questions (ids to rankings, best first, and to what is relevant), by its name."""
    import ir_measures

    judged = [ir_measures.Qrel(question, document, 1) for question, some in relevant.items() for document in some]
    # Scores that fall by rank: what comes first is best, and nothing ties.
    ranked = [ir_measures.ScoredDoc(question, document, -float(rank))
              for question, documents in rankings.items() for rank, document in enumerate(documents)]
    found = ir_measures.calc_aggregate(measures, judged, ranked)
    return {str(measure): float(found[measure]) for measure in measures}


def measure(questions: Sequence[Question], kb: KnowledgeBase, *, mode: Mode, note: str = "",
            further: Sequence[ir_measures.measures.Measure] = (), on_progress: OnProgress = no_progress,
            cancelled: Callable[[], bool] = lambda: False,
            clock: Callable[[], float] = time.perf_counter) -> ModeResult | None:
    """None if `cancelled` before the end, because a part would not be comparable. `further`: see `measures_named`.

    Every question is searched twice: for ten chunks, by the clock, then deeper for the ranking. Before the first, one
    search loads the index, which no later one pays for.
    """
    kb.search(questions[0].text, mode=mode, k=_K)
    rankings: dict[str, list[str]] = {}
    times = []
    for done, question in enumerate(questions):
        if cancelled():
            return None
        on_progress(Progress(f"search {mode}", done, len(questions), unit="questions", note=note))
        began = clock()
        kb.search(question.text, mode=mode, k=_K)
        times.append(clock() - began)
        rankings[question.id] = ranked_documents([hit.chunk.doc_id for hit in kb.search(question.text, mode=mode, k=DEPTH)])
    relevant = {question.id: question.evidence for question in questions}
    scores = [(recall_at(ranking, gold, k=_K), ndcg_at(ranking, gold, k=_K), reciprocal_rank(ranking, gold),
               sufficiency_at(ranking, gold, k=_K), sufficiency_at(ranking, gold, k=2 * _K))
              for ranking, gold in zip(rankings.values(), relevant.values(), strict=True)]
    recall, ndcg, mrr, sufficiency, deeper = (mean(column) or 0.0 for column in zip(*scores, strict=True))
    return ModeResult(mode=mode, n=len(questions), recall_at_10=recall, ndcg_at_10=ndcg, mrr=mrr,
                      sufficiency_at_10=sufficiency, sufficiency_at_20=deeper, ms_p50=1000 * float(np.median(times)),
                      further=means(rankings, relevant, further) if further else {})
