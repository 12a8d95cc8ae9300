"""What one reply is worth, and that declining pays only where it is right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eval.datasets import Question
from eval.reply import Reply, Shown
from eval.scoring import NAMES, quoted, score, score_of_failure, supports
from rag.types import Citation, Verdict
from tests.eval_fakes import question

TEXT = "The Normans came from the north. Rollo led them. He came from Norway."
UNANSWERABLE = question(answers=(), evidence=(), type="unanswerable")


def reply(text: str | None = "Rollo", *, verdict: Verdict | None = "answered", citations: tuple[Citation, ...] | None = None,
          passages: tuple[Shown, ...] = (Shown("d1", TEXT), Shown("d3", "Butter is soft."))) -> Reply:
    context = "".join(f"[{n}]\n{passage.text}\n" for n, passage in enumerate(passages, 1))
    return Reply(context=context, context_tokens=len(context.split()), passages=passages, text=text,
                 verdict=verdict if text is not None else None, citations=citations)


def citation(quote: str = "Rollo led them.", *, doc_id: str = "d1", start: int = 33) -> Citation:
    return Citation(n=1, chunk_id=f"{doc_id}:0", doc_id=doc_id, source=doc_id, page=None, start=start, end=start + len(quote),
                    quote=quote)


@pytest.mark.parametrize(("asked", "said", "verdict", "worth"), [
    (UNANSWERABLE, "", "abstained", 1),
    (UNANSWERABLE, "I don't know", "abstained", 1),
    (UNANSWERABLE, "Rollo", "answered", 0),
    (UNANSWERABLE, "", "degraded", 0),
    (UNANSWERABLE, "", "answered", 0),
    (question(), "Rollo", "abstained", 0),
    (question(answers=("the",)), "", "abstained", 0),
    (question(answers=("the",)), "", "answered", 0),
    (question(), "Rollo", "answered", 1),
    (question(), "Rollo [1].", "degraded", 1),
    (question(answers=("Norway", "Rollo"), all_answers_needed=True), "Rollo and", "answered", 0),
    (question(answers=("Norway", "Rollo"), all_answers_needed=True), "Rollo, Norway", "answered", 1),
])
def test_declining_is_credited_only_where_it_is_right(asked: Question, said: str, verdict: Verdict, worth: float) -> None:
    found = score(asked, reply(said, verdict=verdict))
    assert found["em"] == worth
    if worth == 1 or asked is UNANSWERABLE:
        assert found["f1"] == worth


def test_an_answer_has_every_metric() -> None:
    found = score(question(), reply("led by Rollo", citations=(citation(),)))
    assert tuple(found) == NAMES
    assert found == {
        "em": 0, "f1": 0.5, "rouge_l": 0.5, "contains": 1, "yes_no": None, "answer_in_context": 1, "evidence_recall": 1,
        "evidence_precision": len(TEXT) / (len(TEXT) + 15), "near_duplicates": 0, "citation_quote": 1, "citation_support": 1}


def test_a_context_alone_has_only_metrics_of_the_context() -> None:
    found, read = score(question(), reply(None)), score(question(), reply())
    context = ("answer_in_context", "evidence_recall", "evidence_precision", "near_duplicates")
    assert {name: found[name] for name in context} == {name: read[name] for name in context}
    assert all(found[name] is None for name in NAMES if name not in context)
    assert score(UNANSWERABLE, reply(None))["em"] is None


def test_an_empty_context_holds_no_answer() -> None:
    found = score(question(), reply(passages=()))
    assert (found["answer_in_context"], found["evidence_recall"]) == (0, 0)
    assert (found["evidence_precision"], found["near_duplicates"]) == (None, None)


def test_a_passage_that_is_shown_twice_is_a_near_duplicate() -> None:
    assert score(question(), reply(passages=(Shown("d1", TEXT), Shown("d9", TEXT + " ."))))["near_duplicates"] == 0.5


def test_yes_no_and_contains_beside_exact_match() -> None:
    found = score(question(answers=("yes",)), reply("Yes, it is white."))
    assert (found["em"], found["yes_no"], found["contains"], found["answer_in_context"]) == (0, 1, 1, None)


def test_without_gold_answers_only_the_evidence_counts() -> None:
    found = score(question(answers=(), type="ad hoc"), reply())
    assert (found["em"], found["f1"], found["rouge_l"], found["contains"], found["evidence_recall"]) == (None, None, None, None, 1)


@pytest.mark.parametrize(("cited", "good"), [
    (citation(), True),
    (citation("Rollo\n led  them.", start=0), True),
    (replace(citation(), end=400), False),
    (citation("Rollo led us.", start=33), False),
    (citation(doc_id="d3"), False),
    (citation("Butter is soft.", doc_id="d3"), True),
    (citation(doc_id="unknown"), False),
    (citation("", start=0), False),
])
def test_a_quote_must_be_words_of_its_source(cited: Citation, good: bool) -> None:
    assert quoted(cited, reply().passages) is good


@pytest.mark.parametrize(("answers", "said", "quote", "good"), [
    # A right answer: the quote has to hold an accepted one.
    (("Rollo",), "It was Rollo", "Rollo led them.", True),
    (("Rollo", "Rollo of Norway"), "Rollo", "He came from Norway.", False),
    # A wrong one: the quote has to say the answer's own words, beyond those of the question.
    (("Rollo",), "Harald", "Harald was there.", True),
    (("Rollo",), "Harald led the Normans", "Rollo led the Normans.", False),
    (("Rollo",), "Harald of Denmark and Knut", "Harald went to Denmark.", True),
    (("Rollo",), "The Normans", "The Normans came from the north.", True),
    # Yes and no stand in no text, and leave no content word.
    (("yes",), "Yes", "Rollo led them.", None),
    (("yes",), "Yes, from Norway", "He came from Norway.", True),
    ((), "Norway", "He came from Norway.", True),
])
def test_a_quote_supports_the_answer_that_was_given(answers: tuple[str, ...], said: str, quote: str, good: bool | None) -> None:
    assert supports(citation(quote), question(answers=answers), said) is good


def test_citations_are_shares_of_those_given() -> None:
    given = (citation(), citation("He came from Norway.", start=49), citation("Nobody said so.", start=0))
    found = score(question(), reply(citations=given))
    assert (found["citation_quote"], found["citation_support"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


@pytest.mark.parametrize("without", [
    reply(citations=None), reply(citations=()), reply("I don't know", verdict="abstained", citations=(citation(),))])
def test_without_citations_there_is_nothing_to_judge(without: Reply) -> None:
    found = score(question(), without)
    assert (found["citation_quote"], found["citation_support"]) == (None, None)


def test_a_failure_to_answer_is_wrong_and_says_nothing_about_the_context() -> None:
    found = score_of_failure(question(), read=True)
    assert tuple(found) == NAMES
    assert {name: value for name, value in found.items() if value is not None} == {
        "em": 0, "f1": 0, "rouge_l": 0, "contains": 0}
    assert score_of_failure(question(answers=("yes",)), read=True)["yes_no"] == 0
    assert score_of_failure(UNANSWERABLE, read=True)["f1"] == 0
    assert score_of_failure(question(answers=(), type="ad hoc"), read=True)["f1"] is None


def test_a_failure_to_make_a_context_showed_nothing() -> None:
    found = score_of_failure(question(), read=False)
    assert {name: value for name, value in found.items() if value is not None} == {"answer_in_context": 0, "evidence_recall": 0}
    assert set(score_of_failure(UNANSWERABLE, read=False).values()) == {None}
