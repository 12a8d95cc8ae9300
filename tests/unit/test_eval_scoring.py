"""What one answer is worth, and that declining pays only where it is right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eval.datasets import Question
from eval.scoring import score, score_of_failure
from rag.types import Answer, Verdict
from tests.eval_fakes import CORPUS, ScriptedReader, World, question


def answer(text: str, *, verdict: Verdict = "answered") -> Answer:
    world = World()
    world.collections["c"] = {record["id"]: record for record in CORPUS}
    kb = world("c", settings=None, reader=ScriptedReader())  # type: ignore[arg-type]
    return replace(kb.ask("Who led the Normans?", budget=100), text=text, verdict=verdict)


UNANSWERABLE = question(answers=(), evidence=(), type="unanswerable")


@pytest.mark.parametrize(("asked", "said", "verdict", "worth"), [
    (UNANSWERABLE, "", "abstained", 1),
    (UNANSWERABLE, "I don't know", "abstained", 1),
    (UNANSWERABLE, "Rollo", "answered", 0),
    (UNANSWERABLE, "", "degraded", 0),
    (question(), "Rollo", "abstained", 0),
    (question(answers=("the",)), "", "abstained", 0),
    (question(), "Rollo", "answered", 1),
    (question(), "Rollo [1].", "degraded", 1),
])
def test_declining_is_credited_only_where_it_is_right(asked: Question, said: str, verdict: Verdict, worth: float) -> None:
    found = score(asked, answer(said, verdict=verdict))
    assert (found["em"], found["f1"]) == (worth, worth)


def test_yes_no_and_contains_beside_exact_match() -> None:
    found = score(question(answers=("yes",)), answer("Yes, it is white."))
    assert (found["em"], found["yes_no"], found["contains"], found["answer_in_context"]) == (0, 1, 1, None)


def test_without_gold_answers_only_the_evidence_counts() -> None:
    found = score(question(answers=(), type="ad hoc"), answer("Rollo"))
    assert (found["em"], found["f1"], found["contains"], found["evidence_recall"]) == (None, None, None, 1)


def test_every_score_has_a_value_for_a_failure_with_the_same_names() -> None:
    assert set(score_of_failure(question())) == set(score(question(), answer("Rollo")))
    assert score_of_failure(question())["f1"] == 0
    assert score_of_failure(UNANSWERABLE)["f1"] == 0
    assert score_of_failure(question(answers=(), type="ad hoc"))["f1"] is None
