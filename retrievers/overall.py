"""Does a question ask about all texts together, or for something that one of them says?

Told by its form ("What do guests complain about?", "Summarise ...", "the main issues") and by the shape of the score list: what one
passage answers stands out from the rest, what all texts speak of does not. A strong form counts unless one passage stands out;
a weak form ("How is the breakfast?"), which asks for an opinion that many may have, counts only where the list is flat. English
forms, and the plainest of German, French and Spanish; other questions are never taken for ones about everything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from indexers import lexical

Form = Literal["strong", "weak", "none"]

_PEOPLE = (r"(?:the |most |many |all |other |some |our |these |their )*"
           r"(?:guests?|people|customers?|users?|reviewers?|reviews?|visitors?|owners?|buyers?|clients?|patients?|"
           r"employees?|students?|members?|travell?ers?|diners?|readers?|respondents?|drivers?|texts?|documents?|"
           r"comments?|tickets?|e?mails?|reports?|articles?|everyone|everybody|they|others)")
_SAYING = (r"(?:says?|thinks?|likes?|dislikes?|loves?|hates?|complains?|complaining|praises?|reports?|mentions?|wants?|"
           r"feels?|finds?|criticis\w*|criticiz\w*|recommends?|enjoys?|appreciates?|agrees?|disagrees?|discuss(?:es)?|"
           r"talks?|saying|talking|covers?)")
_THEMES = (r"(?:complaints?|issues?|themes?|topics?|points?|opinions?|problems?|concerns?|reasons?|strengths?|weaknesses|"
           r"advantages|disadvantages|praises?|criticisms?|subjects?|takeaways?|trends?|patterns?|requests?|findings|"
           r"impressions?|experiences?)")
_COMMON = (r"(?:main|most common|most frequent|most often \w+|biggest|typical|common|frequent|general|overall|key|recurring|"
           r"major|top|usual|most mentioned)")
_STRONG = tuple(re.compile(pattern, re.IGNORECASE) for pattern in (
    rf"\bwhat (?:do|did|does|are|were|have) {_PEOPLE} (?:\w+ ){{0,2}}{_SAYING}\b",
    rf"\bhow (?:do|did|does) {_PEOPLE} (?:\w+ )?(?:feel|like|rate|find|describe|judge)\b",
    rf"\b{_COMMON} (?:\w+ ){{0,2}}{_THEMES}\b",
    r"\b(?:summari[sz]e|summary of|sum up|overview of|(?:give|write) (?:me |us )?an? (?:\w+ )?(?:overview|summary))\b",
    r"\bwhat (?:topics|themes|subjects|kinds? of (?:topics|issues|complaints))\b",
    rf"\b(?:how many|what (?:share|percentage|proportion|part)|which (?:share|part)) (?:of )?{_PEOPLE} (?:\w+ )?{_SAYING}\b",
    r"\b(?:pros and cons|strengths and weaknesses|advantages and disadvantages|good and bad (?:sides|points))\b",
    r"\b(?:opinions?|feedback|sentiments?|consensus) (?:on|of|about|among|towards?)\b|\breviews? (?:of|about|say)\b",
    r"\b(?:in general|on the whole|all in all|by and large)\b",
    r"\b(?:fass\w* .{0,80}zusammen|zusammenfassung|überblick über|was sagen (?:die )?\w+ (?:über|zu)|worüber beschweren)\b",
    r"\b(?:résume[rz]?|résumé (?:de|des|du)|vue d[’']ensemble|que disent (?:les )?\w+|de quoi se plaignent)\b",
    r"\b(?:resum(?:e|en|ir) (?:de |las? |los? |el )|qué dicen|de qué se quejan|en general)\b",
))
_WEAK = tuple(re.compile(pattern, re.IGNORECASE) for pattern in (
    r"^how (?:is|are|was|were|good|bad) (?:the |your |their |its )?\w+(?: \w+){0,3}\s*\?*$",
    r"^how (?:do|did) you (?:like|find|feel about|enjoy|rate)\b",
    r"^what (?:do|did) you think (?:of|about)\b",
    r"^what (?:is|are|was|were) .{1,60} like\s*\?*$",
))
# Words of such a question that do not say what it is about.
_FORM_WORDS = frozenset(lexical.words(
    "what do does did how is are was were the a an of in on about say says think thinks like likes dislike love hate "
    "complain complains complaint complaints praise report mention want feel find criticise criticize recommend guests "
    "guest people customers customer users user reviewers reviewer reviews review visitors owners buyers clients texts text "
    "documents document comments everyone they them most many main common frequent overall general key major top issues "
    "issue themes theme topics topic points point opinions opinion problems problem concerns summarize summarise summary "
    "sum up overview give me us please all in whole collection share percentage which their and or it this that these to "
    "with for have has been said saying talk talking discuss pros cons you your"))
# How far the best passage stands out: its cosine less the mean of the next ones. From `PEAKED` on one passage has the answer.
PEAKED = 0.16
FLAT = 0.06
_NEXT = slice(4, 12)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`whole`: the question is about all texts. `topic`: what it asks about them, in index terms; empty for all they say."""

    whole: bool
    form: Form
    peak: float | None          # None where there are too few passages to tell
    topic: frozenset[str]

    def to_dict(self) -> dict[str, object]:
        return {"form": self.form, "peak": None if self.peak is None else round(self.peak, 4)}


def judged(question: str, cosines: Sequence[float]) -> Verdict:
    """`cosines`: of the passages that were found, in any order."""
    form, peak = form_of(question), peak_of(cosines)
    if form == "strong":
        whole = peak is None or peak < PEAKED
    else:
        whole = form == "weak" and peak is not None and peak < FLAT
    return Verdict(whole, form, peak, frozenset(lexical.words(question)) - _FORM_WORDS)


def form_of(question: str) -> Form:
    asked = " ".join(question.split())
    if any(pattern.search(asked) for pattern in _STRONG):
        return "strong"
    return "weak" if any(pattern.search(asked) for pattern in _WEAK) else "none"


def peak_of(cosines: Sequence[float]) -> float | None:
    """How far the best stands out of the fifth to twelfth."""
    ranked = sorted(cosines, reverse=True)
    behind = ranked[_NEXT]
    return ranked[0] - sum(behind) / len(behind) if behind else None
