"""How good an answer, a context or a ranking is. Every score is from 0 to 1; None where the question has nothing to compare.

Exact match and token F1 follow the official SQuAD 2.0 script for English, and MLQA's for other languages (Unicode
punctuation, articles by language, Chinese by character; here Japanese too). Departures: French, Italian and Portuguese
articles are added; where every answer is needed, the answers together are one bag of tokens in any order.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence

_ARTICLES = {
    "en": r"\b(?:a|an|the)\b",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "fr": r"\b(?:le|la|les|du|des|un|une|au|aux)\b|\b[ld]['’]",
    "it": r"\b(?:il|lo|la|i|gli|le|un|uno|una)\b|\b(?:l|un)['’]",
    "pt": r"\b(?:o|a|os|as|um|uma|uns|umas)\b",
    "ar": r"(?:(?<=\s)|^)ال",
}
# Elided articles end in an apostrophe, so they have to go before the punctuation does.
_ELIDING = frozenset({"fr", "it"})
_BY_CHARACTER = frozenset({"zh", "ja"})
# Kana and Han.
_CHARACTER = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_CITATION = re.compile(r"\s*\[\d+(?:\s*[,;]\s*\d+)*\]")
_POLARS = frozenset({"yes", "no", "maybe"})


def tokens(text: str, *, language: str = "en") -> list[str]:
    """Words (characters in Chinese and Japanese) in lower case without punctuation and articles."""
    text = text.lower()
    if language in _ELIDING:
        text = re.sub(_ARTICLES[language], " ", text)
    text = "".join(character for character in text if not _punctuation(character, language))
    if language in _ARTICLES and language not in _ELIDING:
        text = re.sub(_ARTICLES[language], " ", text)
    if language in _BY_CHARACTER:
        text = _CHARACTER.sub(r" \g<0> ", text)
    return text.split()


def exact_match(prediction: str, answers: Sequence[str], *, every: bool = False, language: str = "en") -> float:
    """1 if the prediction is one of the answers (`every`: all of them, in any order) after normalisation.

    No answers: 1 for an empty prediction, as in SQuAD 2.0.
    """
    said = tokens(prediction, language=language)
    if every:
        return float(Counter(said) == Counter(_together(answers, language)))
    return float(any(said == tokens(answer, language=language) for answer in answers or [""]))


def f1(prediction: str, answers: Sequence[str], *, every: bool = False, language: str = "en") -> float:
    """Harmonic mean of token precision and recall against the best answer (`every`: against all of them together).

    No answers: 1 for an empty prediction, as in SQuAD 2.0.
    """
    said = tokens(prediction, language=language)
    if every:
        return _overlap(said, _together(answers, language))
    return max(_overlap(said, tokens(answer, language=language)) for answer in answers or [""])


def contains(text: str, answers: Sequence[str], *, every: bool = False, language: str = "en") -> bool:
    """Whether `text` holds any of the answers (`every`: all of them) as whole words, whatever the case and punctuation.

    Punctuation inside words separates here ("French-speaking" holds "French"), and joins as in `tokens` ("10,000"
    holds "10000"): either reading counts. False without answers.
    """
    readings = [_spaced(text, language), _padded(tokens(text, language=language))]
    held = [any(part.strip() and part in reading for reading, part in zip(readings, parts, strict=True))
            for parts in ([_spaced(answer, language), _padded(tokens(answer, language=language))] for answer in answers)]
    return bool(held) and (all(held) if every else any(held))


def is_polar(answers: Sequence[str]) -> bool:
    """Whether the question wants yes, no or maybe: then no passage can contain the answer in a meaningful way."""
    return bool(answers) and all(" ".join(tokens(answer)) in _POLARS for answer in answers)


def polar_match(prediction: str, answers: Sequence[str]) -> float | None:
    """1 if the first word of the prediction is the right one of yes, no and maybe. None for other questions."""
    if not is_polar(answers):
        return None
    said = tokens(prediction)[:1]
    return float(any(said == tokens(answer) for answer in answers))


def answer_in_context(context: str, answers: Sequence[str], *, every: bool = False, language: str = "en") -> float | None:
    """1 if the rendered context holds an answer (`every`: all of them). None without answers and for yes/no questions."""
    if not answers or is_polar(answers):
        return None
    return float(contains(context, answers, every=every, language=language))


def evidence_recall(shown: Collection[str], evidence: Collection[str]) -> float | None:
    """Share of the gold passages of which at least one sentence was shown. None where no gold passage is known."""
    if not evidence:
        return None
    return len(set(evidence) & set(shown)) / len(set(evidence))


def without_citations(text: str) -> str:
    """The answer without its marks such as [1] or [1, 3], which no gold answer has."""
    return _CITATION.sub("", text).strip()


def ranked_documents(doc_ids: Sequence[str]) -> list[str]:
    """Documents by their best chunk: the ranking of chunks with each document's later chunks left out."""
    return list(dict.fromkeys(doc_ids))


def recall_at(ranking: Sequence[str], relevant: Collection[str], *, k: int) -> float:
    """Share of the relevant documents, at least one, among the first k."""
    return len(set(ranking[:k]) & set(relevant)) / len(set(relevant))


def sufficiency_at(ranking: Sequence[str], relevant: Collection[str], *, k: int) -> float:
    """1 if every relevant document is among the first k."""
    return float(set(relevant) <= set(ranking[:k]))


def ndcg_at(ranking: Sequence[str], relevant: Collection[str], *, k: int) -> float:
    """Discounted cumulative gain at k with gains of 0 and 1, over that of the best possible ranking."""
    gain = sum(1 / math.log2(rank + 1) for rank, found in enumerate(ranking[:k], start=1) if found in relevant)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(set(relevant))) + 1))


def reciprocal_rank(ranking: Sequence[str], relevant: Collection[str]) -> float:
    """1 over the rank of the first relevant document; 0 if there is none."""
    return next((1 / rank for rank, found in enumerate(ranking, start=1) if found in relevant), 0.0)


def _punctuation(character: str, language: str) -> bool:
    # The English script knows ASCII punctuation only; the multilingual one all of Unicode's.
    return character in string.punctuation or (language != "en" and unicodedata.category(character).startswith("P"))


def _together(answers: Sequence[str], language: str) -> list[str]:
    return [token for answer in answers for token in tokens(answer, language=language)]


def _overlap(said: list[str], wanted: list[str]) -> float:
    if not said or not wanted:
        return float(said == wanted)
    common = (Counter(said) & Counter(wanted)).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _spaced(text: str, language: str) -> str:
    """The text's words with everything that is neither letter, digit nor mark read as a space."""
    kept = "".join(character if unicodedata.category(character)[0] in "LMN" else " "
                   for character in unicodedata.normalize("NFKC", text).lower())
    return _padded(tokens(kept, language=language))


def _padded(words: Sequence[str]) -> str:
    return f" {' '.join(words)} "
