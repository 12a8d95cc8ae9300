"""Real collections for the tests of the Qdrant mirror: documents with chosen fields, texts and unit vectors, written by the
writer and read through snapshots; and the three kinds of Qdrant that every contract test runs on."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexers import store
from indexers.encoders import Vectors
from indexers.qdrant import Mirror
from indexers.qdrant_points import Points
from indexers.qdrant_terms import Bm25Terms
from indexers.snapshot import Snapshot
from indexers.writer import Indexed, writing
from rag.settings import Settings, load
from rag.types import Chunk, Document, FieldValue

# Read when this module is imported: what tests see of the environment is cleaned before each of them.
SERVER = os.environ.get("THRIFTRAG_TEST_QDRANT_URL", "")
KINDS = ("edge", "local", *(["server"] if SERVER else []))
WORDS = ["otter", "river", "stone", "bridge", "lamp", "copper", "maple", "winter", "signal", "harbour", "velvet", "engine", "paper",
         "garden", "cloud", "ladder", "silver", "thunder", "meadow", "candle"]


@dataclass
class Collection:
    """A collection that grows and shrinks, with the snapshot of its present state."""

    folder: Path
    dimension: int = 16
    seed: int = 5
    encoder: str = "random@1"
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        store.create(self.folder, encoder=self.encoder, dimension=self.dimension, chunk_tokens=64)

    def add(self, names: Sequence[str], *, chunks: int = 2, metadata: Mapping[str, Mapping[str, FieldValue]] | None = None) -> None:
        batch = [self._indexed(name, chunks, (metadata or {}).get(name, {})) for name in names]
        with writing(self.folder) as writer:
            writer.publish(batch)

    def delete(self, names: Sequence[str]) -> None:
        with writing(self.folder) as writer:
            writer.delete(list(names))

    def snapshot(self) -> Snapshot:
        return Snapshot(self.folder)

    def _indexed(self, name: str, chunks: int, metadata: Mapping[str, FieldValue]) -> Indexed:
        texts = [" ".join(self.rng.choice(WORDS, self.rng.integers(4, 12))) for _ in range(chunks)]
        document = Document(id=name, source=f"{name}.txt", uri=f"/docs/{name}.txt", title=f"On {name}", text="\n".join(texts),
                            content_hash=name, blocks=(), metadata=dict(metadata))
        starts = np.cumsum([0, *(len(text) + 1 for text in texts)])
        made = tuple(Chunk(id=f"{name}:{i}", doc_id=name, ordinal=i, text=text, span=(int(starts[i]), int(starts[i]) + len(text)),
                           sentences=((0, len(text)),), tokens=len(text.split()), title=document.title, source=document.source,
                           content_hash=text) for i, text in enumerate(texts))
        return Indexed(document, document.uri, made, units(self.rng, chunks, self.dimension))


def units(rng: np.random.Generator, count: int, dimension: int) -> Vectors:
    found = rng.normal(size=(count, dimension)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def exact(snapshot: Snapshot, vector: Vectors, rows: Sequence[int], k: int) -> list[int]:
    """The slow, obvious answer: every allowed vector, one product each, ties by row."""
    scores = {row: float(np.dot(snapshot.vectors([row])[0], vector)) for row in rows}
    return sorted(scores, key=lambda row: (-scores[row], row))[:k]


def settings_of(tmp_path: Path, **flags: object) -> Settings:
    return load({"home": tmp_path / "home", "models": tmp_path / "models", **flags}, environ={})


def points_of(kind: str, folder: Path, *, name: str, settings: Settings) -> Points:
    """`edge`: the embedded shard; `local`: the server code on qdrant-client's own imitation; `server`: a real one."""
    if kind == "edge":
        from indexers.qdrant_edge import EdgePoints

        return EdgePoints(folder, settings=settings, name=name, patience_s=0.2)
    from qdrant_client import QdrantClient

    from indexers.qdrant_server import ServerPoints, connect

    if kind == "server":
        return connect(settings, name=re.sub(r"\W", "-", name))
    warnings.filterwarnings("ignore", message="Payload indexes have no effect", category=UserWarning)
    return ServerPoints(QdrantClient(":memory:"), name=name, settings=settings)


def mirror_on(kind: str, collection: Collection, *, settings: Settings, name: str = "test") -> Mirror:
    return Mirror(points_of(kind, collection.folder, name=f"{name}-{collection.folder.name}", settings=settings),
                  dimension=collection.dimension, weights=Bm25Terms())


__all__ = ["KINDS", "SERVER", "WORDS", "Collection", "exact", "mirror_on", "points_of", "settings_of", "units"]
