"""The inverted index of a segment against plain counting, whole and broken."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from indexers import lexical, lexical_file, lexical_merge
from indexers.lexical import LexicalIndex
from rag.errors import SnapshotCorrupt, SnapshotMismatch
from tests.lexical_fakes import stored_length

TEXTS = ["The cat sat on the mat.", "", "A dog, a cat; a heron!", "--- ?!", "保修期 ends 2024", "Der Fluß fließt", "cat cat cat",
         "the heron eats " * 20, "हिन्दी हिन्दी"]


def made(folder: Path, texts: list[str]) -> LexicalIndex:
    folder.mkdir(parents=True)
    lexical.write(folder, texts)
    return LexicalIndex(folder)


def content(folder: Path) -> bytes:
    return (folder / lexical.FILE).read_bytes()


@pytest.mark.parametrize(("text", "expected"), [
    ("The warranties last", ["the", "warranti", "last"]), ("E-1042_b", ["e", "1042", "b"]), ("保修期", ["保修", "修期"]),
    ("猫", ["猫"]), ("Ⅷ ﬁne", ["viii", "fine"]), ("naïve Straße", ["naïve", "strass"]), ("한국어 문서", ["한국어", "문서"]),
    ("", []), ("--- !", []),
    ("हिन्दी में", ["हिन्दी", "में"]), ("مُحَمَّد", ["مُحَمَّد"]), ("I ❤️ it", ["i", "it"]), ("a\u0301b", ["áb"]), ("ซื้อ", ["ซื", "ื้", "้อ"]),
    ("x" * 300, ["x" * 255]), ("é" * 300, ["é" * 255]), ("\ud800 a", ["a"]), ("a\x00b", ["a", "b"]),
])
def test_words(text: str, expected: list[str]) -> None:
    assert lexical.words(text) == expected


def test_plain_text_gives_the_same_words_on_the_fast_way() -> None:
    text = "".join(map(chr, range(128))) + " O'Neill's 3.5-litre CASES_were running\tfaster\r\nTHAN e.g. x86_64 "
    assert lexical.words(text) == [word for word in lexical.words(text + "é") if word != "é"]


def test_words_met_after_the_cache_was_full_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "warranties ended while herons were eating fishes"
    before = lexical.words(text)
    monkeypatch.setattr("indexers.lexical_words._CACHED", 2)
    assert lexical.words(text) == before


def test_a_length_in_one_byte_is_what_lucene_makes_of_it() -> None:
    lengths = np.asarray([*range(3000), 10_000, 123_456, 2**31 - 1], np.int32)
    assert lexical.LENGTHS[lexical.length_bytes(lengths)].tolist() == [stored_length(int(length)) for length in lengths]
    assert stored_length(41) == 40  # as published for Lucene's byte: exact below 40, then by halves of a power of two


def test_postings_are_the_counts_of_words(tmp_path: Path) -> None:
    index = made(tmp_path / "a", TEXTS)
    bags = [Counter(lexical.words(text)) for text in TEXTS]
    assert index.size == len(TEXTS)
    assert index.lengths.tolist() == [bag.total() for bag in bags]
    assert index.tokens == sum(bag.total() for bag in bags)
    known = set().union(*bags)
    assert set(index.vocabulary()) == known
    for word in known:
        positions, times = index.postings(word)
        expected = {i: bag[word] for i, bag in enumerate(bags) if word in bag}
        assert dict(zip(positions.tolist(), times.tolist(), strict=True)) == expected
        assert (np.diff(positions) > 0).all()
    assert [len(part) for part in index.postings("unseen")] == [0, 0]
    assert [number >= 0 for number in index.find(["unseen", "cat", "", "保修"])] == [False, True, False, True]
    assert list(map(Counter, index.bags())) == bags
    assert index.problems() == []


@pytest.mark.parametrize("texts", [[], [""], ["", "..."]])
def test_nothing_to_index_is_an_index_of_nothing(tmp_path: Path, texts: list[str]) -> None:
    index = made(tmp_path / "a", texts)
    assert (index.size, index.tokens, index.vocabulary(), index.find(["a"])) == (len(texts), 0, [], [-1])
    assert list(index.bags()) == [[]] * len(texts)
    assert index.problems() == []


def test_a_word_counts_at_most_as_often_as_a_byte_holds(tmp_path: Path) -> None:
    index = made(tmp_path / "a", ["echo " * 300 + "end"])
    assert index.postings("echo")[1].tolist() == [lexical.MOST]
    assert index.lengths.tolist() == [lexical.MOST + 1]
    assert Counter(next(index.bags())) == {"echo": lexical.MOST, "end": 1}


def test_an_index_does_not_depend_on_the_blocks_it_was_made_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(tmp_path / "whole", TEXTS)
    bags = [Counter(bag) for bag in whole.bags()]
    monkeypatch.setattr(lexical, "_BLOCK", 2)
    monkeypatch.setattr(lexical, "_PIECE", 3)
    monkeypatch.setattr(lexical_merge, "_PIECE", 4)
    made(tmp_path / "pieces", TEXTS)
    assert content(tmp_path / "pieces") == content(tmp_path / "whole")
    assert [Counter(bag) for bag in whole.bags()] == bags
    assert whole.problems() == []


@pytest.mark.parametrize("piece", [1, 5, 1 << 21])
def test_merging_equals_writing_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{n}" for n in rng.zipf(1.4, size=rng.integers(0, 30)) % 50) for _ in range(60)]
    groups = [texts[:25], texts[25:26], [], texts[26:]]
    monkeypatch.setattr(lexical_merge, "_PIECE", piece)
    parts = [made(tmp_path / f"part{i}", group) for i, group in enumerate(groups)]
    for name, chance in (("all", 1.0), ("some", 0.4), ("none", 0.0)):
        keeps = [np.flatnonzero(rng.random(part.size) < chance) for part in parts]
        (tmp_path / name).mkdir()
        lexical.merge(tmp_path / name, list(zip(parts, keeps, strict=True)))
        kept = [group[at] for group, keep in zip(groups, keeps, strict=True) for at in keep]
        made(tmp_path / f"{name}-written", kept)
        assert content(tmp_path / name) == content(tmp_path / f"{name}-written")


def test_merging_nothing_is_an_empty_index(tmp_path: Path) -> None:
    lexical.merge(tmp_path, [])
    assert LexicalIndex(tmp_path).size == 0


def test_positions_to_keep_must_ascend(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ascend"):
        lexical.merge(tmp_path, [(made(tmp_path / "a", TEXTS), np.asarray([2, 0]))])


def test_a_written_index_is_never_overwritten(tmp_path: Path) -> None:
    made(tmp_path / "a", TEXTS)
    with pytest.raises(FileExistsError):
        lexical.write(tmp_path / "a", [])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotCorrupt, match=lexical.FILE):
        LexicalIndex(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 63, 64, 200, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = made(tmp_path / "a", TEXTS).path
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SnapshotCorrupt, match=lexical.FILE):
        LexicalIndex(tmp_path / "a")


def test_a_longer_file_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "a", TEXTS).path
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(SnapshotCorrupt, match="where its header says"):
        LexicalIndex(tmp_path / "a")


@pytest.mark.parametrize("field", [16, 24, 32, 40])
def test_sizes_that_do_not_fit_the_file_are_refused(tmp_path: Path, field: int) -> None:
    for size in (0, 10_000, 2**63 + 5):
        patch(made(tmp_path / f"{size}", TEXTS), field, struct.pack("<Q", size))
        with pytest.raises(SnapshotCorrupt, match=lexical.FILE):
            LexicalIndex(tmp_path / f"{size}")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    patch(made(tmp_path / "a", TEXTS), 0, b"PARQUET!")
    with pytest.raises(SnapshotCorrupt, match="no lexical index"):
        LexicalIndex(tmp_path / "a")


def test_another_format_is_refused_with_the_command_to_run(tmp_path: Path) -> None:
    patch(made(tmp_path / "a", TEXTS), 8, struct.pack("<Q", 9))
    with pytest.raises(SnapshotMismatch, match="format 9") as caught:
        LexicalIndex(tmp_path / "a")
    assert "collections rebuild" in caught.value.hint


def test_postings_outside_of_the_file_are_refused_when_met(tmp_path: Path) -> None:
    index = made(tmp_path / "a", TEXTS)
    number = index.find(["cat"])[0]
    broken = patch(index, at_section(index, "starts") + 8 * (number + 1), struct.pack("<q", 10**12), reopen=True)
    with pytest.raises(SnapshotCorrupt, match=rf"{lexical.FILE} has postings of word {number}"):
        broken.postings("cat")
    assert broken.problems()


@pytest.mark.parametrize(("section", "value", "problem"), [
    ("keys", b"\xff", "digest"), ("ends", b"\x7f", "offsets do not ascend"), ("starts", b"\x7f", "offsets do not ascend"),
    ("letters", b"\xff", "digest"), ("lengths", b"\x55", "chunks do not have as many words"), ("positions", b"\x77", "not there"),
    ("codes", b"\x99", "length of their chunk"),
])
def test_verification_finds_what_contradicts(tmp_path: Path, section: str, value: bytes, problem: str) -> None:
    index = made(tmp_path / "a", TEXTS)
    broken = patch(index, at_section(index, section) + (8 if section in ("ends", "starts") else 0), value, reopen=True)
    found = broken.problems()
    assert any(problem in each for each in found), found
    assert all(lexical.FILE in each for each in found)


def test_verification_finds_postings_out_of_order_and_wrong_totals(tmp_path: Path) -> None:
    index = made(tmp_path / "a", ["a b", "a c", "a d"])
    start, _ = index.span(index.find(["a"])[0])
    swapped = struct.pack("<iii", 1, 0, 2)
    broken = patch(index, at_section(index, "positions") + 4 * start, swapped, reopen=True)
    assert any("out of order" in each for each in broken.problems())
    broken = patch(made(tmp_path / "b", TEXTS), 48, struct.pack("<Q", 1), reopen=True)
    assert any("header counts 1 words" in each for each in broken.problems())


def at_section(index: LexicalIndex, name: str) -> int:
    """The byte in the file at which an array begins."""
    order = ["keys", "ends", "starts", "letters", "lengths", "positions", "codes"]
    sizes = lexical_file._Sizes(index.size, len(index.arrays.keys), len(index.arrays.positions), len(index.arrays.letters))
    return list(sizes.sections())[order.index(name)][1]


def patch(index: LexicalIndex, at: int, values: bytes, *, reopen: bool = False) -> LexicalIndex:
    """The index with these bytes in its file, which is replaced: mapped ones keep the old."""
    whole = index.path.read_bytes()
    index.path.unlink()
    index.path.write_bytes(whole[:at] + values + whole[at + len(values):])
    return LexicalIndex(index.path.parent) if reopen else index
