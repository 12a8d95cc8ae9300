"""The frozen encoder of a training run: its published files and its OpenVINO graph."""

from __future__ import annotations

from pathlib import Path

from indexers.encoders.bert import IR, convert_bert
from indexers.training.tilde.backbone import Published, published
from rag import settings as configuration
from rag.models import ModelCache
from rag.types import OnProgress


def backbone_files(folder: Path | None, model: str, out: Path, *, on_progress: OnProgress) -> Published:
    """Those in `folder`; without one those of the registry's `model`, fetched below `out`."""
    if folder is None:
        folder = ModelCache(configuration.load().models).published(model, out / "published", on_progress=on_progress)
    return published(folder, name=model)


def converted(source: Published, folder: Path, *, on_progress: OnProgress) -> Path:
    """The backbone as an OpenVINO graph, in a folder of its name, as its identity is read from there."""
    if not (folder / IR).is_file():
        part = folder.with_name(f"{folder.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        convert_bert(source.folder, part, name=source.description.name, on_progress=on_progress)
        part.rename(folder)
    return folder
