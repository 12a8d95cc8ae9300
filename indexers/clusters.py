"""Texts of a collection in clusters, each with a summary, for questions about all of them: what is stored and what it promises.

CRAG (Akesson and Santos 2024, arXiv:2406.00029): k-means over the vectors of many short texts about one thing, a summary of each
cluster, and the summaries as the only knowledge of the prompt. Everything here is made before any question is known.

A clustering has a name: the field that its groups are values of ("metadata.product": k-means runs in each group alone), or `WHOLE`
for one group of all texts. Members are rows of the store, which a chunk keeps for life and none gets again; so a deleted member is
told by its row, and what was written from it is not shown any more (`retrievers.clustered`).

    clusters_partition  k-means and the choice of k           clusters_extract  a summary of sentences of the members
    clusters_labels     words that tell clusters apart        clusters_store    the file
    clusters_build      building, and bringing up to date
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from indexers.encoders import Vectors
from indexers.segments import Numbers

WHOLE = "all"
# Of one summary, and of the summaries of one group, in the reader's tokens, where nobody says otherwise.
SUMMARY_TOKENS = 24
BUDGET = 128
# (row of a member, index of a sentence in its chunk)
Sentence = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """Texts that say alike things.

    `group`: the value of the field, "" in a clustering of everything. `number`: from 1, largest first when the group was divided.
    `rows`: the members, nearest to the centroid first. `summary`: what a model wrote, "" where none did; `by`: its name.
    `sentences`: the summary made of the members' own sentences, in the order to read; at least one. `written`: the rows that
    either was made from, ascending. `size`: how many members there were when they were made.
    """

    group: str
    number: int
    rows: Numbers
    centroid: Vectors
    labels: tuple[str, ...] = ()
    summary: str = ""
    by: str = ""
    sentences: tuple[Sentence, ...] = ()
    written: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    size: int = 0

    @property
    def method(self) -> str:
        """`llm` or `extractive`."""
        return "llm" if self.summary else "extractive"


@dataclass(frozen=True, slots=True)
class Group:
    """What is known of one group as a whole. `spread`: mean cosine distance of its texts to their centroid when it was divided, in
    [0, 2]; what it grows by is the drift. `outliers`: rows of the texts farthest from all centroids, farthest first. `texts`:
    documents in it."""

    value: str
    texts: int
    spread: float
    silhouette: float | None = None     # of the division, in [-1, 1]; None where there is one cluster
    outliers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a clustering is made.

    `k`: clusters in a group, None to choose. `budget`: tokens that the summaries of one group may take together, by which k is
    bounded. `tokens`: of one summary at most, in the reader's tokens. `llm`: whether a model writes the summaries, else they are
    made of sentences. `seed`: of k-means.
    """

    group_by: str = ""
    k: int | None = None
    budget: int = BUDGET
    tokens: int = SUMMARY_TOKENS
    llm: bool = False
    seed: int = 13

    @property
    def name(self) -> str:
        return self.group_by or WHOLE

    def to_dict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """One state. `snapshot`: what it was made of; `encoder`: whose vectors, the centroids mean nothing to another."""

    plan: Plan
    snapshot: str
    encoder: str
    built: str
    groups: Mapping[str, Group]
    clusters: tuple[Cluster, ...]       # by group, then number
    seconds: float = 0.0
    prompt_tokens: int = 0              # spent on summaries since it was first built
    completion_tokens: int = 0

    @property
    def name(self) -> str:
        return self.plan.name
