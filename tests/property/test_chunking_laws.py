"""Laws of chunking over random Unicode documents: nothing lost, nothing doubled, never over the limit, spans exact."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexers import division
from indexers.chunking import chunk, embedding_text
from indexers.sentences import split
from rag.types import Block, Document, Span

_WORD = re.compile(r"\w+|[^\w\s]|\n")
Counter = Callable[[Sequence[str]], list[int]]
Offsets = Callable[[str], list[tuple[int, int]]]


def by_word() -> tuple[Counter, Offsets]:
    return (lambda texts: [2 + len(_WORD.findall(text)) for text in texts],
            lambda text: [match.span() for match in _WORD.finditer(text)])


def by_character() -> tuple[Counter, Offsets]:
    return lambda texts: [2 + len(text) for text in texts], lambda text: [(at, at + 1) for at in range(len(text))]


def by_fives() -> tuple[Counter, Offsets]:
    """Not additive: two texts together may have one token less or more than apart."""
    return (lambda texts: [2 + -(-len(text) // 5) for text in texts],
            lambda text: [(at, min(at + 5, len(text))) for at in range(0, len(text), 5)])


def by_stretch() -> tuple[Counter, Offsets]:
    """Any run without white space is one token, as an unknown word is to WordPiece."""
    return (lambda texts: [1 + len(text.split()) for text in texts],
            lambda text: [match.span() for match in re.finditer(r"\S+", text)])


COUNTERS = {"word": by_word, "character": by_character, "fives": by_fives, "stretch": by_stretch}

_SIGNS = "abcDEF .,;!?\"'()[]-–\n\r\t0123。、？！「」中文字かな한글العربية\u200d\u0301\u2028\u3000\x1c😀🏽#|*>"
_PHRASES = ("Dr. Smith left at 3.5 p.m. ", "It rained. ", "Why? ", "我们走了。", "\n\n", "\n- item ", "A very long ",
            "x" * 90 + " ", "word, word; word: ", "هل تحب؟ ", "(See Fig. 2.) ")
_SOUP = st.text(alphabet=_SIGNS, max_size=400)
_PROSE = st.lists(st.sampled_from(_PHRASES), max_size=60).map("".join)
_TEXT = st.one_of(_SOUP, _PROSE, st.text(max_size=300))


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Blocks in order, with gaps, headings, pages, and units in some of them."""
    parts: list[str] = []
    blocks: list[Block] = []
    length = 0
    for _ in range(draw(st.integers(0, 4))):
        gap, body = draw(st.sampled_from(["", "\n", "# Heading\n\n"])), draw(_TEXT)
        parts += [gap, body]
        start, end = length + len(gap), length + len(gap) + len(body)
        units: list[Span] = []
        if draw(st.booleans()):
            cuts = sorted(draw(st.sets(st.integers(start, end), max_size=8)))
            units = [(a, b) for a, b in zip(cuts[::2], cuts[1::2], strict=False) if a < b]
        heading = draw(st.sampled_from(["", "Guide", "Guide > Warranty", "w" * 300, "a > " * 30]))
        blocks.append(Block((start, end), heading=heading, page=draw(st.sampled_from([None, 1, 2])), units=tuple(units)))
        length = end
    title, language = draw(st.sampled_from(["", "Title", "Long title " * 30])), draw(st.sampled_from(["en", "zh", "ar", "xx"]))
    return Document(id="d", source="d.txt", uri="/d.txt", title=title, text="".join(parts), content_hash="",
                    blocks=tuple(blocks), language=language)


@pytest.mark.parametrize("name", COUNTERS)
@settings(max_examples=150, deadline=None)
@given(document=documents(), max_tokens=st.sampled_from([32, 50, 200]))
def test_chunks_hold_every_block_once_within_the_limit(name: str, document: Document, max_tokens: int) -> None:
    count, offsets = COUNTERS[name]()
    chunks = chunk(document, max_tokens=max_tokens, count=count, offsets=offsets)

    covered = [0] * len(document.text)
    for ordinal, piece in enumerate(chunks):
        assert piece.text == document.text[slice(*piece.span)]
        assert piece.text == piece.text.strip() != ""
        assert piece.ordinal == ordinal
        assert piece.tokens == count([embedding_text(piece)])[0] <= max_tokens
        for at in range(*piece.span):
            covered[at] += 1
    for block in document.blocks:
        for at in range(*block.span):
            assert covered[at] == 1 or (document.text[at].isspace() and covered[at] == 0)
    assert len({piece.id for piece in chunks}) == len(chunks)
    assert chunks == chunk(document, max_tokens=max_tokens, count=count, offsets=offsets)


@settings(max_examples=200, deadline=None)
@given(document=documents(), max_tokens=st.sampled_from([32, 200]))
def test_sentences_hold_all_of_a_chunk_in_order(document: Document, max_tokens: int) -> None:
    count, offsets = by_word()
    for piece in chunk(document, max_tokens=max_tokens, count=count, offsets=offsets):
        done = 0
        for start, end in piece.sentences:
            assert done <= start < end
            assert not piece.text[done:start].strip()
            assert piece.text[start:end] == piece.text[start:end].strip()
            done = end
        assert done == len(piece.text)


@settings(max_examples=200, deadline=None)
@given(document=documents())
def test_a_chunk_stays_on_its_page_and_under_its_heading(document: Document) -> None:
    count, offsets = by_word()
    for piece in chunk(document, max_tokens=100, count=count, offsets=offsets):
        touched = [block for block in document.blocks
                   if block.span[0] < piece.span[1] and piece.span[0] < block.span[1] and document.text[slice(*block.span)].strip()]
        assert {block.page for block in touched} == {piece.page}
        for block in touched:
            # A carried heading is the block's own, or the inner part of it.
            assert block.heading.endswith(piece.heading.rstrip("…")) or piece.heading.rstrip("…") in block.heading


@settings(max_examples=300, deadline=None)
@given(text=_TEXT, language=st.sampled_from(["en", "de", "zh", "ja", "ar", "ru", "hi", "fr", "es", "", "xx"]))
def test_sentence_spans_are_exact_and_complete(text: str, language: str) -> None:
    done = 0
    for start, end in split(text, language):
        assert done <= start < end
        assert not text[done:start].strip()
        assert text[start:end] == text[start:end].strip()
        done = end
    assert not text[done:].strip()


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(1, 50), st.sampled_from([0.0, 0.3, 1.0])), min_size=1, max_size=14))
def test_the_division_is_the_best_of_all(sizes: list[tuple[int, float]]) -> None:
    """Against trying every division, where every place may be used (the limit is under the step that joins small ones)."""
    limit = 50
    atoms = [division.Atom(at, at + 1, max(3, tokens), penalty) for at, (tokens, penalty) in enumerate(sizes)]
    total = sum(atom.tokens for atom in atoms)
    share = total / -(-total // limit)

    def cost(cuts: list[int]) -> float:
        bounds = [0, *cuts, len(atoms)]
        worth = 0.0
        for start, end in pairwise(bounds):
            tokens = sum(atom.tokens for atom in atoms[start:end])
            if tokens > limit:
                return float("inf")
            worth += (1 - tokens / share) ** 2 + (atoms[start].penalty if start else 0.0)
        return worth

    found: list[int] = []
    at = 0
    for run in division.divide(atoms, limit=limit)[:-1]:
        at += len(run)
        found.append(at)
    best = min(cost([at + 1 for at in range(len(atoms) - 1) if mask >> at & 1]) for mask in range(2 ** (len(atoms) - 1)))
    assert total <= limit or cost(found) == pytest.approx(best)
