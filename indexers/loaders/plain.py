"""Plain text: one block; the sentence splitter finds the paragraphs."""

from __future__ import annotations

from indexers.loaders.outline import Parsed
from indexers.loaders.reading import decode
from rag.settings import Settings
from rag.types import Block


def parse(data: bytes, *, name: str, settings: Settings) -> Parsed:
    text = decode(data)
    return Parsed(text=text, blocks=whole(text))


def whole(text: str) -> tuple[Block, ...]:
    """One block over all but the white space around it; none for an empty text."""
    body = text.strip()
    start = len(text) - len(text.lstrip())
    return (Block(span=(start, start + len(body))),) if body else ()
