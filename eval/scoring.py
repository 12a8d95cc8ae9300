"""All metrics of one reply to one question, and what a failure is worth.

"I don't know" is credited only where it is right: a reply counts as declining by its verdict, and an empty text is no way
of declining. Metrics of the answer are None where the reader was not asked; those of the context are there either way.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval import metrics
from eval.datasets import Question
from eval.reply import Reply, Shown
from rag.types import Citation

Scores = dict[str, float | None]

ANSWER = ("em", "f1", "rouge_l", "contains", "yes_no")
CONTEXT = ("answer_in_context", "evidence_recall", "evidence_precision", "near_duplicates")
CITATIONS = ("citation_quote", "citation_support")
NAMES = (*ANSWER, *CONTEXT, *CITATIONS)
# An answer's own words of which fewer than this stand in a quote are coincidence.
_ENOUGH = 0.5
_FUNCTION_WORDS = frozenset(metrics.tokens(
    "and or but as is are was were be been it its this that these those with which who whom whose what when where why how do "
    "does did has have had not no yes he she they his her their there than then of in on at by for to from"))


def score(question: Question, reply: Reply) -> Scores:
    """The metrics of `NAMES`, each from 0 to 1; None where the question has nothing to compare with.

    An unanswerable question gives `em`, `f1` and `rouge_l` 1 if the reply declined, else 0.
    """
    return {**_answer(question, reply), **_context(question, reply), **_citations(question, reply)}


def score_of_failure(question: Question, *, read: bool) -> Scores:
    """What failed was neither answered nor, where only a context was asked for, shown: 0, or failing on hard ones would pay.

    Where the reader was asked (`read`), nothing says whether the context was good: its metrics are None.
    """
    unknown: Scores = dict.fromkeys(NAMES)
    if read:
        return unknown | _wrong(question)
    return unknown | {
        "answer_in_context": metrics.answer_in_context("", question.answers),
        "evidence_recall": metrics.evidence_recall((), question.evidence)}


def nothing_fitted(reason: object) -> bool:
    """Whether a system said nothing only because no passage went into its budget: that is no judgement of the question, and
    one that shows nothing must not win on questions without answers."""
    return isinstance(reason, str) and reason.startswith("budget_too_small")


def quoted(citation: Citation, passages: Sequence[Shown]) -> bool:
    """Whether the quote is words of its source: as long as its span says, and verbatim in what was shown of that document.

    White space may differ, because a prompt folds it.
    """
    quote = _folded(citation.quote)
    return bool(quote) and len(citation.quote) == citation.end - citation.start and any(
        quote in _folded(passage.text) for passage in passages if passage.doc_id == citation.doc_id)


def supports(citation: Citation, question: Question, text: str) -> bool | None:
    """Whether the quote bears the answer `text` out.

    Of a right answer: the quote holds an accepted answer (where all are needed, any of them). Of any other, and where yes
    or no is asked: it holds at least half of the answer's content words: those that are no function words and not in the
    question already; where that leaves none, those that are no function words. None if there are none at all ("Yes").
    """
    golds, language = question.answers, question.language
    if not metrics.is_polar(golds) and metrics.contains(text, golds, every=question.all_answers_needed, language=language):
        return metrics.contains(citation.quote, golds, language=language)
    own = {word for word in metrics.tokens(text, language=language) if word not in _FUNCTION_WORDS}
    content = own - set(metrics.tokens(question.text, language=language)) or own
    if not content:
        return None
    return len(content & set(metrics.tokens(citation.quote, language=language))) >= _ENOUGH * len(content)


def _answer(question: Question, reply: Reply) -> Scores:
    if reply.text is None:
        return dict.fromkeys(ANSWER)
    if question.unanswerable:
        declined = float(reply.verdict == "abstained" and not nothing_fitted(reply.reason))
        return {"em": declined, "f1": declined, "rouge_l": declined, "contains": None, "yes_no": None}
    said = metrics.without_citations(reply.text)
    if not question.answers or reply.verdict == "abstained" or not said:
        return _wrong(question)
    every, language = question.all_answers_needed, question.language
    return {
        "em": metrics.exact_match(said, question.answers, every=every, language=language),
        "f1": metrics.f1(said, question.answers, every=every, language=language),
        "rouge_l": metrics.rouge(said, question.answers, every=every, language=language),
        "contains": float(metrics.contains(said, question.answers, every=every, language=language)),
        "yes_no": metrics.polar_match(said, question.answers),
    }


def _wrong(question: Question) -> Scores:
    """No answer, or none that can be right; None where no answer is known."""
    worth = 0.0 if question.answers or question.unanswerable else None
    return {"em": worth, "f1": worth, "rouge_l": worth, "contains": 0.0 if question.answers else None,
            "yes_no": 0.0 if metrics.is_polar(question.answers) else None}


def _context(question: Question, reply: Reply) -> Scores:
    shown = [(passage.doc_id, passage.text) for passage in reply.passages]
    return {
        "answer_in_context": metrics.answer_in_context(reply.context, question.answers, every=question.all_answers_needed,
                                                       language=question.language),
        "evidence_recall": metrics.evidence_recall({doc_id for doc_id, _ in shown}, question.evidence),
        "evidence_precision": metrics.evidence_precision(shown, question.evidence),
        "near_duplicates": metrics.near_duplicates([text for _, text in shown], language=question.language),
    }


def _citations(question: Question, reply: Reply) -> Scores:
    """Shares of the reply's citations. None where it gives none: a reply that declined has nothing to cite."""
    if not reply.text or not reply.citations or reply.verdict == "abstained":
        return dict.fromkeys(CITATIONS)
    said = metrics.without_citations(reply.text)
    told = [told for citation in reply.citations if (told := supports(citation, question, said)) is not None]
    return {"citation_quote": sum(quoted(citation, reply.passages) for citation in reply.citations) / len(reply.citations),
            "citation_support": sum(told) / len(told) if told else None}


def _folded(text: str) -> str:
    return " ".join(text.split())
