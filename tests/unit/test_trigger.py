"""The trigger: the paper's count, vCache's formulas with the pessimistic sign, and what forbids a hit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from rag import calibration
from rag.calibration import Case
from rag.errors import ConfigError
from retrievers import trigger, vcache, veto
from retrievers.trigger import Model, calibrated, counted, model_of, pop
from retrievers.vcache import Sigmoid, boundary, empirical, exploring, fitted, serves

SURE = Sigmoid(t=0.0, g=10.0, se=0.01, n=1000, right=700)


@pytest.mark.parametrize(("cosines", "tau", "theta", "decision"), [
    ([], 0.4, 3, "retrieve"),                       # an empty memory always searches
    ([0.9, 0.5, 0.4], 0.4, 3, "memory"),            # at least tau, at least theta
    ([0.9, 0.5, 0.39], 0.4, 3, "retrieve"),
    ([0.9, 0.8, 0.7, 0.6], 0.6, 3, "memory"),
    ([0.999, 0.999, 0.999], 1.0, 3, "retrieve"),    # tau = 1 switches memory off
])
def test_the_count_rule_is_the_papers(cosines: list[float], tau: float, theta: int, decision: str) -> None:
    assert counted(pop(cosines, tau=tau), theta=theta).decision == decision


def test_the_pessimistic_boundary_is_higher_and_makes_a_hit_rarer() -> None:
    assert boundary(SURE, eps=0.01) == pytest.approx(0.0 + 2.326348 * 0.01, abs=1e-6)
    for eps in (0.3, 0.1, 0.01, 0.001):
        assert boundary(SURE, eps=eps) > SURE.t
    vague = Sigmoid(t=0.0, g=10.0, se=0.2, n=1000, right=700)
    for score in (0.2, 0.4, 0.6):
        assert exploring(vague, score, error=0.05) >= exploring(SURE, score, error=0.05)
    assert exploring(vague, 0.4, error=0.05) > exploring(SURE, 0.4, error=0.05)


def test_exploring_is_the_formula_by_hand() -> None:
    def slow(score: float, error: float) -> float:
        best = 1.0
        for eps in vcache._EPSILONS:
            sure = (1 - eps) / (1 + math.exp(-SURE.g * (score - boundary(SURE, eps=eps))))
            best = min(best, ((1 - error) - sure) / (1 - sure))
        return max(0.0, best)

    for score in (-0.5, 0.0, 0.1, 0.3, 0.5, 0.9):
        assert exploring(SURE, score, error=0.02) == pytest.approx(slow(score, 0.02), abs=1e-9)


def test_a_cold_start_explores_everything_and_grey_is_never_served() -> None:
    assert exploring(None, 99.0, error=0.02) == 1.0
    assert exploring(Sigmoid(0.0, 10.0, 0.01, vcache.LEAST - 1, 40), 99.0, error=0.02) == 1.0
    grey = next(score for score in np.arange(0.0, 1.0, 0.005) if 0 < exploring(SURE, float(score), error=0.02) < 0.5)
    assert not serves(SURE, float(grey), error=0.02)
    assert serves(SURE, 1.0, error=0.02)


def test_the_fit_finds_the_boundary_that_made_the_cases() -> None:
    rng = np.random.default_rng(1)
    scores = rng.uniform(0, 1, 4000)
    right = rng.uniform(0, 1, 4000) < 1 / (1 + np.exp(-15 * (scores - 0.6)))
    found = fitted(scores.tolist(), right.tolist())
    assert found is not None
    assert found.t == pytest.approx(0.6, abs=3 * found.se)
    assert found.g == pytest.approx(15, rel=0.15)
    assert 0.001 < found.se < 0.02
    few = fitted(scores[:200].tolist(), right[:200].tolist())
    assert few is not None
    assert few.se > 3 * found.se


def test_cases_without_an_error_do_not_promise_perfection() -> None:
    found = fitted([0.1, 0.2, 0.8, 0.9] * 5, [False, False, True, True] * 5)
    assert found is not None
    assert found.chance(0.9) < 0.99
    assert fitted([], []) is None
    assert fitted([0.1, 0.9] * 20, [True, False] * 20) is None     # falls with the score


@pytest.mark.parametrize("seed", range(3))
def test_the_promised_error_holds_on_questions_that_were_not_fitted(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def drawn(n: int) -> tuple[list[float], list[bool]]:
        scores = rng.uniform(0, 1, n)
        return scores.tolist(), (rng.uniform(0, 1, n) < 1 / (1 + np.exp(-20 * (scores - 0.5)))).tolist()

    model = fitted(*drawn(500))
    scores, right = drawn(4000)
    wrong = [not good for score, good in zip(scores, right, strict=True) if serves(model, score, error=0.05)]
    assert len(wrong) > 300
    assert np.mean(wrong) <= 0.05


def test_the_least_score_keeps_the_promise_among_the_cases_themselves() -> None:
    scores = [i / 1000 for i in range(1000)]
    right = [score > 0.3 for score in scores]
    least = empirical(scores, right, error=0.05)
    assert least is not None
    assert 0.25 < least <= 0.31
    assert empirical(scores, [False] * 1000, error=0.05) is None
    assert empirical([0.5] * 10, [True] * 10, error=0.01) is None      # ten cases promise no percent
    assert empirical([], [], error=0.5) is None


def _model(**changes: object) -> Model:
    return Model(**{"features": ("a", "b"), "weights": (1.0, 2.0), "bias": 0.0, "sigmoid": SURE, "least": 0.3, "error": 0.02,  # type: ignore[arg-type]
                    **changes})


def test_the_calibrated_rule_serves_only_where_nothing_speaks_against() -> None:
    good = (0.5, 0.5)
    assert calibrated(_model(), good, error=0.02).decision == "memory"
    assert calibrated(None, good, error=0.02).decision == "retrieve"
    assert calibrated(_model(), (0.0, 0.1), error=0.02).decision == "retrieve"          # too unlike
    assert calibrated(_model(least=None), good, error=0.02).decision == "retrieve"
    assert calibrated(_model(least=2.0), good, error=0.02).decision == "retrieve"
    assert calibrated(_model(), good, error=0.01).decision == "retrieve"                # fitted for a laxer promise
    assert calibrated(_model(), good, error=0.02, draw=0.04, audit=0.05).decision == "retrieve"
    assert calibrated(_model(), good, error=0.02, draw=0.06, audit=0.05).decision == "memory"


def test_a_model_survives_storing_and_a_broken_one_is_named() -> None:
    stored = json.loads(json.dumps(_model().to_dict()))
    assert model_of(stored) == _model()
    for broken in ({}, {**stored, "weights": [1.0]}, {**stored, "sigmoid": {"t": 1}}, {**stored, "bias": "x"},
                   {**stored, "weights": [1.0, float("nan")]}):
        with pytest.raises(ConfigError, match="calibrate"):
            model_of(broken)


def test_what_ships_is_readable_and_for_one_embedder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stored = json.loads(trigger.WEIGHTS.read_text(encoding="utf-8"))
    for kind in stored["models"]:
        model = trigger.shipped(kind, stored["embedder"])
        assert model is not None
        assert model.features == calibration.FEATURES[kind]
        assert trigger.shipped(kind, "another embedder") is None
    trigger.shipped.cache_clear()
    monkeypatch.setattr(trigger, "WEIGHTS", tmp_path / "none.json")
    assert trigger.shipped("passages", stored["embedder"]) is None
    trigger.shipped.cache_clear()


def test_calibration_needs_cases_of_both_outcomes_and_halves_by_question() -> None:
    rng = np.random.default_rng(3)
    cases = []
    for i in range(600):
        x = float(rng.uniform(0, 1))
        cases.append(Case(f"question {i}", (x, x / 2, 0.1), bool(rng.uniform() < 1 / (1 + math.exp(-25 * (x - 0.4))))))
    model = calibration.fit("questions", cases, error=0.05)
    assert model is not None
    assert model.least is not None
    assert calibrated(model, (1.0, 0.5, 0.1), error=0.05).decision == "memory"
    assert calibrated(model, (0.2, 0.1, 0.1), error=0.05).decision == "retrieve"
    assert calibration.fit("questions", cases[:60], error=0.05) is None
    assert calibration.fit("questions", [Case(c.about, c.values, True) for c in cases], error=0.05) is None
    assert calibration.fit("passages", cases, error=0.05) is None      # features of another kind


@pytest.mark.parametrize(("question", "past"), [
    ("When was the bridge built in 1999?", "When was the bridge built in 2009?"),
    ("How many people live in Lyon?", "How many people live in Paris?"),
    ("Who did not sign the treaty?", "Who did sign the treaty?"),
    ("When was Newton born?", "Where was Newton born?"),
    ("What is the largest lake of Chad?", "What is the smallest lake of Chad?"),
    ("When was Ada born?", "When was Ada died?"),
    ("How many bones has the hand?", "How many bones has the foot?"),
    ("who won the cup in two years", "who won the cup in three years"),
    ("how long does the warranty of the lamp last in all", "how long does the warranty of the kettle last"),
])
def test_questions_that_only_look_alike_are_told_apart(question: str, past: str) -> None:
    assert veto.against_question(question, past)
    assert veto.against_question(past, question)


@pytest.mark.parametrize(("question", "past"), [
    ("Can you tell me how long the warranty of the kettle is?", "How long is the warranty of the kettle?"),
    ("what country is normandy located in", "What country is Normandy located in?"),
    ("I would like to know who wrote Dune.", "Who wrote Dune?"),
])
def test_rewordings_are_not_forbidden(question: str, past: str) -> None:
    assert veto.against_question(question, past) is None


def test_numbers_and_names_must_stand_in_what_is_remembered() -> None:
    texts = ["Rollo led the Normans in 911.", "They had 1,200 ships."]
    assert veto.against_texts("Who led the Normans in 911?", texts) is None
    assert veto.against_texts("Were there 1200 ships?", texts) is None
    assert "912" in str(veto.against_texts("Who led the Normans in 912?", texts))
    assert "dane" in str(veto.against_texts("Who led the Danes in 911?", texts)).lower()
