"""The encoder as it travels: what the driver knows of it, how a node opens it, and its files for a node that lacks them.

A node looks in its own model cache first. Files are sent once, in pieces, checked against the driver's checksums, sealed and
published by one rename, as a pull would have done; from then on they are the node's own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from indexers.encoders import Encoder, int8, open_encoder, open_folder, term_weights
from indexers.encoders.bert import IR
from indexers.encoders.describe import source_files
from indexers.encoders.openvino import described, precision_of
from indexers.encoders.tokenizing import EncoderTokenizer
from indexers.impacts import Query, Statistics
from rag import settings as configuration
from rag.durable import sha256_of
from rag.errors import ModelCorrupt, ModelUnavailable
from rag.models import ModelCache, resolve
from rag.models.files import make_folder, require_space, storage_errors
from rag.models.manifest import Manifest, check, read, seal
from rag.settings import Settings

PIECE_BYTES = 8 << 20
SHIPPED = "shipped"
Welcome = Literal["wanted", "there", "busy"]


class Tokens(Protocol):
    """The part of an encoder that needs no model: see `Encoder`."""

    name: str
    dimension: int
    max_tokens: int

    def count(self, texts: Sequence[str]) -> list[int]: ...

    def offsets(self, text: str) -> list[tuple[int, int]]: ...


class Plan(Protocol):
    """Made on the driver, and sent to every node."""

    @property
    def gpu(self) -> bool:
        """Whether it makes use of a graphics processor where a node has one."""

    def local(self) -> Tokens:
        """On the driver: what the encoder is, as cheaply as can be."""

    def open(self, *, threads: int) -> Encoder:
        """On a node. Raises ModelUnavailable where the node does not have the files."""

    def parcel(self) -> Parcel | None:
        """On the driver: the files to send to a node that lacks them; None where they cannot be sent."""

    def receiver(self, parcel: Parcel) -> Receiver:
        """On a node: where they go."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """The files of one model. `folder` is the driver's; `key` is made from the checksums."""

    name: str
    folder: Path
    files: Mapping[str, str]    # path to sha256
    size: int                   # bytes of all
    sources: Mapping[str, str] = field(default_factory=dict)
    registered: bool = False

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(sorted(self.files.items())).encode()).hexdigest()[:16]

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """Every file in order, the pieces of one after another."""
        for file in self.files:
            with (self.folder / file).open("rb") as stream:
                while piece := stream.read(PIECE_BYTES):
                    yield file, piece


@dataclass(frozen=True, slots=True)
class EncoderPlan:
    """The configured embedder. The precision is the driver's for all: bf16 and f32 would give slightly different vectors.

    `folder`: where the driver has a model that runs in OpenVINO. `models`: the node's model cache, None for what the node's
    own settings say. `shipped`: where below that cache a model lies that was sent and is in no registry.
    """

    name: str                   # a registry name, an absolute path or a hub id
    precision: str
    folder: Path | None
    driver_models: Path
    models: Path | None = None
    registered: bool = False
    shipped: str = ""

    @property
    def gpu(self) -> bool:
        return self.folder is None

    def local(self) -> Tokens:
        if self.folder is not None:
            return Described(self.folder)
        return open_encoder(self.name, cache=ModelCache(self.driver_models), precision=self.precision)

    def open(self, *, threads: int) -> Encoder:
        cache = self._node_cache()
        if self.shipped and (cache.root / self.shipped).is_dir():
            return open_folder(cache.root / self.shipped, precision=self.precision, threads=threads)
        if Path(self.name).is_absolute() and not Path(self.name).exists():
            raise ModelUnavailable(f"{self.name} is not on this node.", hint="Put it there, or on a disk that all nodes share.")
        return open_encoder(self.name, cache=cache, precision=self.precision, threads=threads)

    def parcel(self) -> Parcel | None:
        return None if self.folder is None else parcel_of(self.folder, registered=self.registered)

    def receiver(self, parcel: Parcel) -> Receiver:
        return Receiver(parcel, self._node_cache())

    def _node_cache(self) -> ModelCache:
        return ModelCache(self.models or configuration.load({}).models)


def plan_of(settings: Settings, *, node_models: Path | None = None) -> EncoderPlan:
    """The plan for `settings.embedder`. A model cache that was chosen travels; the default is each node's own.

    Raises:
        ConfigError, ModelUnavailable, ModelCorrupt: the driver itself does not have the model.
    """
    cache = ModelCache(settings.models)
    found = resolve(settings.embedder, cache=cache, role="embedder")
    registered, openvino = settings.embedder in cache.registry, found.backend == "openvino"
    path, folder = Path(settings.embedder).expanduser(), Path(found.location) if openvino else None
    plan = EncoderPlan(
        name=str(path.resolve()) if not registered and path.exists() else settings.embedder,
        precision=_precision(settings.precision, folder) if folder else settings.precision,
        folder=folder, driver_models=settings.models, registered=registered,
        models=node_models or (settings.models if "models" in settings.origin else None))
    parcel = None if registered else plan.parcel()
    return plan if parcel is None else replace(plan, shipped=shipped_to(parcel))


