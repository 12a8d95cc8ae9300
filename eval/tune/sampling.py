"""Passages to ask about: running text, spread over the documents, the same for the same seed and collection.

One question a passage, and every document once before any twice: the set then covers the collection (the coverage of
Balaguer et al. 2024, RAG versus fine-tuning, who vet synthetic questions so) instead of its longest document.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from random import Random
from typing import Protocol

from rag.types import Chunk

_FEWEST_WORDS = 20
# Wide characters: two or three make a word.
_CHARACTERS_PER_WORD = 3
_LEAST_LETTERS = 0.6
_LEAST_SENTENCE_WORDS = 5


class Chunks(Protocol):
    def chunks_of(self, document_ids: Sequence[str]) -> Sequence[Chunk]:
        """All chunks of these documents, in order; unknown ids have none."""


def unreadable(chunk: Chunk) -> str | None:
    """Why no question can be asked about this passage alone, or None: too short, or a table, a list or code."""
    text = chunk.text
    if words(text) < _FEWEST_WORDS:
        return "too_short"
    visible = [character for character in text if not character.isspace()]
    if sum(character.isalpha() for character in visible) < _LEAST_LETTERS * len(visible):
        return "tabular"
    # A sentence carries a statement; the cells of a table and the lines of a list are short pieces.
    told = [words(chunk.sentence(i)) for i in range(len(chunk.sentences))]
    if sum(count for count in told if count >= _LEAST_SENTENCE_WORDS) < 0.5 * sum(told):
        return "tabular"
    return None


def words(text: str) -> float:
    """Words, where runs of characters that are written without spaces count a word for every few of them."""
    wide = sum(character > "\u2e7f" and character.isalpha() for character in text)
    spaced = "".join(" " if character > "\u2e7f" else character for character in text).split()
    return len(spaced) + wide / _CHARACTERS_PER_WORD


def passages(collection: Chunks, document_ids: Sequence[str], *, seed: int, known: Collection[str] = ()) -> Iterator[Chunk]:
    """Readable passages without repeats: one of each document in random order, then a second one of each, and so on.

    `known`: ids of chunks that are not wanted again. The order of `document_ids` does not matter.
    """
    order = sorted(document_ids)
    Random(seed).shuffle(order)
    turn = 0
    while order:
        left = []
        for document in order:
            # Drawn anew each turn from the document's own seed: nothing of a large collection is held in memory.
            own = [chunk for chunk in collection.chunks_of([document]) if unreadable(chunk) is None]
            Random(f"{seed}:{document}").shuffle(own)
            if turn < len(own) and own[turn].id not in known:
                yield own[turn]
            if turn + 1 < len(own):
                left.append(document)
        order, turn = left, turn + 1
