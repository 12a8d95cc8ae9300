"""Where searches run. Each backend ranks chunks of one snapshot by vector, by words and by weighted terms; deleted chunks and
those that a filter excludes are left out inside the search, so that `k` results come back whenever there are that many."""

from __future__ import annotations

from typing import Protocol

from indexers.encoders import Vectors
from indexers.impacts import Query
from indexers.snapshot import Snapshot
from rag.filters import Filter
from rag.settings import Settings
from retrievers import dense, sparse
from retrievers.bm25 import open_bm25
from retrievers.dense import Ranked
from retrievers.sparse_rows import weighed


class Backend(Protocol):
    def dense(self, vector: Vectors, *, k: int, where: Filter | None = None) -> Ranked:
        """Rows and cosines of the best `k` for a unit vector of shape (dimension,), best first; ties by row."""

    def lexical(self, question: str, *, k: int, where: Filter | None = None) -> Ranked:
        """Rows and BM25 scores of the best `k` that hold a word of the question, best first; ties by row."""

    def sparse(self, query: Query, *, k: int, where: Filter | None = None) -> Ranked:
        """Rows and scores of the best `k` whose term weights have a term of the query, best first; ties by row.

        Raises:
            SnapshotMismatch: the snapshot holds no term weights.
        """


class Local:
    """The index files of the snapshot itself: FAISS and one of the BM25 engines. Thread-safe."""

    def __init__(self, snapshot: Snapshot, *, engine: str) -> None:
        self._snapshot = snapshot
        self.bm25 = open_bm25(snapshot.segments, engine=engine)

    def dense(self, vector: Vectors, *, k: int, where: Filter | None = None) -> Ranked:
        return dense.search(self._snapshot.segments, vector, k=k, allowed=self._snapshot.allowed(where))

    def lexical(self, question: str, *, k: int, where: Filter | None = None) -> Ranked:
        return self.bm25.search(question, k=k, allowed=self._snapshot.allowed(where))

    def sparse(self, query: Query, *, k: int, where: Filter | None = None) -> Ranked:
        return sparse.search_segments(weighed(self._snapshot.segments), query, k=k, allowed=self._snapshot.allowed(where))


def open_backend(snapshot: Snapshot, local: Local, *, settings: Settings) -> Backend:
    """The backend that the settings name; `local` where they name none other.

    Raises:
        ConfigError, StorageError, UpstreamError: the other one cannot be used.
    """
    if settings.backend == "local":
        return local
    from retrievers.qdrant import QdrantBackend

    return QdrantBackend.open(snapshot, settings=settings)
