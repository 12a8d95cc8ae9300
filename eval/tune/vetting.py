"""The rules that a generated pair must pass, and how good a set of questions is, with no model but the encoder.

Of the question metrics of Balaguer et al. 2024 (RAG versus fine-tuning, agriculture), relevance, coverage, overlap,
diversity and detail are computed; global relevance and fluency, which need a judging model, are not. Two of them decide: a
question far from its passage is off topic, and one too near to another is a duplicate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from eval import metrics
from eval.tune.pairs import Pair
from eval.tune.writing import Draft
from indexers import lexical
from indexers.encoders import Vectors
from rag.types import Chunk

REASONS: Mapping[str, str] = {
    "unparsed": "the reader wrote no question with an answer",
    "not_a_question": "it is no question, or far too short or long",
    "answer_too_long": "the answer is no short phrase",
    "not_grounded": "the answer does not stand in the passage",
    "not_self_contained": "the question cannot be understood without the passage",
    "answer_in_question": "the question holds its answer",
    "duplicate": "another question asks the same",
    "off_topic": "the question is far from its passage",
    "not_answered": "the reader could not answer it from its own passage",
    "known_by_heart": "the reader answers it without any passage",
    "source_gone": "its passage is no longer in the collection",
    "dropped": "dropped in the review",
}
MOST_ALIKE = 0.9
_LEAST_RELEVANCE = 0.2
_LONGEST_FUNCTION_WORD = 3
_MOST_ANSWER_WORDS, _MOST_ANSWER_CHARACTERS = 12, 100
_QUESTION_CHARACTERS = range(8, 301)
_ENDS = re.compile(r"[?？؟;]\s*$")
# What points at a passage that nobody sees, in the languages that splitting and scoring know best.
_POINTS_AT_TEXT = re.compile(
    r"\b(?:(?:this|the|that|these|above|following|given|provided) (?:above |following |given |provided )?"
    r"(?:passage|text|paragraph|excerpt|extract|context|article|document|section|sentence|statement|table|list|quote)s?"
    r"|the authors?|the writer|the speaker|mentioned (?:above|here|in)|described (?:above|here)|according to (?:this|the) "
    r"(?:passage|text|author)|(?:dies(?:er|em|en|es)|de[rmn]|das) (?:text|abschnitt|absatz|textstelle|autor)s?"
    r"|(?:ce|le|cet|du|l') ?(?:texte|passage|paragraphe|extrait|auteur)|(?:este|el|del) (?:texto|pasaje|párrafo|autor)"
    r"|(?:questo|il|del) (?:testo|brano|paragrafo)|(?:este|o|do) (?:texto|trecho|parágrafo))\b", re.IGNORECASE)
_PRONOUN = re.compile(r"\b(?:he|him|his|she|her|hers|they|them|their|theirs|its|it|this|these|those)\b", re.IGNORECASE)
# "How long does it take to ...", "What does it mean that ...": nothing is meant by this "it".
_EMPTY_IT = re.compile(r"\bit (?:takes?|costs?|possible|necessary|important|required|allowed|safe|legal|means?)\b", re.IGNORECASE)
# A name or a thing before the pronoun that it can stand for: a capitalised word, or a noun after its article.
_ANTECEDENT = re.compile(r"\s[\"'“(]?[^\W\d_a-z][\w.'-]+|\b(?:an?|the|each|every|most|some|all|many)\s+(?:[\w-]+\s+)?[a-z]{3,}")


def fault(draft: Draft, chunk: Chunk, *, language: str) -> str | None:
    """The first rule that the draft breaks, by its name in REASONS, or None. Cheap: no model is asked."""
    question, answer = draft.question, draft.answer
    if not _ENDS.search(question) or len(question) not in _QUESTION_CHARACTERS:
        return "not_a_question"
    said = metrics.tokens(answer, language=language)
    if len(answer) > _MOST_ANSWER_CHARACTERS or len(said) > _MOST_ANSWER_WORDS * (3 if language in ("zh", "ja") else 1):
        return "answer_too_long"
    if not said or not metrics.contains(chunk.text, [answer], language=language):
        return "not_grounded"
    if not self_contained(question):
        return "not_self_contained"
    if metrics.contains(question, [answer], language=language):
        return "answer_in_question"
    return None


def self_contained(question: str) -> bool:
    """Whether the question makes sense alone: it points at no passage, and no pronoun stands for something unnamed."""
    if _POINTS_AT_TEXT.search(question):
        return False
    pronoun = _PRONOUN.search(_EMPTY_IT.sub(" ", question))
    if pronoun is None:
        return True
    if pronoun.group().lower() in ("this", "these", "those"):
        return False
    # The first word is capitalised whatever it is, so the search begins after it.
    before = _EMPTY_IT.sub(" ", question)[:pronoun.start()]
    return bool(_ANTECEDENT.search(before, len(before.split(" ", 1)[0])))


def is_off_topic(question: Vectors, passage: Vectors) -> bool:
    return relevance(question, passage) < _LEAST_RELEVANCE


def relevance(question: Vectors, passage: Vectors) -> float:
    """Cosine of two unit vectors of shape (dimension,)."""
    return float(question @ passage)


def is_duplicate(question: str, vector: Vectors, others: Sequence[tuple[str, Vectors]], *, language: str) -> bool:
    """Whether one of the others has the same words after normalisation, or a cosine of MOST_ALIKE or more."""
    said = metrics.tokens(question, language=language)
    return any(said == metrics.tokens(other, language=language) or float(vector @ other_vector) >= MOST_ALIKE
               for other, other_vector in others)


def overlap(question: str, chunk: Chunk) -> float:
    """Share of the question's longer words that stand in its passage: at 1 it can be found by matching words alone."""
    terms = set(lexical.words(question))
    asked = {term for term in terms if len(term) > _LONGEST_FUNCTION_WORD} or terms
    held = set(lexical.words("\n".join((chunk.title, chunk.heading, chunk.text))))
    return len(asked & held) / len(asked) if asked else 0.0


def question_metrics(pairs: Sequence[Pair], *, vectors: Vectors, documents: int) -> dict[str, float]:
    """Means over the pairs, at least one. `vectors`: of their questions, shape (n, dimension); `documents`: in the collection.

    relevance: cosine with the own passage; coverage: share of the documents that are asked about; overlap: share of a
    question's words that stand in its passage; diversity: 1 less the mean cosine between questions (1 for a single one);
    detail: words in a question, and in an answer.
    """
    found: dict[str, float] = {}
    for name in ("relevance", "overlap"):
        values = [value for pair in pairs if isinstance(value := pair.facts.get(name), float)]
        if values:
            found[name] = float(np.mean(values))
    if documents:
        found["coverage"] = len({pair.doc_id for pair in pairs if pair.doc_id}) / documents
    n = len(pairs)
    between = float(np.sum(vectors @ vectors.T) - np.sum(vectors * vectors))
    found["diversity"] = 1 - between / (n * (n - 1)) if n > 1 else 1.0
    found["question_words"] = float(np.mean([len(pair.question.split()) for pair in pairs]))
    answers = [len(pair.answers[0].split()) for pair in pairs if pair.answers]
    if answers:
        found["answer_words"] = float(np.mean(answers))
    return {name: round(value, 4) for name, value in found.items()}
