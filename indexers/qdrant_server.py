"""Points on a Qdrant server or cluster, through qdrant-client over REST.

Every call may be repeated without harm, so what may pass (no connection, a timeout, 429, 5xx) is tried again with growing
pauses. Only options that servers since 1.10 know are sent.
"""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import numpy as np

from indexers.encoders import Vectors
from indexers.qdrant_points import DENSE, OVERSAMPLING, SPARSE, TENANT_PATH, Condition, Payload, Point, Rows, Shape
from indexers.qdrant_terms import Terms
from rag.errors import ConfigError, UpstreamError
from rag.settings import Settings

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import UnexpectedResponse

Result = TypeVar("Result")

# Before another try, in seconds. Somebody waits for a search: it is given up sooner, and at once when the server is slow.
PATIENT_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
PAUSES_S = (0.2, 0.8)
_PAGE = 10_000
_PASSING = {408, 425, 429, 500, 502, 503, 504}


def connect(settings: Settings, *, name: str, sleep: Callable[[float], None] = time.sleep) -> ServerPoints:
    """Nothing is sent yet.

    Raises:
        ConfigError: qdrant-client is not installed, or qdrant_url is no URL.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise ConfigError("qdrant-client is not installed, and the setting qdrant_url needs it.",
                          hint="pip install 'thriftrag[qdrant]'") from error
    address = urlsplit(settings.qdrant_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError(f"qdrant_url = {settings.qdrant_url!r} is not the URL of a server.", field="qdrant_url",
                          hint="Use one like http://localhost:6333.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a key sent without TLS: who sets qdrant_url decides that
        client = QdrantClient(url=settings.qdrant_url, api_key=settings.qdrant_api_key or None, check_compatibility=False,
                              timeout=settings.qdrant_timeout_s)
    return ServerPoints(client, name=name, settings=settings, sleep=sleep)


class ServerPoints:
    """One collection of a server. `client` may also be qdrant-client's local mode."""

    def __init__(self, client: QdrantClient, *, name: str, settings: Settings, sleep: Callable[[float], None] = time.sleep) -> None:
        self.name = name
        self._client = client
        self._settings = settings
        self._sleep = sleep
        self._waiting = threading.local()

    @contextmanager
    def patient(self) -> Iterator[None]:
        self._waiting.long = True
        try:
            yield
        finally:
            self._waiting.long = False

    def shape(self) -> Shape | None:
        if not self._asked(lambda: self._client.collection_exists(self.name)):
            return None
        vectors = self._asked(lambda: self._client.get_collection(self.name)).config.params.vectors
        found = vectors.get(DENSE) if isinstance(vectors, dict) else None
        return Shape(0, "none") if found is None else Shape(found.size, found.distance.value.lower())

    def create(self, dimension: int) -> None:
        from qdrant_client import models

        # Vectors were rounded to float16 when they were stored, so nothing is lost here.
        dense = models.VectorParams(size=dimension, distance=models.Distance.DOT, on_disk=True, datatype=models.Datatype.FLOAT16)

        def made() -> None:
            if not self._client.collection_exists(self.name):
                self._client.create_collection(
                    self.name, vectors_config={DENSE: dense},
                    sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                    shard_number=self._settings.qdrant_shards or None, replication_factor=self._settings.qdrant_replicas or None,
                    on_disk_payload=True, quantization_config=self._quantization())

        self._asked(made)

    def index(self, path: str, kind: str) -> None:
        from qdrant_client import models

        schemas: dict[str, models.PayloadSchemaParams] = {
            "string": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=path == TENANT_PATH or None),
            "integer": models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=True),
            "number": models.FloatIndexParams(type=models.FloatIndexType.FLOAT)}
        self._asked(lambda: self._client.create_payload_index(self.name, path, field_schema=schemas[kind], wait=True))

    def upsert(self, points: Sequence[Point]) -> None:
        from qdrant_client import models

        structs = [models.PointStruct(id=point.id, vector=_vectors(point), payload=dict(point.payload)) for point in points]
        self._asked(lambda: self._client.upsert(self.name, structs, wait=True))

    def delete(self, rows: Sequence[int]) -> None:
        for start in range(0, len(rows), _PAGE):
            piece = [int(row) for row in rows[start:start + _PAGE]]
            self._asked(lambda piece=piece: self._client.delete(self.name, piece, wait=True))  # type: ignore[misc]  # bound early

    def payload(self, id: int) -> Payload | None:
        found = self._asked(lambda: self._client.retrieve(self.name, [id], with_payload=True, with_vectors=False))
        return found[0].payload or {} if found else None

    def rows(self, where: Condition) -> Rows:
        return np.sort(np.fromiter(self._scrolled(where), np.int64))

    def count(self, where: Condition) -> int:
        chosen = _filter(where)
        return self._asked(lambda: self._client.count(self.name, count_filter=chosen, exact=True)).count

    def search(self, query: Vectors | Terms, *, limit: int, where: Condition | None) -> list[tuple[int, float]]:
        from qdrant_client import models

        asked = (models.SparseVector(indices=query.ids.tolist(), values=query.weights.tolist()) if isinstance(query, Terms)
                 else query.tolist())
        chosen = None if where is None else _filter(where)
        found = self._asked(lambda: self._client.query_points(
            self.name, query=asked, using=SPARSE if isinstance(query, Terms) else DENSE, limit=limit, query_filter=chosen,
            search_params=self._search_params(), with_payload=False, with_vectors=False))
        return [(int(point.id), point.score) for point in found.points]

    def settle(self) -> None:
        """A server does that by itself."""

    def drop(self) -> None:
        if self._asked(lambda: self._client.collection_exists(self.name)):
            self._asked(lambda: self._client.delete_collection(self.name))

    def close(self) -> None:
        self._client.close()

    def _scrolled(self, where: Condition) -> Iterator[int]:
        chosen, offset = _filter(where), None
        while True:
            found, offset = self._asked(lambda offset=offset: self._client.scroll(  # type: ignore[misc]  # bound early
                self.name, scroll_filter=chosen, limit=_PAGE, offset=offset, with_payload=False, with_vectors=False))
            yield from (int(record.id) for record in found)
            if offset is None:
                return

    def _quantization(self) -> models.ScalarQuantization | models.BinaryQuantization | None:
        from qdrant_client import models

        match self._settings.qdrant_quantization:
            case "scalar":
                byte = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
                return models.ScalarQuantization(scalar=byte)
            case "binary":
                return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        return None

    def _search_params(self) -> models.SearchParams | None:
        from qdrant_client import models

        oversampling = OVERSAMPLING.get(self._settings.qdrant_quantization)
        if oversampling is None:
            return None
        return models.SearchParams(quantization=models.QuantizationSearchParams(rescore=True, oversampling=oversampling))

    def _asked(self, call: Callable[[], Result]) -> Result:
        """The answer, after as many tries as it takes and our patience allows."""
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        patient = getattr(self._waiting, "long", False)
        for pause in (*(PATIENT_PAUSES_S if patient else PAUSES_S), None):
            try:
                return call()
            except (ApiException, QdrantException, json.JSONDecodeError) as error:
                trouble = _trouble(error, self._settings)
                if not trouble.passing or pause is None or (trouble.slow and not patient):
                    raise trouble.error from error
            self._sleep(max(pause, trouble.wait_s))
        raise AssertionError("the last try returns or raises")


