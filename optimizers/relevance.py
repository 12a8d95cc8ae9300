"""The chance that one sentence holds the answer: from what retrieval already knows, and from the cross-encoder where it read.

Two logistic regressions over features of a sentence in its pool, fitted by `python -m optimizers.training.relevance`, which
writes `relevance.json` beside this module and prints how well the chances are calibrated on sets they were not fitted on. The
first costs no model and decides what the cross-encoder reads; the second adds its scores. What was read has the mean of both in
log-odds, which keeps one odd score of a small model from deciding alone.

Where a second look was taken, a third weighs in how strongly other passages lead to the sentence's own, times the chance that the
question takes two steps (`steps`): so the second passage of such a question is told from noise, and the choice for a simple
question stays nearly as it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimizers import steps
from optimizers.pool import Candidate, Pool, Unit, units
from optimizers.wanted import Wanted, signs, wanted

Matrix = NDArray[np.float64]
WEIGHTS = Path(__file__).with_name("relevance.json")
PLAIN = ("sentence_cosine", "chunk_cosine", "chunk_coverage", "sentence_coverage", "log_rank", "behind_best", "behind_in_chunk",
         "new_words", "number_missing", "name_there")
READ = (*PLAIN, "sentence_answer", "chunk_answer", "behind_best_sentence", "behind_best_chunk")
LED = ("odds", "linked", "one_word", "rare", "named")


def chances(pool: Pool) -> dict[Unit, float]:
    """Chance for every sentence of the candidates that were not dropped, in (0, 1)."""
    if not pool.candidates:
        return {}
    every, rows = units(pool), features(pool)
    odds = _odds(rows, PLAIN)
    if any(candidate.sentence_answers for candidate in pool.candidates):
        read, answers = read_features(pool, rows)
        at = places(every, read)
        odds[at] = (odds[at] + _odds(answers, READ)) / 2
    if any(candidate.led for candidate in pool.candidates):
        odds = _odds(np.column_stack([odds, led_features(pool)]), LED)
    found = dict(zip(every, _sigmoid(odds).tolist(), strict=True))
    return {unit: chance for unit, chance in found.items() if unit.candidate not in pool.dropped} if pool.dropped else found


def plain_chances(pool: Pool) -> dict[Unit, float]:
    """The same without the cross-encoder."""
    if not pool.candidates:
        return {}
    return dict(zip(units(pool), _sigmoid(_odds(features(pool), PLAIN)).tolist(), strict=True))


def features(pool: Pool) -> Matrix:
    """One row per sentence in the order of `units`, one column per name in PLAIN."""
    best = max(candidate.relevance for candidate in pool.candidates)
    asked = wanted(pool.question)
    rows = [_row(pool, candidate, rank, sentence, best, asked) for rank, candidate in enumerate(pool.candidates)
            for sentence in range(len(candidate.chunk.sentences))]
    return np.asarray(rows, np.float64)


def read_features(pool: Pool, plain: Matrix) -> tuple[list[Unit], Matrix]:
    """The sentences that the cross-encoder read, and a row for each, one column per name in READ. `plain`: the `features`."""
    whole = {i: float(np.logaddexp.reduce(candidate.sentence_answers)) for i, candidate in enumerate(pool.candidates)
             if candidate.sentence_answers}
    best_chunk = max(whole.values())
    best_sentence = max(max(pool.candidates[i].sentence_answers) for i in whole)
    rows = dict(zip(units(pool), plain, strict=True))
    read = [unit for unit in rows if unit.candidate in whole]
    added = [(answer, whole[unit.candidate], best_sentence - answer, best_chunk - whole[unit.candidate])
             for unit in read for answer in [pool.candidates[unit.candidate].sentence_answers[unit.sentence]]]
    return read, np.column_stack([np.asarray([rows[unit] for unit in read]), np.asarray(added, np.float64)])


def led_features(pool: Pool) -> Matrix:
    """One row per sentence in the order of `units`, one column per name in LED but the first."""
    several = steps.chance(pool.question)
    rows = [tuple(several * value for value in _led(candidate)) for candidate in pool.candidates for _ in candidate.chunk.sentences]
    return np.asarray(rows, np.float64).reshape(-1, len(LED) - 1)


def places(every: Sequence[Unit], some: Sequence[Unit]) -> list[int]:
    """Where the units of `some` stand in `every`."""
    at = {unit: place for place, unit in enumerate(every)}
    return [at[unit] for unit in some]


@lru_cache(maxsize=3)
def model(names: tuple[str, ...]) -> tuple[Matrix, float]:
    """Weights and bias for these features."""
    stored = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    for fitted in stored["models"]:
        if tuple(fitted["features"]) == names:
            return np.asarray(fitted["weights"], np.float64), float(fitted["bias"])
    raise ValueError(f"{WEIGHTS} has no model over {names}")


def _row(pool: Pool, candidate: Candidate, rank: int, sentence: int, best: float, asked: Wanted) -> tuple[float, ...]:
    everywhere, own = frozenset().union(*candidate.sentence_terms), candidate.sentence_relevance[sentence]
    return (own, candidate.relevance, _share(pool, everywhere), _share(pool, candidate.sentence_terms[sentence]), math.log1p(rank),
            best - candidate.relevance, max(candidate.sentence_relevance) - own,
            *signs(asked, candidate.chunk.sentence(sentence)))


def _led(candidate: Candidate) -> tuple[float, ...]:
    led = candidate.led
    return (led.linked, led.one_word, led.rare, led.named) if led else (0.0,) * (len(LED) - 1)


def _share(pool: Pool, terms: frozenset[str]) -> float:
    total = sum(pool.term_weights.values())
    return sum(pool.term_weights[term] for term in sorted(terms)) / total if total else 0.0


def _odds(rows: Matrix, names: tuple[str, ...]) -> Matrix:
    """In logarithms."""
    weights, bias = model(names)
    found: Matrix = rows @ weights + bias
    return found


def _sigmoid(scores: Matrix) -> Matrix:
    found: Matrix = 1 / (1 + np.exp(-scores))
    return found
