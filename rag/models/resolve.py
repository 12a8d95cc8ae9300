"""Where a model's name leads: the registry, a folder, a GGUF file, or a sentence-transformers model on a hub.

A GGUF file and a BERT sentence-transformers folder are converted once into `root/imported/KEY/`; KEY is made from the
checksums of their files, so a changed file is converted anew. Checksums of large files are remembered by path, size and
modification time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rag.durable import sha256_of
from rag.errors import ConfigError, StorageError
from rag.models.cache import ModelCache, corrupt
from rag.models.files import make_folder, write_durably
from rag.models.manifest import check
from rag.models.registry import Role, nearest
from rag.types import OnProgress, no_progress

Backend = Literal["openvino", "sentence-transformers"]
IR = "openvino_model.xml"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SEEN = "checksums.json"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What to open. `location` is a folder, or for the sentence-transformers backend also a hub id."""

    name: str
    location: str
    backend: Backend


def resolve(name: str, *, cache: ModelCache, role: Role, on_progress: OnProgress = no_progress) -> Resolved:
    """What `name` stands for: a registry name, an OpenVINO or sentence-transformers folder, a GGUF file, or OWNER/NAME
    on a hub.

    A file or folder that needs converting is converted on first use, which takes seconds to a minute.

    Raises:
        ConfigError: nothing goes by that name, or it is a model for another role; the hint suggests the nearest.
        ModelUnavailable: a registry model that was not pulled.
        ModelCorrupt: a converted model that has changed since.
        StorageError: no room for the conversion.
    """
    entry = cache.registry.get(name)
    if entry is not None:
        if entry.role != role:
            raise _unfit(name, f"has the role {entry.role}, not {role}", _of_role(cache, role))
        return Resolved(name, str(cache.path(name)), "openvino")
    path = Path(name).expanduser()
    if (path / IR).is_file():
        if not (path / "tokenizer.json").is_file():
            raise _unfit(name, f"has {IR} but no tokenizer.json", "Put the model's tokenizer.json beside it.")
        return Resolved(path.resolve().name, str(path), "openvino")
    if path.is_file() and path.suffix.lower() == ".gguf":
        if role != "reader":
            raise _unfit(name, "is a GGUF file; as an embedder they are not supported", _of_role(cache, role))
        return _gguf(path, cache, on_progress)
    if role == "embedder" and path.is_dir() and (path / "config.json").is_file():
        return _sentence_transformers(path, cache, on_progress)
    if role == "embedder" and not path.exists() and _HUB_ID.fullmatch(name):
        return Resolved(name, name, "sentence-transformers")
    if path.exists():
        raise _unfit(name, "is no model that can be used", f"Name a folder with {IR} and tokenizer.json"
                     + (", or a .gguf file." if role == "reader" else ", or a sentence-transformers folder."))
    raise ConfigError(f"There is no model, file or folder named {name!r}.", hint=nearest(cache.registry, name),
                      field=role, code="model_unknown")


def _gguf(path: Path, cache: ModelCache, on_progress: OnProgress) -> Resolved:
    sources = {path.name: _remembered_sha256(path, cache.root)}
    folder = _imported(cache, path, role="reader", name=path.stem, sources=sources, on_progress=on_progress)
    return Resolved(path.stem, str(folder), "openvino")


def _sentence_transformers(path: Path, cache: ModelCache, on_progress: OnProgress) -> Resolved:
    """Ours when it is a BERT that we can build, else left to the sentence-transformers library."""
    from indexers.encoders.bert import why_not
    from indexers.encoders.describe import source_files

    name = path.resolve().name
    if why_not(path) is not None:
        return Resolved(name, str(path), "sentence-transformers")
    sources = {file: _remembered_sha256(path / file, cache.root) for file in source_files(path)}
    folder = _imported(cache, path, role="embedder", name=name, sources=sources, on_progress=on_progress)
    return Resolved(name, str(folder), "openvino")


def _imported(cache: ModelCache, source: Path, *, role: Role, name: str, sources: Mapping[str, str],
              on_progress: OnProgress) -> Path:
    """The converted copy of a user's model, made now if it is not there."""
    key = hashlib.sha256(json.dumps(sorted(sources.items())).encode()).hexdigest()[:16]
    final = cache.root / "imported" / f"{name}-{key}"
    if not final.exists():
        with cache.locked(f"imported-{key}", on_progress=on_progress):
            if not final.exists():
                staging = make_folder(cache.root / ".staging" / f"imported-{key}")
                cache.convert(role, source, staging / "converted", name=name, sources=sources, on_progress=on_progress)
                cache.publish(staging / "converted", final, aside=staging / "replaced")
                shutil.rmtree(staging, ignore_errors=True)
    problems = check(final, sources=None, deep=False)
    if problems:
        raise corrupt(final, problems, hint="Delete that folder: it is made again on the next use.")
    return final


def _remembered_sha256(path: Path, root: Path) -> str:
    """The file's checksum, computed again only if its size or modification time is new to us."""
    memory = root / "imported" / _SEEN
    seen = _read_memory(memory)
    stat, key = path.stat(), str(path.resolve())
    if seen.get(key, [])[:2] != [stat.st_size, stat.st_mtime_ns]:
        seen[key] = [stat.st_size, stat.st_mtime_ns, sha256_of(path)]
        with contextlib.suppress(StorageError):         # a cache that cannot be written costs the reading again
            make_folder(memory.parent)
            write_durably(memory, json.dumps(seen, indent=1))
    return str(seen[key][2])


def _read_memory(memory: Path) -> dict[str, list[object]]:
    try:
        seen = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return seen if isinstance(seen, dict) else {}


def _unfit(name: str, why: str, hint: str) -> ConfigError:
    return ConfigError(f"{name!r} {why}.", hint=hint, code="model_unfit")


def _of_role(cache: ModelCache, role: Role) -> str:
    return f"Name one of: {', '.join(entry.name for entry in cache.entries() if entry.role == role)}."
