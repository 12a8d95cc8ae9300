"""Files made and loaded in one step, for the tests of the loaders."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from indexers.loaders import Found, load
from rag.settings import Settings
from rag.types import Document, FileFailure


def items(path: Path, content: bytes | str, settings: Settings, *, named: bool = True) -> list[Document | FileFailure]:
    """What `docs/NAME` with this content is loaded as."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(load(Found(path, f"docs/{path.name}", path.stat().st_size, named), settings=settings))


def document(path: Path, content: bytes | str, settings: Settings) -> Document:
    """The one document that it holds."""
    [item] = items(path, content, settings)
    assert isinstance(item, Document), item
    return item


def failure(path: Path, content: bytes | str, settings: Settings) -> FileFailure:
    """The one reason why it is refused, which names the file and leaves a hint."""
    [item] = items(path, content, settings)
    assert isinstance(item, FileFailure), item
    assert item.source == f"docs/{path.name}"
    assert item.message.startswith(f"docs/{path.name}: ")
    assert item.hint
    return item


def outline(made: Document) -> list[tuple[str, str]]:
    """Heading and text of each block."""
    return [(block.heading, made.text[slice(*block.span)]) for block in made.blocks]


def zipped(members: Mapping[str, bytes | str], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def repacked(data: bytes, changes: Mapping[str, bytes]) -> bytes:
    """A zip with some members' contents exchanged or added."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return zipped({**{name: archive.read(name) for name in archive.namelist()}, **changes})
