"""Chunking: what goes together, what is kept apart, how long things are cut. The laws are in tests/property."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from indexers.chunking import chunk, embedding_text, normalised_hash
from rag.types import Block, Chunk, Document

_WORD = re.compile(r"\w+|[^\w\s]")


def count(texts: Sequence[str]) -> list[int]:
    return [2 + len(_WORD.findall(text)) for text in texts]


def offsets(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _WORD.finditer(text)]


def document(text: str, *blocks: Block, title: str = "", language: str = "en") -> Document:
    return Document(id="d", source="d.md", uri="/d.md", title=title, text=text, content_hash="", language=language,
                    blocks=blocks or (Block((0, len(text))),))


def chunks(made: Document, max_tokens: int = 32) -> list[Chunk]:
    return chunk(made, max_tokens=max_tokens, count=count, offsets=offsets)


def words(n: int, stop: str = ".") -> str:
    return " ".join(["word"] * (n - 1)) + stop


def test_a_short_document_is_one_chunk_with_its_sentences() -> None:
    [only] = chunks(document("It rained. We left.", title="Weather"))
    assert (only.text, only.span, only.page, only.title) == ("It rained. We left.", (0, 19), None, "Weather")
    assert [only.sentence(at) for at in range(2)] == ["It rained.", "We left."]
    assert embedding_text(only) == "Weather\nIt rained. We left."
    assert only.tokens == count([embedding_text(only)])[0]


def test_ids_name_document_ordinal_and_content() -> None:
    first, second = chunks(document(f"{words(20)}\n\n{words(20)}"))
    assert re.fullmatch(r"d:0:[0-9a-f]{8}", first.id)
    assert re.fullmatch(r"d:1:[0-9a-f]{8}", second.id)
    # What is encoded changes with the title, so the id must too.
    titled, _ = chunks(document(f"{words(20)}\n\n{words(20)}", title="T"))
    assert titled.id != first.id


def test_paragraphs_that_fit_are_not_divided() -> None:
    made = chunks(document("\n\n".join(f"{words(6)} {words(6)} {words(6)}" for _ in range(3))))
    assert [len(piece.sentences) for piece in made] == [3, 3, 3]


def test_a_section_just_over_the_limit_is_halved_not_trimmed() -> None:
    made = chunks(document(" ".join(words(4) for _ in range(10))))      # 40 tokens where 30 fit
    assert [len(piece.sentences) for piece in made] == [5, 5]


def test_a_last_short_paragraph_shares_with_the_one_before() -> None:
    made = chunks(document(" ".join(words(4) for _ in range(7)) + f"\n\n{words(4)}"))
    assert [len(piece.sentences) for piece in made] == [4, 4]


def test_a_paragraph_end_is_not_lost_behind_a_tiny_sentence() -> None:
    """A six-token sentence before the paragraph's end once hid that end from the division."""
    paragraphs = [[27, 45, 31, 48, 6], [28, 22, 28, 46], [16, 17, 32, 34, 15]]
    made = chunks(document("\n\n".join(" ".join(words(n) for n in sizes) for sizes in paragraphs)), 197)
    assert [len(piece.sentences) for piece in made] == [5, 4, 5]


def test_headings_and_pages_are_never_mixed() -> None:
    text = "Alpha one.\nBeta two.\nGamma three."
    blocks = (Block((0, 10), heading="A", page=1), Block((11, 20), heading="B", page=1), Block((21, 33), heading="B", page=2))
    assert [(piece.heading, piece.page, piece.text) for piece in chunks(document(text, *blocks), 200)] == [
        ("A", 1, "Alpha one."), ("B", 1, "Beta two."), ("B", 2, "Gamma three.")]


def test_neighbouring_blocks_under_one_heading_share_a_chunk() -> None:
    text = "Use it so:\n\nrun fast\nstop"
    blocks = (Block((0, 10), heading="A"), Block((12, 25), heading="A", units=((12, 20), (21, 25))))
    [only] = chunks(document(text, *blocks), 200)
    assert [only.sentence(at) for at in range(3)] == ["Use it so:", "run fast", "stop"]


def test_words_between_blocks_keep_them_apart() -> None:
    """A heading line that repeats the title stands between two blocks without a heading: it belongs to neither."""
    text = "Before.\n# Title\nAfter."
    made = chunks(document(text, Block((0, 7)), Block((16, 22)), title="Title"), 200)
    assert [piece.text for piece in made] == ["Before.", "After."]


