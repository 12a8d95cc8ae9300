"""Other libraries as systems of the evaluation: their own splitting, retrieval and packing, our encoder and reader.

`PEERS` names them; `open_peer` indexes a data set with one of them, or finds the index that was made before. The libraries
belong to the extra `peers` and are imported when a peer is opened. Nothing is sent anywhere but to the loopback: usage reports
are switched off, and no model is looked up by name.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import cast

from eval.datasets import Dataset
from eval.peers.peer import Peer, indexed, opened
from eval.peers.wiring import Library
from indexers.encoders import Encoder
from rag.errors import InputError
from rag.llm import Reader
from rag.settings import Settings
from rag.types import OnProgress, no_progress

__all__ = ["PEERS", "Peer", "PeerLibrary", "available", "open_peer", "require"]


@dataclass(frozen=True, slots=True)
class PeerLibrary:
    """`package` is imported, `distribution` is installed; `environment` is set before the import."""

    package: str
    distribution: str
    module: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        return metadata.version(self.distribution)

    def load(self) -> Library:
        os.environ.update(self.environment)
        return cast(Library, importlib.import_module(self.module))


PEERS: Mapping[str, PeerLibrary] = MappingProxyType({
    "llamaindex": PeerLibrary("llama_index.core", "llama-index-core", "eval.peers.llamaindex"),
    "haystack": PeerLibrary("haystack", "haystack-ai", "eval.peers.haystack", {
        "HAYSTACK_TELEMETRY_ENABLED": "False", "HAYSTACK_PIPELINE_SNAPSHOT_SAVE_ENABLED": "False"}),
    "txtai": PeerLibrary("txtai", "txtai", "eval.peers.txtai"),
})


def available(name: str) -> bool:
    """Whether the library of a peer is installed. Raises InputError for a name that is none."""
    library = _named(name)
    try:
        return find_spec(library.package) is not None and bool(library.version)
    except (ModuleNotFoundError, metadata.PackageNotFoundError):
        return False


def require(name: str) -> PeerLibrary:
    """The library of a peer.

    Raises:
        InputError: no peer has that name, or its library is not installed.
    """
    if not available(name):
        raise InputError(f"The system {name!r} needs {_named(name).distribution}, which is not installed.",
                         hint="Run `pip install thriftrag[peers]`.", field="systems", code="peer_missing")
    return _named(name)


def open_peer(name: str, dataset: Dataset, *, settings: Settings, encoder: Encoder, reader: Reader, home: Path,
              on_progress: OnProgress = no_progress) -> Peer:
    """The peer over the data set's passages. Its index lives below `home`, keyed by passages, encoder and library version, and
    is made if it is not there; `reader` stays open when the peer is closed.

    Raises:
        InputError: no peer has that name, or its library is not installed.
        StorageError: the index cannot be written or read.
    """
    known = require(name)
    library = known.load()
    folder = indexed(name, dataset, library, version=known.version, encoder=encoder, home=home, on_progress=on_progress)
    return opened(name, dataset, library, folder=folder, settings=settings, encoder=encoder, reader=reader)


def _named(name: str) -> PeerLibrary:
    if name not in PEERS:
        raise InputError(f"There is no peer {name!r}.", hint=f"There are: {', '.join(PEERS)}.", field="systems",
                         code="system_unknown")
    return PEERS[name]
