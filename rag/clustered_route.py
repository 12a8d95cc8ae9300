"""Where the pipeline takes the way by cluster summaries: for questions about all texts, in collections that have clusters.

A file of clusters that cannot be read costs no answer: the question goes the ordinary way, and the trace says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from indexers.encoders import Vectors
from optimizers.coverage import choose_by_coverage
from optimizers.pool import Selector
from rag.errors import SnapshotError
from rag.filters import Filter
from rag.settings import Settings
from rag.types import ScoredChunk
from retrievers import overall
from retrievers.clustered import Clustered, Summaries, in_words


@dataclass(frozen=True, slots=True)
class Routed:
    """`summaries`: the candidates, None where the question goes the ordinary way. `nearest`: the best cosine of the passages that
    ordinary search found. `all_they_say`: the question has no topic of its own, so nothing can be beside it."""

    summaries: Summaries | None = None
    nearest: float = 0.0
    all_they_say: bool = False
    facts: Mapping[str, object] = field(default_factory=dict)


ORDINARY = Routed()


def possible(clusters: Clustered | None, settings: Settings) -> bool:
    """Whether any question could be answered from summaries."""
    return clusters is not None and settings.clustered != "off" and clusters.there


def asks_of_all(clusters: Clustered | None, question: str, settings: Settings) -> bool:
    """Whether a question has the form of those that may be answered from summaries, where there are any."""
    return possible(clusters, settings) and (settings.clustered == "always" or overall.form_of(question) != "none")


def state(clusters: Clustered | None, settings: Settings) -> tuple[object, ...]:
    """What decides about the way, beside the question."""
    if clusters is None or not possible(clusters, settings):
        return (settings.clustered,)
    try:
        return settings.clustered, clusters.revision()
    except SnapshotError as error:
        return settings.clustered, error.message


def routed(clusters: Clustered | None, question: str, found: Sequence[ScoredChunk], *, vector: Vectors, where: Filter | None,
           settings: Settings) -> Routed:
    """`found`: what hybrid search found, with cosines."""
    if clusters is None or not possible(clusters, settings):
        return ORDINARY
    cosines = [hit.origins["dense"] for hit in found if "dense" in hit.origins]
    verdict = overall.judged(question, cosines)
    if settings.clustered == "auto" and not verdict.whole:
        return Routed(facts={"clustered": {"route": "passages", **verdict.to_dict()}})
    try:
        summaries = clusters.find(question, vector=vector, where=where, k=settings.candidates)
    except SnapshotError as error:
        return Routed(facts={"clustered": {"route": "passages", **verdict.to_dict(), "note": in_words(error)}})
    if summaries is None:
        note = "no cluster has a text that may be searched"
        return Routed(facts={"clustered": {"route": "passages", **verdict.to_dict(), "note": note}})
    return Routed(summaries, max(cosines, default=0.0), not verdict.topic,
                  {"clustered": {"route": "summaries", **verdict.to_dict(), **summaries.facts()}})


def selector(found: Routed) -> Selector:
    """How summaries are chosen, whatever the setting `selector` says of passages."""
    quotes = found.summaries.quotes if found.summaries else frozenset()
    return partial(choose_by_coverage, quotes=quotes)
