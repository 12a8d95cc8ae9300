"""All metrics of one answer to one question, and what a failure to answer is worth."""

from __future__ import annotations

from eval import metrics
from eval.datasets import Question
from rag.types import Answer

Scores = dict[str, float | None]


def score(question: Question, answer: Answer) -> Scores:
    """Every metric from 0 to 1; None where the question has nothing to compare with.

    Declining is right for unanswerable questions and only for them; an empty answer is no way of declining.
    """
    every, language = question.all_answers_needed, question.language
    shown = {passage.chunk.doc_id for passage in answer.context.passages}
    context: Scores = {
        "answer_in_context": metrics.answer_in_context(answer.context.text, question.answers, every=every,
                                                       language=language),
        "evidence_recall": metrics.evidence_recall(shown, question.evidence),
    }
    if question.unanswerable:
        declined = float(answer.verdict == "abstained")
        return {"em": declined, "f1": declined, "contains": None, "yes_no": None, **context}
    if not question.answers or answer.verdict == "abstained":
        return {**_nothing_right(question), **context}
    said = metrics.without_citations(answer.text)
    return {
        "em": metrics.exact_match(said, question.answers, every=every, language=language),
        "f1": metrics.f1(said, question.answers, every=every, language=language),
        "contains": float(metrics.contains(said, question.answers, every=every, language=language)),
        "yes_no": metrics.polar_match(said, question.answers),
        **context,
    }


def score_of_failure(question: Question) -> Scores:
    """A question that could not be answered was not answered: 0, not left out, or failing on hard ones would pay."""
    return {**_nothing_right(question), "answer_in_context": None, "evidence_recall": None}


def _nothing_right(question: Question) -> Scores:
    wrong = 0.0 if question.answers or question.unanswerable else None
    return {"em": wrong, "f1": wrong, "contains": 0.0 if question.answers else None,
            "yes_no": 0.0 if metrics.is_polar(question.answers) else None}
