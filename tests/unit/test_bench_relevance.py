"""The bench of the cross-encoder on a tiny model: its rows, and the place of the first right sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eval.bench import relevance as bench
from eval.datasets import Question
from optimizers import relevance
from optimizers.crossencoder.encoder import CrossEncoder, Read
from optimizers.pool import Pool
from tests.unit.test_selectors import candidate


class Says(CrossEncoder):
    """Scores that are known beforehand; times and tokens are those of a list."""

    def __init__(self, *scores: float) -> None:
        self.name, self.scores, self.asked = "cross@says", scores, 0

    def score(self, question: str, passages: list[Read]) -> list[np.ndarray]:     # type: ignore[override]
        self.asked += len(passages)
        return [np.asarray([self.scores[0 if "Otters" in each.text[start:end] else 1] for start, end in each.sentences], np.float32)
                for each in passages]

    def tokens(self, texts: list[str]) -> int:     # type: ignore[override]
        return sum(len(text.split()) for text in texts)

    def forget(self) -> None:
        pass


POOL = Pool((candidate("Kettles boil water. Otters hold hands.", .5, .45, name="a"), candidate("Clocks tick.", .1, name="b")), {})
ASKED = Question("q", "Who holds hands?", ("otters",), ("a",), "extractive")


def test_the_place_of_the_first_right_sentence() -> None:
    assert bench.found(ASKED, POOL, encoder=Says(9.0, -9.0), pairs=0) == [1]
    assert bench.found(ASKED, POOL, encoder=Says(9.0, -9.0), pairs=2) == [0]
    assert bench.found(ASKED, POOL, encoder=Says(-9.0, 9.0), pairs=2) == [2]
    assert bench.found(replace(ASKED, evidence=("z",)), POOL, encoder=Says(9.0, -9.0), pairs=2) == []
    assert relevance.chances(POOL).keys() == relevance.plain_chances(POOL).keys()


def test_rows_of_times_have_the_pace_of_pairs_of_160_tokens() -> None:
    encoder = Says(1.0, -1.0)
    rows = {row.name: row for row in bench.timed(encoder, [(ASKED, POOL)] * 3, sizes=[1, 2])}
    assert set(rows) == {f"{size} pairs, {kind}: {what}" for size in (1, 2) for kind in ("cold", "warm")
                         for what in ("p50", "p95", "pace")}
    assert encoder.asked == 2 * 3 * (1 + 2)
    assert all(row.value > 0 and row.n == 3 for row in rows.values())
