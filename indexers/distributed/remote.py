"""What runs on the nodes: small, so that it is plain what a node must have installed. Ray finds it by import."""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexers.encoders import Encoder, Vectors, term_weights
from indexers.encoders.term_weights import TermModel
from indexers.impacts import Weighed
from indexers.loaders import Found
from indexers.loaders.discovery import printable
from indexers.parsing import InProcess, Parsing, Workers
from rag.errors import ConfigError
from rag.settings import Settings
from rag.types import Document, FileFailure

if TYPE_CHECKING:
    from indexers.distributed.models import Plan, Tokens

Encoded = tuple[Vectors, Weighed | None]
Stamp = tuple[int, int]         # size in bytes, and time of modification in nanoseconds


@dataclass(frozen=True, slots=True)
class Opened:
    """What a node has opened: it must be what the driver has."""

    name: str
    dimension: int
    max_tokens: int
    terms: str = ""             # name of the term weights, "" for none

    def __str__(self) -> str:
        return f"{self.name} with {self.dimension} dimensions" + (f" and term weights {self.terms}" if self.terms else "")


class EncodingActor:
    """One encoder on one node, loaded once. `open` may be called again after it has failed."""

    def __init__(self, plan: Plan, *, threads: int, of_driver: str) -> None:
        self._plan = plan
        self._threads = threads
        self._of_driver = of_driver
        self._encoder: Encoder | None = None

    def open(self) -> Opened:
        check_version(self._of_driver)
        if self._encoder is None:
            self._encoder = self._plan.open(threads=self._threads)
        return opened(self._encoder)

    def encode(self, texts: Sequence[str], *, with_terms: bool) -> Encoded:
        assert self._encoder is not None, "the driver hands out work only after open"
        return term_weights.encoded(self._encoder, texts, wanted=with_terms)


def opened(encoder: Tokens) -> Opened:
    terms: TermModel | None = getattr(encoder, "terms", None)
    return Opened(encoder.name, encoder.dimension, encoder.max_tokens, terms.name if terms else "")


@cache
def own_version() -> str:
    return version("thriftrag")


def check_version(of_driver: str) -> None:
    """Another version might parse or encode differently.

    Raises:
        ConfigError: names the node and both versions.
    """
    if own_version() != of_driver:
        raise ConfigError(f"{platform.node()} has thriftrag {own_version()}, and the driver has {of_driver}.",
                          hint="Install the same version on every node.")


def without_secrets(settings: Settings) -> Settings:
    """Nodes need no key to parse a file."""
    secrets: dict[str, Any] = {field.name: field.default for field in fields(settings) if field.metadata.get("secret")}
    return replace(settings, **secrets)


@dataclass(frozen=True, slots=True)
class Order:
    """A file to parse: its bytes, or the stamp that the file on the node must have; neither takes what is there."""

    found: Found
    data: bytes | None = None
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """The documents of each file that was ordered, and the node they were made on; None for one that the node does not see."""

    node: str
    documents: list[list[Document | FileFailure] | None]


def parse_files(orders: Sequence[Order], *, settings: Settings, of_driver: str) -> Parsed:
    """What a task does."""
    import ray

    check_version(of_driver)
    return Parsed(str(ray.get_runtime_context().get_node_id()), [_parsed(order, settings) for order in orders])


def _parsed(order: Order, settings: Settings) -> list[Document | FileFailure] | None:
    if order.data is not None:
        return list(parse_bytes(order.found, order.data, settings=settings))
    if order.stamp is not None and not _sees(order.found, order.stamp):
        return None
    return list(_documents(order.found, settings))


def parse_bytes(found: Found, data: bytes, *, settings: Settings) -> Iterator[Document | FileFailure]:
    """What `found` holds according to `data`, as if it lay here where it lies on the driver."""
    with tempfile.TemporaryDirectory(prefix="thriftrag-") as folder:
        here = Path(folder) / found.path.name
        here.write_bytes(data)
        for item in _documents(replace(found, path=here, size=len(data)), settings):
            yield item if isinstance(item, FileFailure) else _moved(item, printable(here), printable(found.path))


def _documents(found: Found, settings: Settings) -> Iterator[Document | FileFailure]:
    """In a process of its own, with the limits on time and memory that one machine sets."""
    for _, documents in _parsing(replace(settings, workers=min(settings.workers, 1))).parse([found]):
        yield from documents


@cache
def _parsing(settings: Settings) -> Parsing:
    """Kept for as long as Ray keeps this process."""
    return Workers(settings) if settings.workers else InProcess(settings)


def _moved(document: Document, here: str, there: str) -> Document:
    """A document whose file lies at `there`. Its id is made from that where it was made from the place and not by the user."""
    uri = there + document.uri.removeprefix(here)
    identity = id_of(uri) if document.id == id_of(document.uri) else document.id
    return replace(document, uri=uri, id=identity)


def id_of(uri: str) -> str:
    """As `indexers.loaders.formats` names a document by its place."""
    return hashlib.sha256(uri.encode()).hexdigest()[:16]


def _sees(found: Found, stamp: Stamp) -> bool:
    try:
        status = os.stat(found.path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == stamp
