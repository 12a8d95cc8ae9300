"""Open collections, shared by all requests. Models are opened once, at the first request that needs them, and shared by all
collections. A tenant has a home of its own: no search, listing or id can reach from one into another."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from api.errors import Conflict
from api.keys import Key
from indexers import store
from indexers.encoders import Encoder, open_encoder
from rag import collection_settings
from rag.errors import CollectionMissing, InputError
from rag.llm import Reader
from rag.llm.breaker import Breaker, State
from rag.llm.open import open_reader
from rag.models import ModelCache
from rag.routing import small_settings
from rag.settings import Settings, overridden
from rag.thriftrag import CollectionInfo, ThriftRAG, delete_collection, folder_of, list_collections

if TYPE_CHECKING:
    from optimizers.crossencoder.encoder import CrossEncoder

TENANTS = "tenants"
# What a collection's files look like from outside: a change means that it was replaced or tuned, so it is opened anew.
Stamp = tuple[tuple[int, int], ...]


class Models:
    """The encoder and the readers of this server, each opened when it is first needed. `encoder` and `reader`, where given, are
    used instead of those that the settings name."""

    def __init__(self, settings: Settings, *, named: tuple[str, ...] = (), encoder: Encoder | None = None,
                 reader: Reader | None = None) -> None:
        self._settings = settings
        self._cache = ModelCache(settings.models)
        self._encoder = encoder
        self._readers: dict[str, Reader] = {} if reader is None else {settings.reader: reader}
        self._lock = threading.Lock()
        # Filled by whichever collection needs one first.
        self.crosses: dict[str, CrossEncoder | None] = {}
        self.names = tuple(dict.fromkeys((settings.reader, *named)))

    def checked(self, name: str | None) -> str:
        """The reader that a request means. Raises InputError: not one of this server's."""
        if name is None:
            return self.names[0]
        if name not in self.names:
            raise InputError(f"{name!r} is no reader of this server.", field="model", code="model_unknown",
                             hint=f"Use one of {', '.join(self.names)}, or leave it out.")
        return name

    def encoder(self) -> Encoder:
        with self._lock:
            if self._encoder is None:
                self._encoder = open_encoder(self._settings.embedder, cache=self._cache, precision=self._settings.precision,
                                             threads=self._settings.threads)
            return self._encoder

    def reader(self, name: str) -> Reader:
        with self._lock:
            if name not in self._readers:
                self._readers[name] = open_reader(overridden(self._settings, {"reader": name}), cache=self._cache)
            return self._readers[name]

    def small(self, settings: Settings) -> Reader:
        """The router's small reader, as these settings name it."""
        key = f"{settings.reader_small} (small)"      # no address: it is told at /metrics
        with self._lock:
            if key not in self._readers:
                self._readers[key] = open_reader(small_settings(settings), cache=self._cache)
            return self._readers[key]

    def breakers(self) -> dict[str, State]:
        """The circuits of the readers behind a server that were opened, by name."""
        with self._lock:
            found = {name: getattr(reader, "breaker", None) for name, reader in self._readers.items()}
        return {name: breaker.state for name, breaker in found.items() if isinstance(breaker, Breaker)}

    def close(self) -> None:
        with self._lock:
            for reader in self._readers.values():
                reader.close()
            self._readers.clear()


class _Shared(ThriftRAG):
    """A collection whose models are the server's."""

    find_encoder: Callable[[], Encoder]
    find_reader: Callable[[], Reader]
    find_small: Callable[[Settings], Reader]

    def share(self, models: Models, reader: str) -> None:
        """Takes its models from the server from now on."""
        self.find_encoder = models.encoder
        self.find_reader = lambda: models.reader(reader)
        self.find_small = models.small
        self._crosses = models.crosses

    @property
    def encoder(self) -> Encoder:
        return self.find_encoder()

    @property
    def reader(self) -> Reader:
        return self.find_reader()

    def _small(self, settings: Settings) -> Reader:
        return self.find_small(settings)


@dataclass(frozen=True, slots=True)
class Opened:
    kb: ThriftRAG
    stamp: Stamp