def parcel_of(folder: Path, *, registered: bool) -> Parcel:
    """The files of a model that runs in OpenVINO, with 8-bit ranges if it has any; checksums from its manifest where it has one."""
    manifest = read(folder)
    sealed = manifest if isinstance(manifest, Manifest) else None
    if sealed is not None:
        files = {file: record.sha256 for file, record in sealed.files.items()}
    else:
        described = [file for file in source_files(folder) if not file.endswith(".safetensors")]
        files = {file: sha256_of(folder / file) for file in (IR, str(Path(IR).with_suffix(".bin")), *described)}
    for beside in (int8.FILE, term_weights.FILE, term_weights.ranges_of(Path(term_weights.FILE)).name):
        if (folder / beside).is_file():
            files[beside] = sha256_of(folder / beside)
    return Parcel(sealed.name if sealed else folder.resolve().name, folder, files,
                  size=sum((folder / file).stat().st_size for file in files), sources=sealed.sources if sealed else {},
                  registered=registered)


def _precision(choice: str, folder: Path) -> str:
    return precision_of(choice, has_ranges=int8.find(folder, identity=Described(folder).name) is not None)


def shipped_to(parcel: Parcel) -> str:
    """Below a node's cache. The last part is the model's name, which is part of what its vectors are called."""
    return parcel.name if parcel.registered else f"{SHIPPED}/{parcel.key}/{parcel.name}"


class Receiver:
    """One model on its way into a node's cache. `begin`, every piece in order with `write`, then `finish`."""

    def __init__(self, parcel: Parcel, cache: ModelCache) -> None:
        self._parcel = parcel
        self._cache = cache
        self._final = cache.root / shipped_to(parcel)
        self._staging = cache.root / ".staging" / f"parcel-{parcel.key}"
        self._held = ExitStack()

    def begin(self) -> Welcome:
        """Whether the pieces are wanted; never waits. `busy`: another process, maybe of another node on the same disk, is
        bringing them: ask again.

        Raises:
            StorageError: no room, or the cache cannot be written.
        """
        import filelock

        folder = make_folder(self._cache.root / ".locks")
        lock = filelock.FileLock(folder / f"parcel-{self._parcel.key}.lock")
        with storage_errors(folder, needed=lambda: 0):
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:        # which is an OSError
                return "busy"
        if self._whole():
            lock.release()
            return "there"
        self._held.callback(lock.release)
        require_space(self._cache.root, needed=self._parcel.size)
        shutil.rmtree(self._staging, ignore_errors=True)
        make_folder(self._staging / "converted")
        return "wanted"

    def write(self, file: str, piece: bytes) -> None:
        path = self._staging / "converted" / file
        with storage_errors(path, needed=lambda: len(piece)):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as stream:
                stream.write(piece)

    def finish(self) -> None:
        """
        Raises:
            ModelCorrupt: a file is not what the driver has; nothing is kept.
        """
        converted = self._staging / "converted"
        try:
            with storage_errors(converted, needed=lambda: 0):
                sealed = seal(converted, name=self._parcel.name, role="embedder", sources=self._parcel.sources)
            wrong = [file for file, sha256 in self._parcel.files.items()
                     if file not in sealed.files or sealed.files[file].sha256 != sha256]
            if wrong:
                raise ModelCorrupt(f"{', '.join(wrong)} of {self._parcel.name} came with a wrong checksum.",
                                   hint="Verify the driver's copy with `thriftrag models verify`, then run again.")
            self._cache.publish(converted, self._final, aside=self._staging / "replaced")
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._held.close()

    def _whole(self) -> bool:
        there = read(self._final)
        if not isinstance(there, Manifest) or check(self._final, sources=None, deep=True):
            return False
        return all(file in there.files and there.files[file].sha256 == sha256 for file, sha256 in self._parcel.files.items())


class Described:
    """An OpenVINO encoder without its model: name, sizes, tokenizer, and the term weights that go with it, if any."""

    def __init__(self, folder: Path) -> None:
        description = described(folder)
        self.name = description.identity
        self.dimension = description.dimension
        self.max_tokens = description.max_tokens
        self._tokenizer = EncoderTokenizer.from_file(folder / "tokenizer.json", max_tokens=self.max_tokens)
        self.terms = term_weights.opened(folder, encoder=self.name)

    def query(self, text: str, *, statistics: Statistics | None = None) -> Query:
        assert self.terms is not None, "without term weights there are no queries for them"
        return term_weights.query_of(text, self.terms, tokenizer=self._tokenizer, statistics=statistics)

    def count(self, texts: Sequence[str]) -> list[int]:
        return self._tokenizer.count(texts)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return self._tokenizer.offsets(text)
