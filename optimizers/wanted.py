"""What kind of answer a question asks for, by its words, and whether a sentence has anything of that kind. English only: questions
of other languages ask for nothing in particular, and their sentences are all the same by these signs."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = re.compile(
    r"\b(?:how (?:many|much|long|old|far|tall|big|often|fast|large|high|deep)|when|(?:what|which) (?:year|date|day|month|century|"
    r"percent\w*|number|population|time|age|amount)|the (?:total|number|amount|percentage) of)\b", re.IGNORECASE)
_NAME = re.compile(
    r"\b(?:who|whom|whose|where|which|what (?:person|city|country|state|team|name|company|book|film|movie|song|band))\b",
    re.IGNORECASE)
_FIGURE = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundred|thousand|million|billion|half|january|"
    r"february|march|april|may|june|july|august|september|october|november|december)\b", re.IGNORECASE)
# A capital that begins no sentence.
_CAPITAL = re.compile(r"(?<=[\w,;:'\")] )[A-Z][\w'-]+")
_WORD = re.compile(r"\w+")
_MANY = 12


def wants_number(question: str) -> bool:
    """A quantity or a date."""
    return bool(_NUMBER.search(question))


def wants_name(question: str) -> bool:
    """A person, a place or anything else that has a name."""
    return bool(_NAME.search(question))


def has_number(sentence: str) -> bool:
    return bool(_FIGURE.search(sentence))


def names(sentence: str) -> list[str]:
    """Words inside of the sentence that begin with a capital."""
    return _CAPITAL.findall(sentence)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a question asks for, and its words."""

    words: frozenset[str]
    number: bool
    name: bool


def wanted(question: str) -> Wanted:
    return Wanted(frozenset(words(question)), wants_number(question), wants_name(question))


def signs(asked: Wanted, sentence: str) -> tuple[float, float, float]:
    """Share of a dozen words that the question lacks; 1 if it asks for a number and the sentence has none; 1 if it asks for a name
    and the sentence has one that the question lacks."""
    new = min(len(words(sentence) - asked.words), _MANY) / _MANY
    missing = asked.number and not has_number(sentence)
    named = asked.name and any(name.lower() not in asked.words for name in names(sentence))
    return new, float(missing), float(named)


def words(text: str) -> set[str]:
    """Lower-cased, each once."""
    return {word.lower() for word in _WORD.findall(text)}
