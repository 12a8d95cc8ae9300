"""How good rankings of chunks are, by document, and how ways differ over the same questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from eval.metrics import ndcg_at, ranked_documents, recall_at
from eval.origins.chunked import Chunked
from eval.origins.scored import Rows
from eval.statistics import Interval, macro_mean, mean

K = 10
MEASURES = ("nDCG@10", "recall@10")


@dataclass(frozen=True, slots=True)
class Judged:
    """A value for each question, in their order, by measure."""

    values: Mapping[str, Sequence[float]]

    def mean(self, measure: str) -> float:
        return mean(self.values[measure]) or 0.0

    def only(self, places: Sequence[int]) -> Judged:
        """Of some questions."""
        return Judged({name: [values[place] for place in places] for name, values in self.values.items()})


def judged(chunks: Chunked, rank: Callable[[int], Rows]) -> Judged:
    """`rank`: the chunks for the question of that number, best first."""
    found: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for number, question in enumerate(chunks.questions):
        documents = ranked_documents([chunks.documents[row] for row in rank(number).tolist()])
        found["nDCG@10"].append(ndcg_at(documents, question.evidence, k=K))
        found["recall@10"].append(recall_at(documents, question.evidence, k=K))
    return Judged(found)


def macro(sets: Sequence[Judged], measure: str, *, seed: int) -> tuple[float, Interval] | None:
    """Mean of the sets' means with its bootstrap interval; None of no sets."""
    return macro_mean([each.values[measure] for each in sets], seed=seed)


def difference(first: Sequence[Judged], second: Sequence[Judged], measure: str, *, seed: int) -> tuple[float, Interval] | None:
    """Macro mean of first - second, paired by question, with its interval."""
    return macro_mean([[one - other for one, other in zip(a.values[measure], b.values[measure], strict=True)]
                       for a, b in zip(first, second, strict=True)], seed=seed)
