"""A follow-up question made self-contained without a model: what it leaves unsaid is taken from the turns before.

A question refers back if it holds a word that points (he, it, there, dieser, elle, ...), begins as a continuation does (and, what
about), or has hardly any term of its own. Then the names and rare words of the last exchange join it for the searches (historical
query expansion, Lin et al. 2021, arXiv 2005.02230, section 4.1), and the exchange itself stands beside it for the reader. Any other
question stays as it is: most questions in a conversation need nothing of it, and words of an old subject would mislead.

The lists are of a few languages; in others short questions alone are found to refer back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from indexers import lexical
from rag.types import Turn
from retrievers import mentions

Idf = Callable[[Sequence[str]], Mapping[str, float]]
# Index terms under which a question cannot stand alone.
_FEW = 3
# Terms that join it; of an answer, only its beginning is looked at.
_JOINED = 8
_CHARS = 300
# Of the greatest idf among the words at hand, what a rare one has at least.
_RARE = 0.5
_POINTS = re.compile(
    r"(?<!\w)(?:he|she|it|they|him|her|hers|his|its|their|theirs|them|this|that|these|those|there|then|former|latter|same|"
    r"er|sie|ihm|ihn|ihr|ihre|ihren|sein|seine|dies|diese|dieser|dieses|dort|dazu|davon|damals|"
    r"il|elle|ils|elles|lui|leur|son|sa|ses|ce|cet|cette|ces|ça|cela|là|"
    r"él|ella|ello|ellos|ellas|su|sus|ese|esa|eso|este|esta|esto|allí|"
    r"ele|ela|eles|elas|seu|sua|isso|isto|lei|lui|loro|suo|suoi|questo|questa|quello|quella|"
    r"он|она|оно|они|его|ее|её|их|этот|эта|это|там|тот|та)(?!\w)|[他她它这這那其]", re.IGNORECASE)
_CONTINUES = re.compile(r"^\W*(?:and|but|so|what about|how about|und|aber|was ist mit|et|mais|qu'en est-il|y|e|pero|qué tal|"
                        r"а|и|那|还有)(?!\w)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Folded:
    """`search`: the question as it is searched. `told`: as the reader gets it. `joined`: what came to it, empty for a question
    that stands alone."""

    search: str
    told: str
    joined: tuple[str, ...] = ()


def refers_back(question: str) -> bool:
    """Whether a question cannot be understood without what was said before."""
    return bool(_POINTS.search(question) or _CONTINUES.match(question)) or len(lexical.words(question)) <= _FEW


def folded(question: str, history: Sequence[Turn], *, idf: Idf) -> Folded:
    """`history` in order, the newest last. `idf`: how much terms tell apart; those that no document holds are left out."""
    asked = [turn.content for turn in history if turn.role == "user"][-1:]
    said = [turn.content[:_CHARS] for turn in history[-1:] if turn.role == "assistant"]
    if not asked or not refers_back(question):
        return Folded(question, question)
    joined = _subjects([*said, *asked], known=frozenset(lexical.words(question)), idf=idf)
    search = f"{question} {' '.join(joined)}" if joined else f"{asked[0][:_CHARS]} {question}"
    exchange = " ".join(" ".join(part.split()) for part in (*(text[:_CHARS] for text in asked), *said))
    return Folded(search, f"{question} (asked after: {exchange})", joined)


def _subjects(texts: Sequence[str], *, known: frozenset[str], idf: Idf) -> tuple[str, ...]:
    """Names first, then single rare words, each as it was written; nothing that only repeats the question."""
    weights = idf(sorted({term for text in texts for term in lexical.words(text)} - known))
    least = _RARE * max(weights.values(), default=0.0)
    found: dict[str, None] = {}
    covered: set[str] = set(known)
    words = [word for text in texts for word in re.findall(r"\w+", text)]
    for name in [*(name for text in texts for name in mentions.names(text)), *words]:
        terms = lexical.words(name)
        new = [term for term in terms if term not in covered]
        if new and max(weights.get(term, 0.0) for term in new) >= max(least, 1e-9):
            found[name] = None
            covered.update(terms)
    return tuple(found)[:_JOINED]
