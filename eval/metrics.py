"""How good an answer, a context or a ranking is. Every score is from 0 to 1; None where the question has nothing to compare.

Exact match and token F1 follow the official SQuAD 2.0 script for English, and MLQA's for the languages that it knows (de,
es, ar, hi, vi, zh: Unicode punctuation, articles by language, Chinese by character). Beyond it: French, Italian and
Portuguese articles; Japanese by character; where every answer is needed, they are together one bag of tokens in any order.
Two texts without tokens agree, as in SQuAD 2.0; MLQA, where every question has an answer, gives them an F1 of 0.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from eval.rouge import rouge_l, rouge_l_of_all

_ARTICLES = {
    "en": r"\b(?:a|an|the)\b",
    "de": r"\b(?:ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "es": r"\b(?:un|una|unos|unas|el|la|los|las)\b",
    "fr": r"\b(?:le|la|les|du|des|un|une|au|aux)\b|\b[ld]['’]",
    "it": r"\b(?:il|lo|la|i|gli|le|un|uno|una)\b|\b(?:l|un)['’]",
    "pt": r"\b(?:o|a|os|as|um|uma|uns|umas)\b",
    "vi": r"\b(?:của|là|cái|chiếc|những)\b",
    # MLQA drops these letters inside words too; followed, so that figures compare with published ones.
    "ar": "ال",
}
# Elided articles end in an apostrophe, so they have to go before the punctuation does.
_ELIDING = frozenset({"fr", "it"})
# Chinese exactly as MLQA has it; Japanese adds kana and the rarer Han.
_BY_CHARACTER = {
    "zh": re.compile("[\u4e00-\u9fa5]"),
    "ja": re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"),
}
_CITATION = re.compile(r"\s*\[\d+(?:\s*[,;]\s*\d+)*\]")
_POLARS = frozenset({"yes", "no", "maybe"})
# Words to a shingle, and the similarity from which a passage repeats another.
_SHINGLE = 3
_REPEATS = 0.8


class _Table(dict[int, str | None]):
    """For `str.translate`: characters that `drops` names become `instead`. Each is looked up once, then remembered."""

    def __init__(self, drops: Callable[[str], bool], instead: str | None) -> None:
        super().__init__()
        self._drops = drops
        self._instead = instead

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        self[code] = found = self._instead if self._drops(character) else character
        return found


# The English script knows ASCII punctuation only; the multilingual one all of Unicode's.
_ASCII = _Table(lambda character: character in string.punctuation, None)
_UNICODE = _Table(lambda character: character in string.punctuation or unicodedata.category(character)[0] == "P", None)
_WORDS_ONLY = _Table(lambda character: unicodedata.category(character)[0] not in "LMN", " ")


def tokens(text: str, *, language: str = "en") -> list[str]:
    """Words (characters in Chinese and Japanese) in lower case without punctuation and articles."""
    text = text.lower()
    if language in _ELIDING:
        text = re.sub(_ARTICLES[language], " ", text)
    text = text.translate(_ASCII if language == "en" else _UNICODE)
    if language in _ARTICLES and language not in _ELIDING:
        text = re.sub(_ARTICLES[language], " ", text)
    if language in _BY_CHARACTER:
        text = _BY_CHARACTER[language].sub(r" \g<0> ", text)
    return text.split()


def exact_match(prediction: str, answers: Sequence[str], *, every: bool = False, language: str = "en") -> float:
    """1 if the prediction is one of the answers (`every`: all of them, in any order) after normalisation.

    Answers that normalisation leaves nothing of do not count. Without any other: 1 for an empty prediction, as in SQuAD 2.0.
    """
    said, wanted = tokens(prediction, language=language), _told(answers, language)
    if every:
        return float(Counter(said) == Counter(_together(wanted)))
    return float(said in wanted)


def f1(prediction: str, answers: Sequence[str], *, every: bool = False, language: str = "en") -> float:
    """Harmonic mean of token precision and recall against the best answer (`every`: against all of them together).

    Empty answers as in `exact_match`.
    """
    said, wanted = tokens(prediction, language=language), _told(answers, language)
    return _overlap(said, _together(wanted)) if every else max(_overlap(said, answer) for answer in wanted)


def rouge(prediction: str, answers: Sequence[str], *, every: bool = False, language: str = "en") -> float:
    """ROUGE-L F-measure, over the tokens of `f1`, against the best answer (`every`: all of them, at the summary level)."""
    said, wanted = tokens(prediction, language=language), _told(answers, language)
    return rouge_l_of_all(said, wanted) if every else max(rouge_l(said, answer) for answer in wanted)


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


def evidence_precision(passages: Sequence[tuple[str, str]], evidence: Collection[str]) -> float | None:
    """Share of the characters shown that come from gold passages; `passages` as pairs of document id and text shown.

    None where no gold passage is known or nothing was shown.
    """
    total = sum(len(text) for _, text in passages)
    if not evidence or not total:
        return None
    return sum(len(text) for doc_id, text in passages if doc_id in evidence) / total


def near_duplicates(texts: Sequence[str], *, language: str = "en") -> float | None:
    """Share of the texts that repeat an earlier one: Jaccard similarity of their word 3-shingles of 0.8 or more.

    A text of fewer than three words is one shingle; one without words repeats nothing. None without texts.
    """
    if not texts:
        return None
    shingles = [_shingles(tokens(text, language=language)) for text in texts]
    repeats = sum(any(_alike(mine, other) for other in shingles[:place]) for place, mine in enumerate(shingles))
    return repeats / len(texts)


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


def _told(answers: Sequence[str], language: str) -> list[list[str]]:
    """The answers as tokens, without those that have none; one empty answer where nothing is left."""
    found = [words for words in (tokens(answer, language=language) for answer in answers) if words]
    return found or [[]]


def _together(answers: Sequence[Sequence[str]]) -> list[str]:
    return [token for answer in answers for token in answer]


def _overlap(said: list[str], wanted: list[str]) -> float:
    if not said or not wanted:
        return float(said == wanted)
    common = (Counter(said) & Counter(wanted)).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _shingles(words: Sequence[str]) -> frozenset[tuple[str, ...]]:
    if 0 < len(words) < _SHINGLE:
        return frozenset({tuple(words)})
    return frozenset(tuple(words[place:place + _SHINGLE]) for place in range(len(words) - _SHINGLE + 1))


def _alike(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> bool:
    # The sizes alone rule most pairs out before anything is intersected.
    if not one or not other or min(len(one), len(other)) < _REPEATS * max(len(one), len(other)):
        return False
    common = len(one & other)
    return common >= _REPEATS * (len(one) + len(other) - common)


def _spaced(text: str, language: str) -> str:
    """The text's words with everything that is neither letter, digit nor mark read as a space."""
    return _padded(tokens(unicodedata.normalize("NFKC", text).lower().translate(_WORDS_ONLY), language=language))


def _padded(words: Sequence[str]) -> str:
    return f" {' '.join(words)} "
