"""What forbids that one question is answered from what was remembered for another, however near their vectors are.

A vector hardly tells "in 2019" from "in 2020" or one name from another, and crafted questions use that. So numbers and names of
the question must stand in what is remembered; and an answer is only repeated to a question of the same numbers, names, kind and
negation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from indexers import lexical
from indexers.encoders.term_weights_tokens import QUESTION_WORDS, STOP_WORDS
from retrievers import mentions

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Less "one", which mostly counts nothing.
_SPELLED = {word: str(value) for value, word in enumerate(
    ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], 2)} | {
    "first": "1", "second": "2", "third": "3", "fourth": "4", "fifth": "5", "dozen": "12", "hundred": "100", "thousand": "1000",
    "million": "1000000", "billion": "1000000000"}
_NOT = re.compile(r"\b(?:not|no|never|none|without|except|cannot|neither|nor|\w+n['’]t)\b", re.IGNORECASE)
_KINDS = tuple((kind, re.compile(rf"\b(?:{words})\b", re.IGNORECASE)) for kind, words in (
    ("count", "how many|how much|what number|number of"),
    ("time", "when|what year|which year|what date|what time|what day|what century"),
    ("length", "how (?:long|far|tall|high|deep|big|large|old|fast|often|wide)"),
    ("place", "where|what country|which country|what city"),
    ("person", "who|whom|whose"), ("reason", "why|how come"), ("manner", "how"), ("choice", "which"), ("thing", "what")))
_OPPOSED = tuple(frozenset(pair.split()) for pair in (
    "first last", "largest smallest", "biggest smallest", "highest lowest", "before after", "north south", "east west",
    "most least", "more less", "more fewer", "maximum minimum", "start end", "began ended", "begin end", "born died", "birth death",
    "oldest youngest",
    "longest shortest", "earliest latest", "above below", "won lost", "win lose", "buy sell", "increase decrease", "inside outside",
    "mother father", "son daughter", "brother sister", "king queen", "husband wife", "male female", "men women", "open close",
    "winter summer", "day night", "import export", "left right", "upper lower", "with without"))
# Words of polite frames: beside stop words and question words, these do not say what is asked about.
_FRAMES = ("please tell know like want let explain say wonder exactly actually really get got give many much long one ones could "
           "would")


def numbers(text: str) -> frozenset[str]:
    """Numbers in figures or words, as figures without separators of thousands."""
    found = {match.group().replace(",", "") for match in _NUMBER.finditer(text)}
    return frozenset(found | {_SPELLED[word] for word in re.findall(r"[a-z]+", text.lower()) if word in _SPELLED})


def names(text: str) -> frozenset[str]:
    """Index terms of the names in `text`. The first word is a name only where another of its run follows or it has an inner
    capital: sentences begin with capitals."""
    first = text.split(maxsplit=1)[0] if text.split() else ""
    terms: set[str] = set()
    for name in mentions.names(text):
        words = name.split()
        if text.startswith(name) and words and words[0] == first and first[1:] == first[1:].lower():
            words = words[1:]
        terms.update(term for word in words for term in lexical.words(word) if not term.isdigit())
    return frozenset(terms)


def kind(question: str) -> str:
    """What is asked for, by the first word that says it; "" where none does."""
    hits = [(match.start(), place, name) for place, (name, pattern) in enumerate(_KINDS)
            if (match := pattern.search(question))]
    return min(hits)[2] if hits else ""


def against_texts(question: str, texts: Iterable[str]) -> str | None:
    """Why passages cannot serve a question: a number or name of it that none of them holds; None where nothing forbids it."""
    held = list(texts)
    figures = frozenset().union(*(numbers(text) for text in held))
    missing = sorted(numbers(question) - figures)
    if missing:
        return f"number {missing[0]} is in nothing that is remembered"
    words = frozenset(term for text in held for term in lexical.words(text))
    lacking = sorted(names(question) - words)
    return f"name {lacking[0]!r} is in nothing that is remembered" if lacking else None


def against_question(question: str, past: str) -> str | None:
    """Why the answer to `past` cannot be repeated for `question`; None where nothing forbids it. One of them may have words that
    the other lacks; where both do, one thing may stand in the place of another."""
    if numbers(question) != numbers(past):
        return "the numbers differ"
    ours, theirs = frozenset(lexical.words(question)), frozenset(lexical.words(past))
    if (names(question) - theirs) | (names(past) - ours):
        return "the names differ"
    if bool(_NOT.search(question)) != bool(_NOT.search(past)):
        return "one denies and the other does not"
    if kind(question) != kind(past):
        return f"one asks for {kind(question) or 'something'}, the other for {kind(past) or 'something'}"
    apart = ours ^ theirs
    for pair in _OPPOSED:
        stems = {term for word in pair for term in lexical.words(word)}
        if len(apart & stems) > 1:
            return f"one says {min(pair)!r} and the other {max(pair)!r}"
    telling, other = sorted(ours - theirs - _plain()), sorted(theirs - ours - _plain())
    return f"{telling[0]!r} stands in the place of {other[0]!r}" if telling and other else None


@lru_cache(maxsize=1)
def _plain() -> frozenset[str]:
    return frozenset(lexical.words(" ".join((*STOP_WORDS, *QUESTION_WORDS, _FRAMES))))