@dataclass(frozen=True, slots=True)
class _Trouble:
    """`passing`: another try may help; `wait_s`: how long the server asks to wait; `slow`: it did not answer in time."""

    error: UpstreamError
    passing: bool
    wait_s: float = 0.0
    slow: bool = False


def _trouble(error: Exception, settings: Settings) -> _Trouble:
    """What went wrong in our words; the address without the credentials that a URL may hold."""
    import httpx
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    address = urlsplit(settings.qdrant_url)
    server = f"Qdrant at {address.scheme}://{address.hostname}:{address.port or 6333}"
    again = "Check that the server runs and that qdrant_url names it; run the command again, and it goes on where it stopped."
    match error:
        case ResourceExhaustedResponse():
            return _Trouble(UpstreamError(f"{server} is overloaded.", hint="Try again later.", code="qdrant_overloaded"),
                            passing=True, wait_s=min(60.0, error.retry_after_s))
        case ResponseHandlingException(source=httpx.TimeoutException()):
            return _Trouble(UpstreamError(f"{server} did not answer within {settings.qdrant_timeout_s} s.", code="qdrant_timeout",
                                          hint=f"{again} A higher qdrant_timeout_s waits longer."), passing=True, slow=True)
        case ResponseHandlingException(source=httpx.TransportError() as source):
            said = str(source).rstrip(".") or type(source).__name__
            return _Trouble(UpstreamError(f"{server} cannot be reached: {said}.", hint=again, code="qdrant_unavailable"),
                            passing=True)
        case UnexpectedResponse(status_code=401 | 403):
            return _Trouble(UpstreamError(f"{server} refuses the key.", hint="Set qdrant_api_key to one that may write and read.",
                                          field="qdrant_api_key", code="qdrant_forbidden"), passing=False)
        case UnexpectedResponse(status_code=status) if status in _PASSING:
            return _Trouble(UpstreamError(f"{server} failed with status {status}: {_reason(error)}.", hint=again,
                                          code="qdrant_unavailable"), passing=True)
        case UnexpectedResponse(status_code=status):
            return _Trouble(UpstreamError(f"{server} refused with status {status}: {_reason(error)}.", code="qdrant_refused",
                                          hint="Check its version (1.10 or newer) and its limits."), passing=False)
    return _Trouble(UpstreamError(f"{server} answered what Qdrant would not.", code="qdrant_refused",
                                  hint="Check that qdrant_url names a Qdrant server, version 1.10 or newer."), passing=False)


def _reason(error: UnexpectedResponse) -> str:
    """The server's own words, as far as they go."""
    try:
        said = str(error.structured()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        said = error.reason_phrase or "no reason given"
    return said[:200].rstrip(".!")


def _vectors(point: Point) -> models.VectorStruct:
    from qdrant_client import models

    found: dict[str, models.Vector] = {}
    if point.dense is not None:
        found[DENSE] = point.dense.tolist()
    if point.sparse is not None:
        found[SPARSE] = models.SparseVector(indices=point.sparse.ids.tolist(), values=point.sparse.weights.tolist())
    return found


def _filter(where: Condition) -> models.Filter:
    from qdrant_client import models

    return models.Filter.model_validate(where)
