"""The model registry: what each named model is made of, where it may be had, and what its files must be.

`rag/models.toml` ships with the package. Nothing in it is trusted for having been downloaded: bytes and sha256 of every
file are pinned here, so hub and package mirror are interchangeable sources.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from rag.errors import ConfigError

Role = Literal["embedder", "reader"]
FORMAT = 1
REGISTRY = Path(__file__).resolve().parent.parent / "models.toml"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that a model is made of. `member` is a glob inside the mirror's wheels; several matches are its pieces."""

    path: str
    bytes: int
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class MirrorPackage:
    """A wheel on the user's package index that carries (a piece of) a model. Size and checksum are the wheel's."""

    name: str
    version: str
    bytes: int
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One row of the registry. `installed_bytes` and `convert_bytes` are estimates, everything else is exact."""

    name: str
    role: Role
    licence: str
    description: str
    repo: str
    revision: str
    installed_bytes: int
    convert_bytes: int
    files: tuple[SourceFile, ...]
    packages: tuple[MirrorPackage, ...]

    @property
    def download_bytes(self) -> int:
        """What the hub sends; the mirror's wheels are a little smaller."""
        return sum(file.bytes for file in self.files)

    @property
    def mirror_bytes(self) -> int:
        return sum(package.bytes for package in self.packages)

    @property
    def sources(self) -> dict[str, str]:
        """Path to sha256 of every source file: what a converted model must say it was made from."""
        return {file.path: file.sha256 for file in self.files}

    def to_dict(self) -> dict[str, object]:
        return {"name": self.name, "role": self.role, "licence": self.licence, "description": self.description,
                "hub": f"{self.repo}@{self.revision}", "download_bytes": self.download_bytes,
                "installed_bytes": self.installed_bytes}


Registry = Mapping[str, ModelEntry]


def load_registry(path: Path = REGISTRY) -> Registry:
    """Every entry by name, in file order.

    Raises:
        ConfigError: the file is not a registry of this format, or a file path leads out of the model's folder.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if table["format"] != FORMAT:
            raise ValueError(f"format {table['format']!r}, this version reads {FORMAT}")
        entries = [_entry(row) for row in table["model"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"The model registry {path} cannot be read: {error!r}.", hint="Reinstall thriftrag.") from error
    return {entry.name: entry for entry in entries}


def find(registry: Registry, name: str) -> ModelEntry:
    """The entry called `name`.

    Raises:
        ConfigError: unknown name; the hint suggests the nearest.
    """
    entry = registry.get(name)
    if entry is None:
        raise ConfigError(f"There is no model named {name!r}.", hint=nearest(registry, name), field="model",
                          code="model_unknown")
    return entry


def nearest(registry: Registry, name: str) -> str:
    """A hint for a name that is not in the registry."""
    near = difflib.get_close_matches(name.lower(), list(registry), n=1)
    return f"Did you mean {near[0]!r}?" if near else f"The registry has: {', '.join(registry)}."


def _entry(row: dict[str, object]) -> ModelEntry:
    files = tuple(_source_file(file) for file in _rows(row.pop("file")))
    packages = tuple(MirrorPackage(**package) for package in _rows(row.pop("packages")))  # type: ignore[arg-type]
    return ModelEntry(**row, files=files, packages=packages)  # type: ignore[arg-type]  # wrong keys raise TypeError here


def _source_file(row: dict[str, object]) -> SourceFile:
    file = SourceFile(**row)  # type: ignore[arg-type]  # wrong keys raise TypeError here
    path = PurePosixPath(file.path)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{file.path!r} leads out of the model's folder")
    return file


def _rows(value: object) -> list[dict[str, object]]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list of tables")
    return [dict(row) for row in value]
