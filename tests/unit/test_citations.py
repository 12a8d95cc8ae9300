"""Citations are found in what was read, and a reader's own marks are believed only where they name a passage."""

from __future__ import annotations

import pytest

from rag import prompts
from rag.citations import check
from rag.types import Context, Passage
from tests.fakes import make_chunk

FIRST = make_chunk("The warranty lasts two years. It covers parts.", id="a:0:0", doc_id="a", start=100)
SECOND = make_chunk("Shipping takes nine days. Returns are free for two weeks.", id="b:0:0", doc_id="b")
CONTEXT = Context("", 0, (Passage(1, FIRST, (0, 1)), Passage(2, SECOND, (1,))))


def test_a_verbatim_answer_is_cited_with_its_exact_span() -> None:
    checked = check("two years", CONTEXT, sentences=["two years"], question="How long does the warranty last?")
    assert checked.support == "verbatim"
    citation = checked.citations[0]
    assert (citation.n, citation.doc_id, citation.quote) == (1, "a", "The warranty lasts two years.")
    assert (citation.start, citation.end) == (100, 129)


def test_the_sentence_nearest_to_the_question_wins_a_tie() -> None:
    checked = check("two", CONTEXT, sentences=["two"], question="For how many weeks are returns free?")
    assert checked.citations[0].quote == "Returns are free for two weeks."


def test_a_reworded_answer_is_cited_by_its_words() -> None:
    checked = check("Parts are covered", CONTEXT, sentences=["Parts are covered"], question="What is covered?")
    assert (checked.support, checked.citations[0].quote) == ("words", "It covers parts.")


def test_an_answer_from_nowhere_is_not_cited() -> None:
    checked = check("Napoleon Bonaparte", CONTEXT, sentences=["Napoleon Bonaparte"], question="Who?")
    assert (checked.support, checked.citations) == ("none", ())


def test_sentences_that_were_not_read_are_never_cited() -> None:
    checked = check("nine days", CONTEXT, sentences=["nine days"], question="How long does shipping take?")
    assert all(citation.quote != "Shipping takes nine days." for citation in checked.citations)


def test_yes_is_cited_by_what_it_was_judged_from() -> None:
    checked = check("Yes.", CONTEXT, sentences=["Yes."], question="Are returns free?")
    assert (checked.support, checked.citations[0].n) == ("context", 2)


def test_forged_marks_are_dropped_and_reported() -> None:
    checked = check("Two years [1] [7].", CONTEXT, sentences=["Two years [1] [7]."], question="How long?")
    assert (checked.text, checked.unknown_marks) == ("Two years [1].", (7,))
    assert checked.citations[0].n == 1


def test_a_mark_narrows_the_match_to_its_passage() -> None:
    checked = check("two [2]", CONTEXT, sentences=["two [2]"], question="How long does the warranty last?")
    assert checked.citations[0].n == 2


def test_no_context_no_citations() -> None:
    assert check("Paris", Context("", 0, ()), sentences=["Paris"], question="q").citations == ()


@pytest.mark.parametrize(("answer", "expected"), [
    ("I don't know.", True), ("I don’t know", True), ("I do not know the answer.", True), ("Unknown.", True),
    ("The context does not mention it.", True), ("Not specified in the context", True), ("No answer", True),
    ("The unknown soldier", False), ("two years", False), ("Notable", False), ("", False),
])
def test_the_reader_declining(answer: str, expected: bool) -> None:
    assert prompts.abstains(answer) is expected


def test_marks_are_read_and_removed() -> None:
    assert prompts.marks("a [1] b [2, 3]") == [1, 2, 3]
    assert prompts.without_marks("a [1, 9] b [9].", [9]) == "a [1] b."
