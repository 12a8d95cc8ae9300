"""An impact index for other engines: Anserini's `JsonVectorCollection` and the Lucene index made from it, Qdrant sparse vectors.

Both hold the impacts as they are, 1 to 255, so the inner product with whole query weights is the same number everywhere, as long
as single precision, which both engines add in, holds it: sums of query weights up to 65,793. A score here is that number
times scale / 255. Lucene is given impacts as term frequencies and scored without lengths (Anserini's `-impact -pretokenized`);
`retrievers.sparse_lucene` searches it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from indexers.impacts import Query
from indexers.lucene_jvm import bridge, java, on_java
from indexers.qdrant_terms import Terms
from indexers.sparse import SparseIndex
from rag.errors import InputError, StorageError

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

VECTORS = "vectors.jsonl"
SPARSE = "sparse"
# Whole query weights of this sum give scores that single precision holds.
QUERY_SUM = 65_793
_BUFFER_MB = 128
_POINTS = 256

Positions = NDArray[np.int64]


def json_vectors(folder: Path, index: SparseIndex, *, ids: Sequence[str], tokens: Sequence[str],
                 keep: Positions | None = None) -> Path:
    """Writes `folder / VECTORS`, a line {"id", "contents", "vector"} for each passage at the positions `keep` (ascending; None:
    all), which have these `ids` in order. `tokens`: the text of each token of the vocabulary. The folder holds none yet.

    Raises:
        InputError: other numbers of ids or tokens than of passages or vocabulary, or a token of a passage that is empty or
            holds white space, at which Lucene splits.
    """
    count = index.size if keep is None else len(keep)
    if len(ids) != count or len(tokens) != index.vocabulary:
        raise InputError(f"{len(ids)} ids and {len(tokens)} tokens were given for {count} passages and a vocabulary of "
                         f"{index.vocabulary}.", hint="Give an id for each passage and the text of every token.")
    path, odd = folder / VECTORS, {number for number, token in enumerate(tokens) if token.split() != [token]}
    with path.open("x", encoding="utf-8") as stream:
        for id, (held, impacts) in zip(ids, _passages(index, keep), strict=True):
            if odd and not odd.isdisjoint(held):
                raise InputError(f"Token {min(odd.intersection(held))} of passage {id!r} is empty or holds white space.",
                                 hint="Lucene needs tokens without white space: give such ones another text.")
            vector = {tokens[token]: impact for token, impact in zip(held, impacts, strict=True)}
            stream.write(json.dumps({"id": id, "contents": "", "vector": vector}) + "\n")
    return path


def lucene_index(source: Path, target: Path) -> int:
    """Has Anserini make the Lucene index `target` from the folder `source` of vectors; how many passages it holds.
    Anserini leaves those without tokens out.

    Raises:
        ConfigError: Java or pyserini is missing. StorageError: Anserini could not make it.
    """
    return on_java(partial(_indexed, source, target))


def terms(index: SparseIndex, keep: Positions | None = None) -> Iterator[Terms]:
    """The impacts of each passage as a sparse vector for Qdrant, in order of position."""
    for tokens, impacts in _passages(index, keep):
        yield Terms(np.asarray(tokens, np.uint32), np.asarray(impacts, np.float32))


def query_terms(query: Query) -> Terms:
    order = np.argsort(query[0])
    return Terms(query[0][order].astype(np.uint32), query[1][order].astype(np.float32))


def whole_weights(query: Query) -> dict[int, int]:
    """The query's weights as whole numbers, at least 1, that Lucene takes and adds up exactly: the largest power of two
    is used that keeps their sum within `QUERY_SUM`, so weights that are whole or halves and quarters keep their proportions."""
    ids, weights = query[0], query[1].astype(np.float64)
    if not len(ids):
        return {}
    power = np.floor(np.log2((QUERY_SUM - len(ids)) / weights.sum()))
    whole = np.maximum(np.rint(weights * 2.0**power), 1).astype(np.int64)
    return dict(zip(ids.tolist(), whole.tolist(), strict=True))


def to_qdrant(client: QdrantClient, index: SparseIndex, *, name: str, ids: Iterable[int], keep: Positions | None = None) -> int:
    """Makes the Qdrant collection `name`, which must not exist, with a sparse vector `SPARSE` for each passage at the positions
    `keep` (None: all) under these ids, in order; how many there are."""
    from qdrant_client import models

    client.create_collection(name, vectors_config={}, sparse_vectors_config={SPARSE: models.SparseVectorParams()})
    points = (models.PointStruct(id=id, payload={}, vector={SPARSE: models.SparseVector(indices=each.ids.tolist(),
                                                                                        values=each.weights.tolist())})
              for id, each in zip(ids, terms(index, keep), strict=True))
    sent = 0
    while some := list(itertools.islice(points, _POINTS)):
        client.upsert(name, points=some, wait=True)
        sent += len(some)
    return sent


def _passages(index: SparseIndex, keep: Positions | None) -> Iterator[tuple[list[int], list[int]]]:
    """Tokens and impacts of each passage."""
    for bag in index.bags(keep):
        ends = np.concatenate([[0], np.cumsum(bag.counts)]).tolist()
        tokens, impacts = bag.tokens.tolist(), bag.impacts.tolist()
        for start, end in itertools.pairwise(ends):
            yield tokens[start:end], impacts[start:end]


def _indexed(source: Path, target: Path) -> int:
    failure = bridge().JavaException
    chosen = java("io.anserini.index.IndexCollection$Args")()
    chosen.collectionClass, chosen.generatorClass = "JsonVectorCollection", "DefaultLuceneDocumentGenerator"
    chosen.input, chosen.index = str(source), str(target)
    chosen.impact = chosen.pretokenized = chosen.quiet = True
    chosen.threads, chosen.memoryBuffer = 1, _BUFFER_MB
    try:
        java("io.anserini.index.IndexCollection")(chosen).run()
        directory = java("org.apache.lucene.store.FSDirectory").open(java("java.io.File")(str(target)).toPath())
        reader = java("org.apache.lucene.index.DirectoryReader").open(directory)
    except failure as error:
        raise StorageError(f"Anserini could not index {source} into {target}: {error}.",
                           hint="Check that the folder holds the vectors and nothing else, and that the disk has room.") from error
    try:
        return int(reader.numDocs())
    finally:
        reader.close()
