"""What passes between this process and those that parse for it: frames of a kind, a JSON head and a text.

    kind (1 byte) | length of the head (4) | length of the text (8) | head | text        (little-endian)

JSON and not pickle: a parser taken over by a hostile file must not gain more than its own process. Documents stay as they
came, undecoded, until somebody asks for them; so what waits is as large as it looks.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import IO, cast

from indexers.loaders.discovery import Found
from rag.types import Block, Document, FieldValue, FileFailure, Skipped, Span

_HEADER = struct.Struct("<BIQ")


class Kind(IntEnum):
    """`READY` once, then for each file its documents and failures and one end; after `LAST` the process has ended itself."""

    READY, FILE, DOCUMENT, FAILURE, SKIPPED, END, LAST = range(7)


@dataclass(frozen=True, slots=True)
class Frame:
    kind: Kind
    head: bytes = b""
    text: bytes = b""

    @property
    def size(self) -> int:
        return len(self.head) + len(self.text)


def write(stream: IO[bytes], frame: Frame) -> None:
    """Does not flush."""
    stream.write(_HEADER.pack(frame.kind, len(frame.head), len(frame.text)))
    stream.write(frame.head)
    stream.write(frame.text)


def read(stream: IO[bytes], *, largest: int) -> Frame | None:
    """The next frame; None at the stream's end, which may come inside a frame.

    Raises:
        ValueError: what comes is no frame, or one larger than `largest` bytes.
    """
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    kind, head_size, text_size = _HEADER.unpack(header)
    if head_size + text_size > largest:
        raise ValueError(f"a frame of {head_size + text_size} bytes")
    head = stream.read(head_size) if head_size else b""
    text = stream.read(text_size) if text_size else b""
    return Frame(Kind(kind), head, text) if len(head) + len(text) == head_size + text_size else None


def of_file(found: Found) -> Frame:
    return Frame(Kind.FILE, _packed([os.fsdecode(found.path), found.source, found.size, found.named]))


def to_file(frame: Frame) -> Found:
    path, source, size, named = json.loads(frame.head)
    return Found(Path(path), source, size, named)


def of_item(item: Document | FileFailure) -> Frame:
    if isinstance(item, FileFailure):
        kind = Kind.SKIPPED if isinstance(item, Skipped) else Kind.FAILURE
        return Frame(kind, _packed([item.source, item.code, item.message, item.hint]))
    blocks = [[*block.span, block.heading, block.page, [place for unit in block.units for place in unit]] for block in item.blocks]
    head = [item.id, item.source, item.uri, item.title, item.content_hash, item.media_type, item.language, item.metadata, blocks]
    return Frame(Kind.DOCUMENT, _packed(head), item.text.encode("utf-8", "surrogatepass"))


def to_item(frame: Frame) -> Document | FileFailure:
    """
    Raises:
        ValueError: the frame holds neither a document nor a failure.
    """
    head = json.loads(frame.head)
    if frame.kind is Kind.DOCUMENT:
        id_, source, uri, title, content_hash, media_type, language, metadata, blocks = head
        return Document(id=id_, source=source, uri=uri, title=title, text=frame.text.decode("utf-8", "surrogatepass"),
                        content_hash=content_hash, blocks=tuple(map(_block, blocks)), media_type=media_type, language=language,
                        metadata={name: _field(value) for name, value in metadata.items()})
    if frame.kind in (Kind.FAILURE, Kind.SKIPPED):
        return (Skipped if frame.kind is Kind.SKIPPED else FileFailure)(*head)
    raise ValueError(f"a frame of kind {frame.kind.name}")


def _block(row: list[object]) -> Block:
    start, end, heading, page, places = cast(tuple[int, int, str, int | None, list[int]], row)
    units: tuple[Span, ...] = tuple(zip(places[::2], places[1::2], strict=True))
    return Block((start, end), heading, page, units)


def _field(value: object) -> FieldValue:
    return cast(FieldValue, tuple(value) if isinstance(value, list) else value)


def _packed(value: object) -> bytes:
    # ASCII alone, because a file's name may hold bytes that are no text.
    return json.dumps(value, separators=(",", ":")).encode("ascii")
