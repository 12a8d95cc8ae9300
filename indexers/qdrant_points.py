"""What a Qdrant collection holds for us and the few things we ask of one: the same for a server, a cluster and an embedded shard.

A point stands for one chunk: its id is the chunk's row, `dense` its unit vector, `sparse` its term weights, and its payload the
filterable fields of its document. Text stays in the store. Conditions are written as Qdrant's REST API writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from indexers.encoders import Vectors
from indexers.qdrant_terms import Terms

DENSE = "dense"
SPARSE = "sparse"
ROW = "row"
GENERATION = "generation"
# Documents of one tenant are kept together where a server can.
TENANT_PATH = 'string."metadata.tenant"'

Rows = NDArray[np.int64]
Condition = Mapping[str, object]
Payload = Mapping[str, object]
# How much more is looked at by quantised vectors before the best are scored by the stored ones.
OVERSAMPLING = {"scalar": 2.0, "binary": 4.0}


@dataclass(frozen=True, slots=True)
class Point:
    """One chunk, or the record of what the mirror holds, which has no vectors."""

    id: int
    payload: Payload
    dense: Vectors | None = None
    sparse: Terms | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """What was fixed when the collection was created; `distance` in lower case."""

    dimension: int
    distance: str


class Points(Protocol):
    """One Qdrant collection. Calls are synchronous: what was written is found by the next call. Safe for several threads.

    Raises, from every method:
        UpstreamError: the server cannot be reached, is too slow, or refuses; after retries where those may help.
        StorageError, SnapshotCorrupt: the embedded shard cannot be written or read.
    """

    name: str

    def patient(self) -> AbstractContextManager[None]:
        """Inside, this thread's calls are worth waiting for, half a minute and more; outside, somebody waits for an answer."""

    def shape(self) -> Shape | None:
        """None where there is no such collection."""

    def create(self, dimension: int) -> None:
        """An empty collection; does nothing where it exists."""

    def index(self, path: str, kind: str) -> None:
        """A payload index of kind string, integer or number; does nothing where it exists."""

    def upsert(self, points: Sequence[Point]) -> None: ...

    def delete(self, rows: Sequence[int]) -> None:
        """Those that are not there are ignored."""

    def payload(self, id: int) -> Payload | None: ...

    def rows(self, where: Condition) -> Rows:
        """Ids of all matching points, ascending."""

    def count(self, where: Condition) -> int: ...

    def search(self, query: Vectors | Terms, *, limit: int, where: Condition | None) -> list[tuple[int, float]]:
        """Ids and scores by inner product, best first: `dense` for a vector, `sparse` with inverse document frequency for terms."""

    def settle(self) -> None:
        """Makes what was written durable and builds the search graphs that are due."""

    def drop(self) -> None:
        """Removes the collection and all it holds; does nothing where there is none."""

    def close(self) -> None: ...


def between(first: int, last: int | None) -> Condition:
    """Points of chunks in rows `first` to `last`, both included; None: to the end."""
    bounds = {"gte": float(first)} if last is None else {"gte": float(first), "lte": float(last)}
    return {"must": [{"key": ROW, "range": bounds}]}