class Shelf:
    """Every call may block on the disk: for worker threads."""

    def __init__(self, settings: Settings, models: Models, *, limit: int) -> None:
        self.settings = settings
        self.models = models
        self._limit = limit
        self._open: OrderedDict[tuple[Path, str], Opened] = OrderedDict()
        self._lock = threading.Lock()
        self._making = threading.Lock()

    def settings_of(self, key: Key) -> Settings:
        """The settings that this caller's collections live under."""
        return self.settings if not key.tenant else overridden(self.settings, {"home": self.home_of(key.tenant)})

    def home_of(self, tenant: str) -> Path:
        return self.settings.home / TENANTS / tenant if tenant else self.settings.home

    def named(self, key: Key, collection: str | None) -> str:
        """The collection that a request means: without a name the only one of its key, else the setting."""
        if collection is None:
            return key.collections[0] if len(key.collections) == 1 else self.settings.collection
        return collection

    def open(self, key: Key, collection: str, *, model: str | None = None) -> ThriftRAG:
        """The collection as it is now. Those used longest ago are let go beyond the limit; who still uses one keeps it.

        Raises:
            CollectionMissing: not there, or not for this key. InputError: a name that cannot be.
        """
        settings = self.settings_of(key)
        folder = folder_of(collection, settings=settings)
        stamp = _stamp(folder) if key.reaches(collection) else None
        if stamp is None:
            raise missing(collection)
        reader = self.models.checked(model)
        place = (folder, reader)
        with self._lock:
            found = self._open.get(place)
            if found is not None and found.stamp == stamp:
                self._open.move_to_end(place)
                return found.kb
        kb = cast(_Shared, _Shared.open(collection, create=False, settings=overridden(settings, {"reader": reader})))
        kb.share(self.models, reader)
        kb.tenant = key.tenant
        with self._lock:
            self._open[place] = Opened(kb, stamp)
            self._open.move_to_end(place)
            while len(self._open) > self._limit:
                self._open.popitem(last=False)
        return kb

    def listed(self, key: Key) -> list[CollectionInfo]:
        return [info for info in list_collections(self.settings_of(key)) if key.reaches(info.name)]

    def create(self, key: Key, collection: str) -> CollectionInfo:
        """A new, empty collection.

        Raises:
            Conflict: there is one of this name. CollectionMissing: the key may not use the name.
        """
        settings = self.settings_of(key)
        folder = folder_of(collection, settings=settings)
        if not key.reaches(collection):
            raise missing(collection)
        with self._making:
            if (folder / store.DATABASE).is_file():
                raise Conflict(f"There is a collection {collection!r} already.", field="name", code="collection_exists",
                               hint="Use another name, or delete it first.")
            kb = _Shared(collection, settings=settings)
            kb.share(self.models, self.models.checked(None))
            kb.ingest()
        return self.open(key, collection).info()

    def delete(self, key: Key, collection: str) -> None:
        """Removes it for good. What is being answered from it ends in peace. Raises as `open`, and Locked: it is being written."""
        self.open(key, collection)
        settings = self.settings_of(key)
        with self._making:
            delete_collection(collection, settings=settings)
        folder = folder_of(collection, settings=settings)
        with self._lock:
            for place in [place for place in self._open if place[0] == folder]:
                del self._open[place]

    def close(self) -> None:
        with self._lock:
            for opened in self._open.values():
                opened.kb.close()
            self._open.clear()
        self.models.close()


def missing(collection: str) -> CollectionMissing:
    return CollectionMissing(f"There is no collection {collection!r}.", field="collection")


def _stamp(folder: Path) -> Stamp | None:
    """None where there is no collection."""
    found = []
    for path in (folder / store.DATABASE, folder / collection_settings.FILE):
        try:
            status = path.stat()
        except OSError:
            found.append((0, 0))
            continue
        # The database file changes with every publication, which needs no reopening: it is the same file.
        found.append((status.st_ino, 0 if path.name == store.DATABASE else status.st_mtime_ns))
    return None if found[0] == (0, 0) else tuple(found)
