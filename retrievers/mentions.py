"""What a passage mentions beyond a question: names, rare words, and titles of other documents. No model and no list of entities.

A name is a run of words that begin with a capital letter or a digit, or what stands between quotation marks; of scripts without
capitals only the latter. Rare words and titles are told by index terms (`indexers.lexical`), whatever the script.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping

from indexers import lexical

# Words that may stand in a name without a capital, two in a row at most: Duke of Saxe-Eisenach, Louis de la Tour.
_LINKING = frozenset((
    "a", "al", "and", "at", "bin", "by", "d", "da", "das", "de", "dei", "del", "della", "den", "der", "des", "di", "do", "dos",
    "du", "e", "el", "en", "et", "for", "het", "i", "ibn", "in", "la", "las", "le", "les", "los", "of", "on", "or", "och", "og",
    "ten", "ter", "the", "to", "tot", "un", "und", "van", "vom", "von", "y", "z", "zu", "zum", "zur",
))
_LINKED = 2
# Characters; what is longer is no name that a title could have.
_LONGEST = 80
_WORD = re.compile(r"[^\W_](?:[\w&'’.-]*\w)?")
_QUOTED = re.compile(r"[\"“„«「『《]([^\"“”„«»「」『』《》]{2,80})[\"”“»」』》]")
_ASIDE = re.compile(r"\s*[(（][^()（）]*[)）]\s*$")


def names(text: str) -> list[str]:
    """Names in `text` as they are written, each once, in order of appearance; quoted ones after the others."""
    found = [name for line in text.splitlines() for name in _runs(line)]
    found += [match.group(1).strip() for match in _QUOTED.finditer(text)]
    return list(dict.fromkeys(name for name in found if name and len(name) <= _LONGEST))


def _runs(line: str) -> Iterator[str]:
    start = end = last = -1
    loose = 0
    for match in _WORD.finditer(line):
        word = match.group()
        # An initial ends in a full stop that ends no sentence: J. R. Smith.
        near = start >= 0 and (line[last:match.start()].isspace() or (line[last:match.start()] == ". " and line[last - 1].isupper()
                                                                      and (last < 2 or not line[last - 2].isalnum())))
        last = match.end()
        if word[0].isupper() or word[0].isdigit():
            if start >= 0 and not near:
                yield line[start:end]
            start, end, loose = start if near else match.start(), last, 0
        elif near and loose < _LINKED and word in _LINKING:
            loose += 1
        elif start >= 0:
            yield line[start:end]
            start = -1
    if start >= 0:
        yield line[start:end]


def rare(idf: Mapping[str, float], *, known: Collection[str], chunks: int, most: int) -> list[str]:
    """The `most` terms that tell passages apart best, rarest first, ties by spelling: of those with an `idf` that are not `known`
    and that two of the `chunks` hold at least, because a search for the others leads nowhere."""
    # Halfway between the idf of a term in one chunk and in two.
    ceiling = _idf(1.5, chunks)
    kept = [term for term, weight in idf.items() if weight < ceiling and term not in known and lexical.words(term) == [term]]
    return sorted(kept, key=lambda term: (-idf[term], term))[:most]


def weight(name: str, *, known: Collection[str], idf: Mapping[str, float]) -> float:
    """How much a name tells apart: the idf of its terms; 0 if all are `known` or none has one."""
    terms = dict.fromkeys(lexical.words(name))
    return sum(idf.get(term, 0.0) for term in terms) if any(term not in known for term in terms) else 0.0


def titled(title: str) -> str:
    """A title's terms, to be looked for in `spread` texts; empty for a title without words. What stands in brackets at its end only
    tells it from others: Billy Elliot (film)."""
    return spread(_ASIDE.sub("", title) or title) if title.strip() else ""


def spread(text: str) -> str:
    """The terms of `text`, each between spaces: one text mentions another if it contains its spread form. Empty without terms."""
    terms = lexical.words(text)
    return f" {' '.join(terms)} " if terms else ""


def _idf(holding: float, chunks: int) -> float:
    return math.log(1 + max(0.0, chunks - holding + 0.5) / (holding + 0.5))
