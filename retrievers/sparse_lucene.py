"""Search in a Lucene index of impacts that `indexers.sparse_export` had Anserini make, through its `SimpleImpactSearcher`.

It ranks as `retrievers.sparse` does, up to ties, which Lucene breaks by id, if the query's weights are whole numbers. All searches
of a process take turns: see `indexers.lucene_jvm`.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from indexers.impacts import Query
from indexers.lucene_jvm import bridge, java, keep, kept, later, let_go, on_java
from indexers.sparse_export import whole_weights
from rag.errors import SnapshotCorrupt


class LuceneImpacts:
    """An opened index; thread-safe. `tokens`: the text of each token of the vocabulary, as the vectors were written with.

    Raises:
        ConfigError: Java or pyserini is missing. SnapshotCorrupt: Lucene cannot read the folder.
    """

    def __init__(self, folder: Path, *, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._ticket = on_java(partial(_open, folder))
        weakref.finalize(self, later, partial(_close, self._ticket)).atexit = False  # then the process frees all it has

    def search(self, query: Query, *, k: int) -> list[tuple[str, float]]:
        """Ids and scores of the best `k` passages with a token of the query, best first. Weights go to Lucene as
        `whole_weights`, and a score is the sum of those times the impacts."""
        weights = {self._tokens[token]: weight for token, weight in whole_weights(query).items()}
        if not weights or k < 1:
            return []
        return on_java(partial(_search, self._ticket, weights, k))


def _open(folder: Path) -> int:
    failure = bridge().JavaException
    try:
        return keep(java("io.anserini.search.SimpleImpactSearcher")(str(folder)))
    except failure as error:
        raise SnapshotCorrupt(f"{folder} cannot be read by Lucene: {error}.", hint="Export the collection again.") from error


def _close(ticket: int) -> None:
    let_go(ticket).close()


def _search(ticket: int, weights: dict[str, int], k: int) -> list[tuple[str, float]]:
    number = java("java.lang.Integer")
    query = java("java.util.HashMap")()
    for token, weight in weights.items():
        query.put(token, number(weight))
    return [(hit.docid, float(hit.score)) for hit in kept(ticket).search(query, k)]
