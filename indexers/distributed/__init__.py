"""Ingestion on a Ray cluster (extra `ray`): files are parsed and passages encoded on its nodes, one driver does the rest.

    with cluster(settings) as joined:
        ingest(folder, sources, encoder=joined.encoder, parsing=joined.parsing, settings=settings)

Two parts of `indexers.ingest` are exchanged and nothing else, so a run on a cluster ends with the documents, chunks, ids and
order of a run on one machine, resumes as one, and is protected by the same lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from indexers.distributed.connection import ClusterUnavailable, Connection, Node, connect
from indexers.distributed.encoding import RayEncoder
from indexers.distributed.parsing import RayParsing
from indexers.distributed.slices import EncodingFailed
from rag.settings import Settings
from rag.types import OnProgress, no_progress


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster at work for us: what to hand to `indexers.ingest.ingest`."""

    connection: Connection
    encoder: RayEncoder
    parsing: RayParsing


@contextmanager
def cluster(settings: Settings, *, on_progress: OnProgress = no_progress) -> Iterator[Cluster]:
    """Connects to `settings.ray_address` and leaves it as it was found; see `connection` for the forms of an address.

    Raises:
        ConfigError: Ray is not installed, the address is none, or the embedder is not known.
        ClusterUnavailable: nothing answers there, or not as a cluster of use to us.
        ModelUnavailable, ModelCorrupt: the driver itself does not have the model.
    """
    with connect(settings, on_progress=on_progress) as there, closing(RayEncoder(there, settings=settings)) as encoder:
        yield Cluster(there, encoder, RayParsing(there, settings=settings))


__all__ = [
    "Cluster", "ClusterUnavailable", "Connection", "EncodingFailed", "Node", "RayEncoder", "RayParsing", "cluster", "connect",
]
