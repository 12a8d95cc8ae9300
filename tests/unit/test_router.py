"""The router's signs and decisions, over expectations that are written down by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from optimizers import router, routing
from optimizers.pool import Candidate, Pool, Unit
from optimizers.router import NAMES, Expectation, Model, first, of_stored, onward
from optimizers.routing import SAID, SEEN, SURE, Reading, said, seen
from rag.types import Extract
from tests.fakes import make_chunk


def odds(chance: float) -> float:
    return math.log(chance / (1 - chance))


def constant(chance: float) -> Expectation:
    return Expectation({}, odds(chance))


def model(*, spread: float = 0.1, share: float = 0.4, **chances: float) -> Model:
    """Each expectation always the same; names with spaces written with underscores, `sure` ones as the others."""
    base = dict.fromkeys(NAMES, 0.5) | {name.replace("_", " "): chance for name, chance in chances.items()}
    return Model({name: constant(base[name.removesuffix(", sure")]) for name in NAMES}, spread, share)


ZEROS = dict.fromkeys((*SEEN, *SAID), 0.0)


def a_pool(question: str = "How many years does the warranty of Acme last?") -> Pool:
    texts = ["The warranty lasts two years. It is free.", "Otters sleep."]
    candidates = []
    for at, text in enumerate(texts):
        chunk = make_chunk(text, id=f"d:{at}", doc_id=f"d{at}")
        count = len(chunk.sentences)
        terms = tuple(frozenset({"warranty"}) if at == 0 and i == 0 else frozenset() for i in range(count))
        candidates.append(Candidate(chunk, 1.0 - at, 0.8 - 0.3 * at, (0.8,) * count, (5,) * count, terms,
                                    np.eye(count, 4, dtype=np.float32), 10))
    return Pool(tuple(candidates), {"warranty": 2.0, "acme": 2.0}, question=question)


CHANCES = {Unit(0, 0): 0.6, Unit(0, 1): 0.1, Unit(1, 0): 0.05}


def test_what_is_seen_has_every_sign_and_can_be_computed_by_hand() -> None:
    pool = a_pool()
    found = seen(pool, CHANCES, [Extract(pool.candidates[0].chunk, (0,))], tokens=9)
    assert tuple(found) == SEEN
    assert found["sufficiency"] == pytest.approx(odds(0.6)) == found["best_chance"]
    assert found["second_chance"] == pytest.approx(odds(0.05))
    assert found["chance_mass"] == pytest.approx(math.log1p(0.75))
    assert (found["best_cosine"], found["behind_second"]) == (0.8, pytest.approx(0.3))
    assert (found["covered"], found["covered_by_best"]) == (0.5, 0.5)
    assert (found["wants_number"], found["polar"], found["compares"]) == (1.0, 0.0, 0.0)
    assert found["question_names"] == pytest.approx(math.log1p(1))
    assert found["context_tokens"] == pytest.approx(math.log1p(9))


def test_nothing_to_see_gives_finite_signs() -> None:
    found = seen(Pool((), {}), {}, (), tokens=0)
    assert tuple(found) == SEEN
    assert all(map(math.isfinite, found.values()))


@pytest.mark.parametrize(("question", "sign"), [("Was he older than her?", "polar"), ("Who is older, A or B?", "compares"),
                                                ("Why is it so?", "explains"), ("How does it work?", "explains")])
def test_the_form_of_a_question_is_seen(question: str, sign: str) -> None:
    assert seen(a_pool(question), CHANCES, (), tokens=0)[sign] == 1


def test_how_many_asks_for_no_explanation() -> None:
    assert seen(a_pool("How many are there?"), CHANCES, (), tokens=0)["explains"] == 0


def test_what_is_said_tells_refusal_support_and_the_missing_number() -> None:
    reading = Reading("the warranty", declined=False, support="verbatim", cut=True)
    found = said("How many years is the warranty?", reading)
    assert tuple(found) == SAID
    assert (found["declined"], found["verbatim"], found["unsupported"], found["cut"], found["kind_missing"]) == (0, 1, 0, 1, 1)
    assert found["echoes_question"] == 1.0
    assert said("How many years is the warranty?", replace(reading, text="2 years"))["kind_missing"] == 0


def test_sureness_is_said_only_where_it_is_told_and_is_bounded() -> None:
    reading = Reading("x", declined=False, support="none", cut=False, mean_logprob=-80.0, least_logprob=-90.0)
    found = said("q", reading)
    assert tuple(found) == (*SAID, *SURE)
    assert (found["mean_logprob"], found["least_logprob"]) == (-5.0, -10.0)
    assert set(said("q", replace(reading, least_logprob=None))) == set(SAID)


def test_a_cascade_always_begins_with_the_small_reader() -> None:
    assert first(model(small=0.01, large=0.99), ZEROS, cost=0.0, share=0.4, cascade=True).reader == "small"


def test_the_large_reader_is_asked_at_once_where_the_small_ones_answer_would_hardly_be_kept() -> None:
    sure = model(small=0.2, large=0.8, spread=0.1)
    assert first(sure, ZEROS, cost=0.1, share=0.4, cascade=False).reader == "large"
    assert first(sure, ZEROS, cost=0.9, share=0.4, cascade=False).reader == "small"


@pytest.mark.parametrize(("share", "reader"), [(0.45, "small"), (0.55, "large")])
def test_the_cascade_is_left_where_it_costs_more_than_the_large_reader_alone(share: float, reader: str) -> None:
    """A gain as large as its cost goes on in half of the cases: asking the small reader first pays up to a share of one half."""
    even = model(small=0.4, large=0.5, spread=0.2)
    assert first(even, ZEROS, cost=0.1, share=share, cascade=False).reader == reader


@pytest.mark.parametrize(("cost", "reader"), [(0.15, "large"), (0.25, "small")])
def test_the_second_call_has_to_bring_more_than_it_costs(cost: float, reader: str) -> None:
    decision = onward(model(small_after_small=0.4, large_after_small=0.6), ZEROS, cost=cost)
    assert decision.reader == reader
    assert decision.facts()["expected"] == {"small": 0.4, "large": 0.6}
    assert "0.20 better" in decision.why


def test_sureness_decides_where_the_reader_tells_it() -> None:
    told = model(small_after_small=0.4, large_after_small=0.6)
    unsure = Model({**told.expectations, "small after small, sure": Expectation({"mean_logprob": 10.0}, 5.0)}, 0.1, 0.4)
    assert onward(unsure, ZEROS, cost=0.1).reader == "large"
    assert onward(unsure, {**ZEROS, "mean_logprob": -0.1, "least_logprob": -0.2}, cost=0.1).reader == "small"


def test_the_shipped_weights_are_whole_and_say_what_they_were_fitted_on() -> None:
    stored = json.loads(router.WEIGHTS.read_text(encoding="utf-8"))
    shipped = router.shipped()
    for name, features in NAMES.items():
        assert tuple(shipped.expectations[name].weights) == features
        assert 0 < shipped.expectations[name]({**ZEROS, **dict.fromkeys(SURE, 0.0)}) < 1
    assert 0 < shipped.share < 1
    assert shipped.spread > 0
    held_out = {"squad2_dev", "qed_nq", "hotpotqa", "popqa", "multihop_rag", "covid_qa"}
    assert not held_out & set(stored["fitted_on"])


def test_weights_of_another_make_are_refused() -> None:
    with pytest.raises(ValueError, match="small"):
        of_stored({"models": {"small": {}}, "spread": 0.1, "share": 0.4})


def test_odds_are_bounded() -> None:
    assert routing.log_odds(0.0) == pytest.approx(math.log(1e-4 / (1 - 1e-4))) == pytest.approx(-routing.log_odds(1.0))
