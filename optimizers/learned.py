"""The chance that a reader answers right from a set of sentences, learnt from what a reader really answered.

A logistic regression over what a set looks like, fitted by `python -m optimizers.training.answers`, which writes `learned.json`.
More is not always better here: words that do not help cost a small reader answers, so a set may be worth less than its parts.
It can take the place of the set function in any search (`searching.choose(worth=...)`) and scores thousands of sets in a few
milliseconds. Fitted on 120 questions it predicts worse than the set function on data sets that it has not seen (see
docs/benchmarks.md), so no selector goes by it: it is here to be fitted on more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from optimizers.packed import Floats, Ints, Packed
from optimizers.utility import SetUtility

WEIGHTS = Path(__file__).with_name("learned.json")
NAMES = ("odds_any", "odds_best", "covered", "tokens", "log_tokens", "distraction", "passages", "mean_chance", "repeats", "behind")
_SURE = 1e-4


class LearnedWorth:
    """The worth of sets of one packed pool; see `NAMES` for what it looks at:

    odds_any     logit of the chance that some sentence answers, were they independent        odds_best   of the best of them
    covered      share of the question's weighted terms in likely sentences                   tokens      of the rendering, / 100
    distraction  tokens of its sentences times the chance that they do not answer, / 100      passages    how many
    repeats      likeness among its sentences, summed over pairs                              behind      best of the pool - of it
    """

    def __init__(self, arrays: Packed, utility: SetUtility, *, weights: tuple[Floats, float] | None = None) -> None:
        self._arrays, self._utility = arrays, utility
        self._weights, self._bias = weights or shipped()
        self._terms = _terms(arrays)
        self._alike = np.maximum(arrays.likeness - 0.6, 0.0) / 0.4
        np.fill_diagonal(self._alike, 0.0)

    def __call__(self, sets: Sequence[int] | Ints) -> Floats:
        """The chance of each of these sets, in (0, 1)."""
        found: Floats = 1 / (1 + np.exp(-(self.features(sets) @ self._weights + self._bias)))
        return found

    def features(self, sets: Sequence[int] | Ints) -> Floats:
        """One row for each set, one column for each of NAMES."""
        a, asked = self._arrays, np.asarray(sets, np.int64)
        inside = ((asked[:, None] >> np.arange(len(a.chance))) & 1).astype(np.float64)
        count = np.maximum(inside.sum(1), 1)
        chance = np.clip(a.chance, _SURE, 1 - _SURE)
        missing = np.exp(inside @ np.log1p(-chance))
        best = (inside * chance).max(1, initial=_SURE)
        tokens = self._utility.tokens(asked).astype(np.float64)
        candidates = np.zeros((len(a.chance), len(a.heading)))
        candidates[np.arange(len(a.chance)), a.candidate] = 1
        passages = ((inside @ candidates) > 0).sum(1)
        carried = np.sqrt(chance)[:, None] * self._terms
        covered = (np.where(inside[:, :, None] > 0, carried[None], 0.0).max(1) @ a.term_weight
                   if len(a.term_weight) and len(a.chance) else np.zeros(len(asked)))
        return np.column_stack([
            _logit(1 - missing), _logit(best), covered, tokens / 100, np.log1p(tokens), inside @ (a.tokens * (1 - chance)) / 100,
            passages, inside @ chance / count, np.einsum("su,uv,sv->s", inside, self._alike, inside) / 2,
            chance.max(initial=_SURE) - best])


@lru_cache(maxsize=1)
def shipped() -> tuple[Floats, float]:
    """Weights and bias as fitted."""
    stored = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    if tuple(stored["features"]) != NAMES:
        raise ValueError(f"{WEIGHTS} was fitted on {stored['features']}, and this code computes {NAMES}")
    return np.asarray(stored["weights"], np.float64), float(stored["bias"])


def _terms(arrays: Packed) -> Floats:
    """(n, terms), 1 where a sentence holds a term."""
    found = np.zeros((len(arrays.chance), len(arrays.term_weight)))
    for u in range(len(arrays.chance)):
        found[u, arrays.term[arrays.term_start[u]:arrays.term_start[u + 1]]] = 1
    return found


def _logit(chance: Floats) -> Floats:
    clipped = np.clip(chance, _SURE, 1 - _SURE)
    found: Floats = np.log(clipped / (1 - clipped))
    return found
