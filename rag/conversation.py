"""A question that leans on what was said before, made to stand alone: without a model, by carrying words over.

Departs from historical query expansion (Lin et al. 2020, "Multi-Stage Conversational Passage Retrieval"), which adds keywords of
every earlier turn by their scores in the index: here a question is left as it is unless its form shows that it leans, so that a
change of subject carries nothing along, and the carried words are few, because whoever pays for tokens pays for them too.

A question leans when it is short of words that tell anything, begins as a continuation, or has a pronoun with no name before
it. The lists are English; in other languages only the shortness shows. `bench conversation` measures what this brings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from indexers.encoders.term_weights_tokens import QUESTION_WORDS, STOP_WORDS
from indexers.lexical_words import words
from rag.prompts import abstains
from rag.tokens import ByteEstimate

MOST_TURNS = 16                 # earlier ones are forgotten
MOST_WORDS = 12                 # carried, of all turns together
_MOST_CHARS = 2000              # of a turn; a document that somebody pasted names too much to carry any of it
_ANSWER_WORDS = 8               # a longer answer is a text, not a thing that a pronoun can stand for
_LEANING = """
it its itself they them their theirs themselves he him his himself she her hers herself this that these those one ones there
"""
_PRONOUNS = frozenset(_LEANING.split())
_CONTINUES = re.compile(r"\W*(?:and|also|but|or|so|then|what about|how about|what else|who else|where else|why not|"
                        r"which one(?! of)|same)\b", re.IGNORECASE)
# "That" and "one" often stand for nothing before them: "the valve that leaks", "one of the valves", "is there a valve".
_NOT_PRONOUNS = re.compile(r"\b(?:(?<=\w )that(?= \w)|one of|(?:is|are|was|were) there|there (?:is|are|was|were)|"
                           r"this (?:year|month|week)|the one)\b", re.IGNORECASE)
# "What is tin?" is short and asks for all of it; "what is the price?" asks for that of something.
_DEFINES = re.compile(r"\W*(?:what|who)(?: is| are| was| were|['’]s)(?: an?)? [\w'’-]+\W*$|\W*define\b", re.IGNORECASE)
_MARKS = re.compile(r"\[\d[\d, ]*\]")
_WORD = re.compile(r"\w[\w'’.&/+-]*\w|\w")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation before the question."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Standalone:
    """A question as it goes to the collection. `carried`: phrases of earlier turns that it ends in; none where it stood alone."""

    text: str
    carried: tuple[str, ...] = ()

    @property
    def added(self) -> str:
        """What was added to the question as it was asked."""
        return f" ({', '.join(self.carried)})" if self.carried else ""

    @property
    def tokens(self) -> int:
        """Tokens of what was added, estimated rather too high: it is paid from the budget."""
        return ByteEstimate().count(self.added)


def standalone(question: str, history: Sequence[Turn]) -> Standalone:
    """The question with what it needs of the earlier turns, oldest first. Empty turns and abstentions count as unsaid."""
    topic: tuple[str, ...] = ()
    answer = ""
    for turn in history[-MOST_TURNS:]:
        said = turn.text[:_MOST_CHARS]
        if turn.role == "assistant":
            answer = said
        elif said.strip():
            topic = (*_phrases(said), *(_carried(said, topic, answer) if leans(said) else ()))
            answer = ""
    carried = _carried(question, topic, answer) if leans(question) else ()
    found = Standalone(question, carried)
    return Standalone(question + found.added, carried)


def leans(question: str) -> bool:
    """Whether the form of a question shows that it needs what was said before."""
    telling = sum(_tells(word) for word in _WORD.findall(question))
    if telling == 0 or (telling == 1 and not _DEFINES.match(question)) or _CONTINUES.match(question):
        return True
    named = False
    for at, word in enumerate(_WORD.findall(_NOT_PRONOUNS.sub(" ", question))):
        if word.lower() in _PRONOUNS:
            return not named
        named = named or (at > 0 and word[:1].isupper() and _tells(word))
    return False


def _carried(question: str, topic: Sequence[str], answer: str) -> tuple[str, ...]:
    """Phrases that the question lacks, the last answer's first, within the limit."""
    said = _MARKS.sub("", answer).strip() if answer and not abstains(answer) else ""
    short = len(_WORD.findall(said)) <= _ANSWER_WORDS
    known = set(words(question))
    chosen: list[str] = []
    room = MOST_WORDS
    for phrase in (*(_phrases(said) if short else ()), *topic):
        stems = words(phrase)
        size = len(_WORD.findall(phrase))
        if size <= room and not known.issuperset(stems):
            chosen.append(phrase)
            known.update(stems)
            room -= size
    return tuple(chosen)


def _phrases(text: str) -> list[str]:
    """Runs of words that tell something, as they stand in the text."""
    found: list[str] = []
    end = -1
    for match in _WORD.finditer(text):
        if not _tells(match.group()):
            continue
        if end >= 0 and text[end:match.start()].isspace():
            found[-1] += text[end:match.end()]
        else:
            found.append(match.group())
        end = match.end()
    return found


def _tells(word: str) -> bool:
    lowered = word.lower()
    return lowered not in STOP_WORDS and lowered not in QUESTION_WORDS and lowered not in _PRONOUNS
