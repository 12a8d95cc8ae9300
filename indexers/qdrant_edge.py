"""Points in an embedded shard, through qdrant-edge-py. One process at a time; its threads share the open shard.

What `upsert` and `delete` wrote is in the shard's log when they return and survives a kill. Search graphs are built by another
process in a copy of the shard, which then takes its place: searches go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from indexers.encoders import Vectors
from indexers.qdrant_home import FOLDER, ShardHome, home_of, reported
from indexers.qdrant_points import DENSE, OVERSAMPLING, SPARSE, TENANT_PATH, Condition, Payload, Point, Rows, Shape, between
from indexers.qdrant_terms import Terms
from rag.errors import ConfigError
from rag.settings import Settings

if TYPE_CHECKING:
    import qdrant_edge

DISTANCE = "dot"
# How long another process may take to be done, in seconds, before it is named.
PATIENCE_S = 5.0
# Rows without a graph are compared one by one: built when they are this many bytes and this share of all.
GRAPHS_FROM_BYTES = 10_000_000
GRAPHS_FROM_SHARE = 0.2
_PAGE = 10_000


class EdgePoints:
    """The shard of one collection; see `indexers.qdrant_points.Points`. Opened by the first call that needs it.

    Raises also, from every method:
        Locked: another process has the shard open; the message names it.
        ConfigError: qdrant-edge-py is not installed.
    """

    def __init__(self, folder: Path, *, settings: Settings, name: str, patience_s: float = PATIENCE_S) -> None:
        _require()
        self.name = name
        self._home = home_of(folder / FOLDER)
        self._quantization = settings.qdrant_quantization
        self._patience_s = patience_s

    def patient(self) -> AbstractContextManager[None]:
        return nullcontext()

    def shape(self) -> Shape | None:
        current = self._home.current()
        return None if current is None else Shape(current.dimension, DISTANCE)

    def create(self, dimension: int) -> None:
        with self._home.mutex:
            if self._home.current() is None:
                self._home.lock(self._patience_s)
                self._home.create(_config(dimension, self._quantization), dimension)

    def index(self, path: str, kind: str) -> None:
        import qdrant_edge as edge

        schemas: dict[str, edge.PayloadSchemaParams] = {"string": edge.KeywordIndexParams(is_tenant=path == TENANT_PATH),
                   "integer": edge.IntegerIndexParams(lookup=True, range=True),
                   "number": edge.FloatIndexParams()}
        self._update(edge.UpdateOperation.create_field_index(path, schemas[kind]))

    def upsert(self, points: Sequence[Point]) -> None:
        import qdrant_edge as edge

        self._home.check_space()
        self._update(edge.UpdateOperation.upsert_points(
            [edge.Point(id=point.id, vector=_vectors(point), payload=dict(point.payload)) for point in points]))

    def delete(self, rows: Sequence[int]) -> None:
        import qdrant_edge as edge

        for start in range(0, len(rows), _PAGE):
            self._update(edge.UpdateOperation.delete_points([int(row) for row in rows[start:start + _PAGE]]))

    def payload(self, id: int) -> Payload | None:
        with self._opened() as shard:
            found = shard.retrieve([id], True, False)
        return found[0].payload or {} if found else None

    def rows(self, where: Condition) -> Rows:
        import qdrant_edge as edge

        found: list[int] = []
        offset: edge.PointId | None = None
        while True:
            with self._opened() as shard:
                records, offset = shard.scroll(edge.ScrollRequest(offset=offset, limit=_PAGE, filter=_filter(where),
                                                                  with_payload=False, with_vector=False))
            found.extend(cast(int, record.id) for record in records)
            if offset is None:
                return np.sort(np.asarray(found, np.int64))

    def count(self, where: Condition) -> int:
        import qdrant_edge as edge

        with self._opened() as shard:
            return shard.count(edge.CountRequest(exact=True, filter=_filter(where)))

    def search(self, query: Vectors | Terms, *, limit: int, where: Condition | None) -> list[tuple[int, float]]:
        import qdrant_edge as edge

        nearest = (edge.Query.Nearest(_sparse(query), using=SPARSE) if isinstance(query, Terms)
                   else edge.Query.Nearest(query.tolist(), using=DENSE))
        request = edge.QueryRequest(limit=limit, query=nearest, filter=None if where is None else _filter(where),
                                    with_payload=False, with_vector=False, params=_search_params(self._quantization))
        with self._opened() as shard:
            return [(cast(int, point.id), point.score) for point in shard.query(request)]

    def settle(self) -> None:
        """Leaves the graphs as they are where the disk has no room for a copy of the shard."""
        with self._opened() as shard:
            shard.flush()
        current = self._home.current()
        assert current is not None, "it was opened"
        without, everything = self.count(between(current.graphs_to + 1, None)), self.count(between(0, None))
        if without * current.dimension * 2 >= GRAPHS_FROM_BYTES and without >= GRAPHS_FROM_SHARE * everything:
            self._home.build_graphs(int(self.rows(between(current.graphs_to + 1, None))[-1]))

    def drop(self) -> None:
        with self._home.mutex:
            if self._home.folder.exists():
                self._home.lock(self._patience_s)
                self._home.remove()

    def close(self) -> None:
        """The shard is closed when nobody in this process uses it any more."""
        self._home = ShardHome(self._home.folder)  # holds nothing

    def _update(self, operation: qdrant_edge.UpdateOperation) -> None:
        with self._opened() as shard:
            shard.update(operation)

    @contextmanager
    def _opened(self) -> Iterator[qdrant_edge.EdgeShard]:
        with self._home.mutex:
            shard = self._home.opened(self._patience_s)
        with reported(self._home.folder):
            yield shard


def _require() -> None:
    try:
        import qdrant_edge  # noqa: F401
    except ImportError as error:
        raise ConfigError("qdrant-edge-py is not installed, and backend = qdrant without qdrant_url needs it.",
                          hint="pip install 'thriftrag[qdrant]'") from error


def _config(dimension: int, quantization: str) -> qdrant_edge.EdgeConfig:
    import qdrant_edge as edge

    quantized: edge.QuantizationConfigType | None = None
    if quantization == "scalar":
        quantized = edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8, always_ram=True)
    elif quantization == "binary":
        quantized = edge.BinaryQuantizationConfig(always_ram=True)
    # Vectors were rounded to float16 when they were stored, so nothing is lost here. Mapped, so the system may page them out.
    dense = edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Dot, datatype=edge.VectorStorageDatatype.Float16,
                                  memory=edge.Memory.Cached)
    return edge.EdgeConfig(vectors={DENSE: dense}, sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
                           quantization_config=quantized)


def _vectors(point: Point) -> dict[str, qdrant_edge.NamedVector]:
    found: dict[str, qdrant_edge.NamedVector] = {}
    if point.dense is not None:
        found[DENSE] = cast(list[float], point.dense)  # arrays are taken as they are
    if point.sparse is not None:
        found[SPARSE] = _sparse(point.sparse)
    return found


def _sparse(terms: Terms) -> qdrant_edge.SparseVector:
    import qdrant_edge as edge

    return edge.SparseVector(indices=terms.ids.tolist(), values=terms.weights.tolist())


def _search_params(quantization: str) -> qdrant_edge.SearchParams | None:
    import qdrant_edge as edge

    oversampling = OVERSAMPLING.get(quantization)
    if oversampling is None:
        return None
    return edge.SearchParams(quantization=edge.QuantizationSearchParams(rescore=True, oversampling=oversampling))


def _filter(where: Condition) -> qdrant_edge.Filter:
    """From the REST form."""
    import qdrant_edge as edge

    must, should, must_not = (_conditions(where.get(how)) for how in ("must", "should", "must_not"))
    return edge.Filter(must=must, should=should, must_not=must_not)


def _conditions(parts: object) -> list[qdrant_edge.ConditionType] | None:
    return None if parts is None else [_condition(part) for part in cast(Sequence[Condition], parts)]


def _condition(where: Condition) -> qdrant_edge.ConditionType:
    import qdrant_edge as edge

    match dict(where):
        case {"is_empty": dict(field)}:
            return edge.IsEmptyCondition(field["key"])
        case {"has_id": list(rows)}:
            return edge.HasIdCondition(set(rows))
        case {"key": str(path), "range": dict(bounds)}:
            return edge.FieldCondition(path, range=edge.RangeFloat(**bounds))
        case {"key": str(path), "match": {"value": str() | int() as value}}:
            return edge.FieldCondition(path, match=edge.MatchValue(value))
        case {"key": str(path), "match": {"any": list(values)}}:
            return edge.FieldCondition(path, match=edge.MatchAny(values))
    return _filter(where)
