"""Sentence splitting: what ends a sentence and what does not, in several languages; spans into the text as it stands."""

from __future__ import annotations

import time

import pytest
import sentencex

from indexers import sentences
from indexers.sentences import split


def parts(text: str, language: str = "en") -> list[str]:
    return [text[start:end] for start, end in split(text, language)]


@pytest.mark.parametrize(("language", "expected"), [
    ("en", ["Dr. Smith met J. R. R. Tolkien at 3.5 p.m. on Jan. 5.", "He paid $3.50."]),
    ("en", ["The U.S. Army won.", "See Fig. 3 and Sec. 2.1.", "Version 2.0.1 is out."]),
    ("en", ["Born c. 1850.", "It weighs approx. 5 km.", "Smith et al. (2020) found it."]),
    ("en", ["(It did.)", "Next one."]),
    ("en", ["1. First thing.", "2. Second thing."]),
    ("en", ["Why?", "Yes!", "And so on..."]),
    ("de", ["Das ist z. B. ein Test.", "Am 3. Mai kam Dr. Müller.", "Er ging."]),
    ("fr", ["M. Dupont est là.", "Il est 3 h."]),
    ("es", ["El Sr. López vive aquí.", "¿Dónde?", "¡Allí!"]),
    ("ru", ["Это А. С. Пушкин.", "Он родился в 1799 г. в Москве."]),
    ("ar", ["هل تحب القراءة؟", "نعم، أحبها!", "ذهب د. أحمد."]),
    ("hi", ["यह एक वाक्य है।", "दूसरा वाक्य है?"]),
])
def test_sentences_end_where_a_reader_would_end_them(language: str, expected: list[str]) -> None:
    assert parts(" ".join(expected), language) == expected


def test_chinese_needs_no_spaces() -> None:
    assert parts("我喜欢你。你好吗？“他走了。”价格是3.5元！", "zh") == ["我喜欢你。", "你好吗？", "“他走了。”", "价格是3.5元！"]


def test_quotes_stay_with_their_sentence() -> None:
    assert parts('He said "Stop! Go." and left. Then rain.') == ['He said "Stop! Go." and left.', "Then rain."]


def test_lines_of_a_list_are_sentences() -> None:
    assert parts("Parts:\n- one lamp\n- two cords\n1. plug in\n2. switch on") == [
        "Parts:", "- one lamp", "- two cords", "1. plug in", "2. switch on"]


def test_a_heading_line_is_a_sentence() -> None:
    assert parts("# Warranty\nTwo years from purchase.") == ["# Warranty", "Two years from purchase."]


def test_short_lines_are_records_not_prose() -> None:
    assert parts("Name: Lamp\nPrice: 20\nColour: red") == ["Name: Lamp", "Price: 20", "Colour: red"]


def test_wrapped_prose_goes_on_over_the_line_break() -> None:
    text = "The warranty covers every lamp that was sold in the\nEuropean Union since then. It ends\nafter two years."
    assert parts(text) == [
        "The warranty covers every lamp that was sold in the\nEuropean Union since then.", "It ends\nafter two years."]


def test_an_empty_line_ends_a_sentence() -> None:
    assert parts("No full stop here and then\n\nsomething else") == ["No full stop here and then", "something else"]


def test_windows_line_ends_count_once() -> None:
    assert parts("It ends\r\nafter two years.\r\n\r\nNew") == ["It ends\r\nafter two years.", "New"]


def test_a_formula_of_one_symbol_a_line_stays_together() -> None:
    assert parts("Take\na\n+\nb\nand add them.") == ["Take\na\n+\nb\nand add them."]


@pytest.mark.parametrize("text", ["", " \n\t\r\n\u2028\u3000"])
def test_no_words_no_sentences(text: str) -> None:
    assert split(text) == ()


def test_rare_white_space_does_not_panic_the_library() -> None:
    """The library slices between the bytes of U+2028 after an initial."""
    text = "J.\u2028K. Rowling\u2028B. wrote. \ud800 It sold."
    assert "".join(parts(text)).replace("\u2028", "").replace(" ", "") == text.replace("\u2028", "").replace(" ", "")


def test_a_panic_in_the_library_falls_back_to_plain_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    PanicException = type("PanicException", (BaseException,), {})

    def panic(language: str, text: str) -> list[str]:
        raise PanicException("byte index is not a char boundary")

    monkeypatch.setattr(sentencex, "segment", panic)
    assert parts("One here. Two there! Three") == ["One here.", "Two there!", "Three"]


def test_an_interrupt_is_not_taken_for_a_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(language: str, text: str) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sentencex, "segment", interrupt)
    with pytest.raises(KeyboardInterrupt):
        split("One. Two.")


def test_pieces_that_do_not_add_up_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentencex, "segment", lambda language, text: ["One. "])
    assert parts("One. Two.") == ["One.", "Two."]


@pytest.mark.parametrize("text", [
    "我喜欢你。" * 40_000, "a.b." * 60_000, "a" * 400_000, 'He said "it. ' + "Go on. " * 50_000, "(" * 200_000])
def test_time_grows_with_the_text_not_its_square(text: str) -> None:
    started = time.perf_counter()
    found = split(text, "zh" if text[0] == "我" else "en")
    assert time.perf_counter() - started < 8          # the square would take minutes
    assert sum(end - start for start, end in found) >= len(text.replace(" ", ""))


def test_a_sentence_may_cross_the_window_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences, "_WINDOW_CHARS", 40)
    expected = [f"This is sentence number {n} of a long line." for n in range(20)]
    assert parts(" ".join(expected))[:-1] != []
    assert "".join(parts(" ".join(expected))).replace(" ", "") == "".join(expected).replace(" ", "")
    monkeypatch.setattr(sentences, "_WINDOW_CHARS", 100)
    assert parts(" ".join(expected)) == expected
