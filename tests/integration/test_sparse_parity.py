"""Other engines over the same impacts: Lucene through Anserini's SimpleImpactSearcher, Qdrant's sparse vectors on the client's own
imitation and on the embedded shard. The same scores, and the same best ten up to ties, as our own search.

Weights are those of BM25 over the words of the sample, so that they have the spread of real texts.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from eval import datasets
from indexers import lexical, sparse_export
from indexers.impacts import Impacts, Query
from indexers.sparse import SparseIndex
from indexers.sparse_export import json_vectors, lucene_index, query_terms, terms, to_qdrant, whole_weights
from rag.errors import InputError, SnapshotCorrupt, StorageError
from retrievers.sparse import search
from retrievers.sparse_lucene import LuceneImpacts
from tests.conftest import SAMPLE
from tests.sparse_fakes import index_of, passage, query

pytestmark = pytest.mark.filterwarnings("ignore:Local mode")
K1, B = 1.2, 0.75


@dataclass(frozen=True)
class World:
    """An index of real texts. `tokens`: the words; `queries`: of questions, with whole weights."""

    index: SparseIndex
    tokens: list[str]
    queries: list[Query]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    data = datasets.load(SAMPLE)
    bags = [Counter(lexical.words(f"{each.title}\n{each.text}")) for each in data.passages]
    tokens = sorted({word for bag in bags for word in bag})
    number = {word: at for at, word in enumerate(tokens)}
    mean = sum(bag.total() for bag in bags) / len(bags)
    holding = Counter(word for bag in bags for word in bag)

    def weights(bag: Counter[str]) -> Impacts:
        norm = K1 * (1 - B + B * bag.total() / mean)
        return passage(*sorted((number[word], times / (times + norm)) for word, times in bag.items()))

    def asked(text: str) -> Query:
        """Ten times the idf, rounded: whole weights, which all engines add up exactly."""
        found = {number[word] for word in lexical.words(text) if word in number}
        return query(*((at, float(max(1, round(10 * math.log(1 + len(bags) / holding[tokens[at]]))))) for at in sorted(found)))

    index = index_of(tmp_path_factory.mktemp("parity") / "index", [*map(weights, bags), weights(Counter())],
                     vocabulary=len(tokens), scale=1.0)
    return World(index, tokens, [asked(question.text) for question in data.questions])


def same_ten(world: World, ask: Callable[[Query], Sequence[tuple[int, float]]], *, unit: float = 1 / 255) -> None:
    """`ask`: positions and scores of the best ten, in whole numbers times anything; `unit`: what a score of 1 is of ours."""
    compared = 0
    for asked in world.queries:
        found, everything = ask(asked), dict(search(world.index, asked, k=world.index.size))
        expected = search(world.index, asked, k=10)
        assert [score * unit for _, score in found] == pytest.approx([score for _, score in expected], rel=1e-6)
        for position, score in found:
            assert everything[position] == pytest.approx(score * unit, rel=1e-6)
        clear = [at for at, score in expected if score > expected[-1][1]]
        assert set(clear) <= {at for at, _ in found}
        compared += len(expected)
    assert compared > 5 * len(world.queries)


@pytest.fixture(scope="module")
def lucene(world: World, tmp_path_factory: pytest.TempPathFactory) -> LuceneImpacts:
    source, target = tmp_path_factory.mktemp("vectors"), tmp_path_factory.mktemp("lucene") / "index"
    json_vectors(source, world.index, ids=[f"p{at}" for at in range(world.index.size)], tokens=world.tokens)
    assert lucene_index(source, target) == world.index.size - 1     # all but the one without a token
    return LuceneImpacts(target, tokens=world.tokens)


def test_lucene_finds_the_same_with_the_same_scores(world: World, lucene: LuceneImpacts) -> None:
    def ask(asked: Query) -> list[tuple[int, float]]:
        factor = next(iter(whole_weights(asked).values())) / asked[1][0]
        assert list(whole_weights(asked).values()) == (asked[1] * factor).tolist()
        return [(int(id[1:]), score / float(factor)) for id, score in lucene.search(asked, k=10)]

    same_ten(world, ask)


def test_lucene_finds_nothing_where_nothing_is(world: World, lucene: LuceneImpacts) -> None:
    assert lucene.search(query(), k=10) == []
    assert lucene.search(world.queries[0], k=0) == []


def test_qdrant_finds_the_same_with_the_same_scores(world: World) -> None:
    client = QdrantClient(":memory:")
    assert to_qdrant(client, world.index, name="parity", ids=range(world.index.size)) == world.index.size

    def ask(asked: Query) -> list[tuple[int, float]]:
        wanted = query_terms(asked)
        found = client.query_points("parity", using=sparse_export.SPARSE, limit=10, query=models.SparseVector(
            indices=wanted.ids.tolist(), values=wanted.weights.tolist())).points
        return [(int(point.id), point.score) for point in found]

    same_ten(world, ask)


def test_the_embedded_shard_finds_the_same_with_the_same_scores(world: World, tmp_path: Path) -> None:
    import qdrant_edge as edge

    name = sparse_export.SPARSE
    shard = edge.EdgeShard.create(str(tmp_path), edge.EdgeConfig(vectors={}, sparse_vectors={name: edge.EdgeSparseVectorParams()}))
    vectors = [edge.SparseVector(indices=each.ids.tolist(), values=each.weights.tolist()) for each in terms(world.index)]
    points = [edge.Point(id=at, payload={}, vector={name: vector}) for at, vector in enumerate(vectors)]
    shard.update(edge.UpdateOperation.upsert_points(points))

    def ask(asked: Query) -> list[tuple[int, float]]:
        wanted = query_terms(asked)
        nearest = edge.Query.Nearest(edge.SparseVector(indices=wanted.ids.tolist(), values=wanted.weights.tolist()), using=name)
        return [(int(point.id), point.score) for point in shard.query(edge.QueryRequest(limit=10, query=nearest))]

    same_ten(world, ask)
    shard.close()


def test_only_kept_passages_are_exported_under_their_ids(world: World, tmp_path: Path) -> None:
    keep = np.asarray([2, 5, 7])
    path = json_vectors(tmp_path, world.index, ids=["b", "é", "h"], tokens=world.tokens, keep=keep)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["b", "é", "h"]
    tokens, weights = world.index.passage(5)
    assert lines[1]["vector"] == {world.tokens[token]: round(255 * weight)
                                  for token, weight in zip(tokens, weights.tolist(), strict=True)}
    client = QdrantClient(":memory:")
    assert to_qdrant(client, world.index, name="kept", ids=[20, 50, 70], keep=keep) == 3
    assert sorted(point.id for point in client.scroll("kept")[0]) == [20, 50, 70]


def test_exports_refuse_what_cannot_be_theirs(tmp_path: Path) -> None:
    index = index_of(tmp_path / "index", [passage((1, 1.0)), passage((2, 1.0))], vocabulary=3)
    with pytest.raises(InputError, match="1 ids and 3 tokens were given for 2 passages and a vocabulary of 3"):
        json_vectors(tmp_path, index, ids=["a"], tokens=["x", "y", "z"])
    with pytest.raises(InputError, match="2 ids and 2 tokens"):
        json_vectors(tmp_path, index, ids=["a", "b"], tokens=["x", "y"])
    (tmp_path / "one").mkdir()
    with pytest.raises(InputError, match="Token 2 of passage 'b'"):
        json_vectors(tmp_path / "one", index, ids=["a", "b"], tokens=["x", "y", "z z"])
    (tmp_path / "two").mkdir()
    json_vectors(tmp_path / "two", index, ids=["a", "b"], tokens=["", "y", "z"])     # no passage has the odd one
    with pytest.raises(SnapshotCorrupt, match="cannot be read by Lucene"):
        LuceneImpacts(tmp_path / "two", tokens=["", "y", "z"])
    with pytest.raises(StorageError, match="nowhere"):
        lucene_index(tmp_path / "nowhere", tmp_path / "lucene")


def test_query_weights_become_whole_numbers_that_single_precision_adds_up() -> None:
    assert whole_weights(query((9, 1.0), (4, 0.5), (7, 2.5))) == {9: 16384, 4: 8192, 7: 40960}
    assert whole_weights(query((9, 1e9), (4, 1e-9))) == {9: whole_weights(query((9, 1e9)))[9], 4: 1}
    assert whole_weights(query()) == {}
    many = np.arange(3000, dtype=np.int32), np.random.default_rng(1).gamma(0.1, 1, 3000).astype(np.float32) + np.float32(1e-9)
    assert 0 < sum(whole_weights(many).values()) * 255 < 2**24
