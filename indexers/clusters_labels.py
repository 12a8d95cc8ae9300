"""A few words for each cluster: those that weigh more in its texts than in the other texts of the group.

A word weighs what the collection's term weights say, or its BM25 idf where there are none; who calls knows which.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from indexers import lexical

WORDS = 3
# Texts of a cluster that are looked at, and words of the group that are weighed.
TEXTS = 48
_MOST = 300
_WORD = re.compile(r"[^\W\d_][\w'’-]+")
_SHORTEST = 3
# Words that say nothing of a cluster, whatever they weigh.
_EMPTY = frozenset(lexical.words(
    "the and for are was were not but you your with this that have has had its they them their there than then from very just all "
    "can will would could our out who what when where why how which been being does did about into over only also too one get got "
    "more most some any much many these those here she her his him"))
# Weights of words in texts, shape (texts, words): 0 where the text does not hold it.
Weigh = Callable[[Sequence[str], Sequence[int]], NDArray[np.float64]]


def labelled(texts: Sequence[Sequence[str]], rows: Sequence[Sequence[int]], *, weigh: Weigh) -> list[tuple[str, ...]]:
    """At most `WORDS` words for each cluster, the most telling first, as they are most often written; none where nothing tells it
    from the others. `texts` of each cluster, and their rows, in parallel."""
    forms = _forms(texts)
    if not forms:
        return [()] * len(texts)
    stems = list(forms)
    weights = weigh([forms[stem] for stem in stems], [row for cluster in rows for row in cluster])
    bounds = np.cumsum([0, *map(len, rows)])
    found: list[tuple[str, ...]] = []
    for place in range(len(rows)):
        inside = np.zeros(len(weights), bool)
        inside[bounds[place]:bounds[place + 1]] = True
        if not inside.any():
            found.append(())
            continue
        worth = weights[inside].mean(axis=0) - (weights[~inside].mean(axis=0) if not inside.all() else 0)
        best = sorted((i for i in range(len(stems)) if worth[i] > 0), key=lambda i: (-round(float(worth[i]), 9), stems[i]))
        found.append(tuple(forms[stems[i]] for i in best[:WORDS]))
    return found


def _forms(texts: Sequence[Sequence[str]]) -> dict[str, str]:
    """The words held by most texts, by stem, each in its most frequent form."""
    held: Counter[str] = Counter()
    written: dict[str, Counter[str]] = {}
    for text in (text for cluster in texts for text in cluster):
        stems: set[str] = set()
        for word in _WORD.findall(text.lower()):
            stem = next(iter(lexical.words(word)), "")
            if len(word) >= _SHORTEST and stem and stem not in _EMPTY:
                stems.add(stem)
                written.setdefault(stem, Counter())[word] += 1
        held.update(stems)
    common = sorted(held, key=lambda stem: (-held[stem], stem))[:_MOST]
    return {stem: min(written[stem], key=lambda word: (-written[stem][word], word)) for stem in common}