def test_rows_are_the_sentences_and_every_piece_carries_the_header() -> None:
    rows = [f"| item {n} | {n} |" for n in range(12)]
    text = "\n".join(rows)
    starts = [text.index(row) for row in rows]
    units = tuple((start, start + len(row)) for start, row in zip(starts, rows, strict=True))
    made = chunks(document(text, Block((0, len(text)), heading="Item | Price", units=units)))
    assert len(made) > 1
    assert {piece.heading for piece in made} == {"Item | Price"}
    assert [piece.sentence(at) for piece in made for at in range(len(piece.sentences))] == rows


def test_words_beside_the_units_are_kept() -> None:
    made = chunks(document("Prices. a | 1\nb | 2 End.", Block((0, 24), units=((8, 13), (14, 19)))), 200)
    assert [made[0].sentence(at) for at in range(4)] == ["Prices.", "a | 1", "b | 2", "End."]


def test_a_long_sentence_is_cut_at_a_clause() -> None:
    made = chunks(document(f"{words(20, ',')} {words(20, ',')} {words(20)}"))
    assert [piece.text[-1] for piece in made] == [",", ",", "."]
    assert all(len(piece.sentences) == 1 for piece in made)


def test_a_long_sentence_without_clauses_is_cut_at_white_space() -> None:
    made = chunks(document(words(100)))
    assert all(set(piece.text.rstrip(".").split()) == {"word"} for piece in made)


def test_chinese_without_punctuation_is_cut_between_characters() -> None:
    made = chunk(document("我喜欢你们" * 40, language="zh"), max_tokens=32, count=lambda texts: [2 + len(text) for text in texts],
                 offsets=lambda text: [(at, at + 1) for at in range(len(text))])
    assert "".join(piece.text for piece in made) == "我喜欢你们" * 40
    assert max(len(piece.text) for piece in made) <= 30


def test_a_cut_never_parts_a_letter_from_its_accent() -> None:
    made = chunk(document("e\u0301" * 100), max_tokens=32, count=lambda texts: [2 + len(text) for text in texts],
                 offsets=lambda text: [(at, at + 1) for at in range(len(text))])
    assert not any(piece.text.startswith("\u0301") for piece in made)


def test_an_unknown_word_of_any_length_makes_no_chunk_without_end() -> None:
    """WordPiece counts a run of 100,000 letters as one unknown token."""
    made = chunk(document("x" * 100_000), max_tokens=32, count=lambda texts: [2 + len(text.split()) for text in texts],
                 offsets=lambda text: [match.span() for match in re.finditer(r"\S+", text)])
    assert max(len(piece.text) for piece in made) <= 320


def test_a_long_title_and_heading_leave_half_for_the_text() -> None:
    made = chunks(document(words(60), Block((0, len(words(60))), heading="Outer part > " + words(40)), title=words(80)))
    assert all(piece.tokens <= 32 for piece in made)
    assert max(len(_WORD.findall(made[0].title)), len(_WORD.findall(made[0].heading))) <= 8
    assert made[0].title.endswith("…")
    assert made[0].heading.endswith("…")


def test_of_a_heading_path_the_inner_part_is_kept() -> None:
    text = "Two years."
    [only] = chunks(document(text, Block((0, 10), heading="One two three four > Five six seven > Warranty terms")))
    assert only.heading == "Five six seven > Warranty terms"


def test_the_hash_is_of_the_words_not_their_form() -> None:
    assert normalised_hash("Ｔｉｎ  is\na METAL") == normalised_hash("tin is a metal")
    assert normalised_hash("tin is a metal") != normalised_hash("tin is no metal")


def test_source_and_metadata_go_with_each_chunk() -> None:
    made = chunks(replace(document("Hello there."), metadata={"author": "Ann"}))
    assert (made[0].source, made[0].metadata) == ("d.md", {"author": "Ann"})


@pytest.mark.parametrize("blocks", [(Block((0, 0)),), (Block((0, 3)),)])
def test_nothing_to_read_makes_no_chunk(blocks: tuple[Block, ...]) -> None:
    assert chunks(document(" \n ", *blocks)) == []


@pytest.mark.parametrize("text", ["a\n" * 100_000, "It rained here today. " * 20_000, "x" * 400_000, "a, " * 150_000])
def test_time_grows_with_the_text_not_its_square(text: str) -> None:
    started = time.perf_counter()
    chunk(document(text), max_tokens=200, count=lambda texts: [2 + len(text) // 5 for text in texts],
          offsets=lambda text: [(at, min(at + 5, len(text))) for at in range(0, len(text), 5)])
    assert time.perf_counter() - started < 8          # the square would take minutes
