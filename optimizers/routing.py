"""What can be known about a question before it is read, and about an answer after: the signs that a router decides by.

`seen` looks at the candidates, the chances of their sentences, the choice and the question's words; `said` at the answer that a
reader gave from the choice. Both are plain numbers with a bounded scale, so that a small linear model can weigh them and a set of
another style does not throw it off. Question signs by words are English; other languages have none of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optimizers import wanted
from optimizers.pool import Pool, Unit, best_of
from optimizers.sufficiency import sufficiency
from rag.types import Extract

SEEN = ("sufficiency", "best_chance", "second_chance", "chance_mass", "best_cosine", "behind_second", "behind_fifth", "spread",
        "covered", "covered_by_best", "rare_terms", "context_tokens", "passages", "question_words", "question_names",
        "wants_number", "wants_name", "polar", "compares", "explains")
SAID = ("declined", "verbatim", "by_words", "unsupported", "answer_words", "echoes_question", "cut", "kind_missing")
SURE = ("mean_logprob", "least_logprob")        # where the reader tells them

_POLAR = re.compile(r"^\W*(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|may|might)\b", re.IGNORECASE)
_COMPARES = re.compile(r"\b(?:or|both|same|than|older|younger|earlier|later|first|more|less|between)\b", re.IGNORECASE)
_EXPLAINS = re.compile(r"\b(?:why|how (?!many|much|long|old|far|tall|big|often|fast|large|high|deep))\b", re.IGNORECASE)
_LEAST = 1e-4


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader answered and what is known of it. `support` as in `rag.citations`; log-probabilities where they are told."""

    text: str
    declined: bool
    support: str
    cut: bool
    mean_logprob: float | None = None
    least_logprob: float | None = None

    @property
    def sure(self) -> bool:
        """Whether the reader told how sure it was."""
        return self.mean_logprob is not None and self.least_logprob is not None


def seen(pool: Pool, chances: Mapping[Unit, float], extracts: Sequence[Extract], *, tokens: int) -> dict[str, float]:
    """One number per name in SEEN. `tokens`: of the rendered choice. An empty pool gives zeros where there is nothing to see."""
    best = sorted(best_of(chances).values(), reverse=True)
    cosines = sorted((candidate.relevance for candidate in pool.candidates), reverse=True)
    asked = wanted.wanted(pool.question)
    return {
        "sufficiency": log_odds(sufficiency(pool, chances, extracts)), "best_chance": log_odds(_at(best, 0)),
        "second_chance": log_odds(_at(best, 1)), "chance_mass": math.log1p(math.fsum(chances.values())),
        "best_cosine": _at(cosines, 0), "behind_second": _at(cosines, 0) - _at(cosines, 1),
        "behind_fifth": _at(cosines, 0) - _at(cosines, 4), "spread": _at(cosines, 0) - (cosines[-1] if cosines else 0.0),
        "covered": _covered(pool, extracts), "covered_by_best": max((_share(pool, frozenset().union(*each.sentence_terms))
                                                                     for each in pool.candidates), default=0.0),
        "rare_terms": math.log1p(sum(pool.term_weights.values())), "context_tokens": math.log1p(tokens),
        "passages": math.log1p(len({extract.chunk.id for extract in extracts})),
        "question_words": math.log1p(len(asked.words)), "question_names": math.log1p(len(wanted.names(pool.question))),
        "wants_number": float(asked.number), "wants_name": float(asked.name), "polar": float(bool(_POLAR.match(pool.question))),
        "compares": float(bool(_COMPARES.search(pool.question))), "explains": float(bool(_EXPLAINS.search(pool.question)))}


def said(question: str, reading: Reading) -> dict[str, float]:
    """One number per name in SAID, and in SURE where the reader was `sure`."""
    words, asked = wanted.words(reading.text), wanted.wanted(question)
    found = {
        "declined": float(reading.declined), "verbatim": float(reading.support == "verbatim"),
        "by_words": float(reading.support in ("words", "context")), "unsupported": float(reading.support == "none"),
        "answer_words": math.log1p(len(reading.text.split())),
        "echoes_question": len(words & asked.words) / len(words) if words else 1.0, "cut": float(reading.cut),
        "kind_missing": float(asked.number and not wanted.has_number(reading.text))}
    if reading.mean_logprob is not None and reading.least_logprob is not None:
        found |= {"mean_logprob": max(reading.mean_logprob, -5.0), "least_logprob": max(reading.least_logprob, -10.0)}
    return found


def log_odds(chance: float) -> float:
    """Bounded: a chance of 0 or 1 is one of 1 or 9,999 in ten thousand."""
    kept = min(max(chance, _LEAST), 1 - _LEAST)
    return math.log(kept / (1 - kept))


def _at(values: Sequence[float], place: int) -> float:
    return values[place] if place < len(values) else 0.0


def _covered(pool: Pool, extracts: Sequence[Extract]) -> float:
    terms = {candidate.chunk.id: candidate.sentence_terms for candidate in pool.candidates}
    held = [terms[extract.chunk.id][at] for extract in extracts if extract.chunk.id in terms for at in extract.sentences]
    return _share(pool, frozenset().union(*held))


def _share(pool: Pool, terms: frozenset[str]) -> float:
    total = sum(pool.term_weights.values())
    return sum(pool.term_weights[term] for term in sorted(terms)) / total if total else 0.0
