"""The one seam between the commands and the product: settings in, an open collection or the model cache out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rag import settings as all_settings
from rag.cli import checks
from rag.settings import Settings
from rag.types import OnProgress

if TYPE_CHECKING:
    from indexers.backup import Manifest
    from rag.models import ModelCache
    from rag.thriftrag import CollectionInfo, ThriftRAG

_OUR_PACKAGES = ("rag", "indexers", "retrievers", "optimizers", "eval")


def settings(*, home: Path | None = None, collection: str | None = None, reader: str | None = None,
             model_source: str | None = None, workers: int | None = None, fallback: str | None = None,
             verbose: bool = False) -> Settings:
    """The effective settings with these flags on top; also decides how much is logged to stderr.

    Raises:
        ConfigError: from the file, the environment or a flag.
        InputError: the collection's name cannot be one.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)
    for package in _OUR_PACKAGES:
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.WARNING)
    loaded = all_settings.load({"home": home, "collection": collection, "reader": reader, "model_source": model_source,
                                "workers": workers, "fallback": fallback})
    checks.collection(loaded.collection)
    return loaded


def open_kb(chosen: Settings, *, create: bool) -> ThriftRAG:
    """The collection named in the settings.

    Raises:
        CollectionMissing: it is not there and `create` is False.
    """
    from rag.thriftrag import ThriftRAG

    return ThriftRAG.open(chosen.collection, create=create, settings=chosen)


def list_collections(chosen: Settings) -> list[CollectionInfo]:
    from rag.thriftrag import list_collections

    return list_collections(chosen)


def collection_names(chosen: Settings) -> list[str]:
    """For completion, which has no time to open them: the names of their folders."""
    root = chosen.home / "collections"
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def delete_collection(name: str, *, chosen: Settings) -> None:
    from rag.thriftrag import delete_collection

    delete_collection(name, settings=chosen)


def import_collection(archive: Path, name: str | None, *, chosen: Settings, on_progress: OnProgress, cancelled: Callable[[], bool]
                      ) -> tuple[str, Manifest] | None:
    from rag.thriftrag import import_collection

    return import_collection(archive, name, settings=chosen, on_progress=on_progress, cancelled=cancelled)


def model_cache(chosen: Settings) -> ModelCache:
    from rag.models import ModelCache

    return ModelCache(chosen.models)


def model_names(chosen: Settings) -> list[str]:
    return [entry.name for entry in model_cache(chosen).entries()]
