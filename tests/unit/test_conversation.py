"""Questions that lean on earlier turns take their words along; those that do not are left as they are."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.bench.conversation import Talk, changes, compared, follow_ups
from eval.datasets import Question
from rag.conversation import MOST_TURNS, MOST_WORDS, Standalone, Turn, leans, standalone
from rag.tokens import ByteEstimate


def user(text: str) -> Turn:
    return Turn("user", text)


def assistant(text: str) -> Turn:
    return Turn("assistant", text)


PUMP = (user("How long is the warranty of the Zeta pump?"), assistant("27 months [1]."))


@pytest.mark.parametrize("question", [
    "And the spare parts?", "What about the Beta pump?", "Why?", "How long does it take to charge the battery?",
    "Where was she born?", "Who made that?", "What is the price?",
    "also in Berlin, under which terms?", "What are their names and addresses?"])
def test_what_needs_an_earlier_turn_is_known_by_its_form(question: str) -> None:
    assert leans(question)


@pytest.mark.parametrize("question", [
    "How long do otters sleep at night?", "When was Ada Lovelace born and where did she die?", "What is tin?", "Who is an otter?",
    "Is there a valve that leaks in hall 3?", "Which one of the valves leaks water?", "Define entropy."])
def test_what_stands_alone_is_left_alone(question: str) -> None:
    assert not leans(question)
    assert standalone(question, PUMP) == Standalone(question)


def test_the_words_of_the_subject_are_carried_with_a_short_answer_first() -> None:
    found = standalone("When was she born?", (user("Who wrote Frankenstein?"), assistant("Mary Shelley [1]")))
    assert found.carried == ("Mary Shelley", "wrote Frankenstein")
    assert found.text == "When was she born? (Mary Shelley, wrote Frankenstein)"
    assert found.tokens == ByteEstimate().count(" (Mary Shelley, wrote Frankenstein)")


def test_words_that_the_question_has_are_not_said_twice() -> None:
    assert standalone("And the pumps and their warranties?", (user("Is the Zeta pump green?"),)).carried == ("Zeta pump green",)
    assert standalone("Is it a pump?", (user("Which pump?"),)).carried == ()


def test_a_long_answer_and_one_that_says_nothing_carry_nothing() -> None:
    long = assistant("The warranty of all our pumps is described in a booklet that comes with each of them.")
    for answer in (long, assistant("I don't know."), assistant("")):
        assert standalone("Why?", (PUMP[0], answer)).carried == ("long", "warranty", "Zeta pump")


def test_the_subject_stays_over_turns_that_lean_and_ends_with_one_that_does_not() -> None:
    leaning = (*PUMP, user("And where are its spare parts kept?"), assistant("In a hall in the harbour of old Rotterdam."))
    assert "Zeta pump" in standalone("Who runs it?", leaning).carried
    moved = (*PUMP, user("How do otters sleep at night?"))
    assert standalone("Why?", moved).carried == ("otters sleep", "night")


def test_without_a_history_nothing_happens() -> None:
    assert standalone("Why?", ()) == Standalone("Why?")
    assert standalone("Why?", (user("  "), assistant("x"))).carried == ("x",)


def test_a_pasted_document_takes_no_time() -> None:
    pasted = user("The Zeta pump and its valves. " * 10_000)
    since = time.perf_counter()
    assert "Zeta pump" in standalone("Why?", [pasted] * MOST_TURNS).carried
    assert time.perf_counter() - since < 1


def test_what_is_longer_ago_than_the_limit_is_forgotten() -> None:
    assert standalone("Why?", (*PUMP, *[user("Why?")] * MOST_TURNS)).carried == ()


@given(st.text(), st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(alphabet=string.printable + "éß中’")),
                           max_size=6))
def test_whatever_was_said_little_is_carried_and_the_question_stays(question: str, turns: list[tuple[str, str]]) -> None:
    history = [Turn(role, text) for role, text in turns]  # type: ignore[arg-type]
    found = standalone(question, history)
    assert found.text.startswith(question)
    assert sum(len(phrase.split()) for phrase in found.carried) <= MOST_WORDS
    assert found == standalone(question, history)


def question(text: str, gold: str, answer: str = "yes") -> Question:
    return Question(text, text, (answer,), (gold,), "extractive")


def test_conversations_are_made_from_questions_that_share_a_name() -> None:
    asked = [question("Who built the Eiffel Tower?", "a"), question("How high is the Eiffel Tower in metres?", "a"),
             question("What is Paris's river?", "b"), question("How long is Paris's wall?", "b"), question("Who was here?", "c")]
    found = {talk.gold[0]: talk for talk in follow_ups(asked, limit=9, seed=1)}
    assert (found["a"].first, found["a"].second) == ("Who built the Eiffel Tower?", "How high is it in metres?")
    assert (found["b"].second, found["b"].original) == ("How long is its wall?", "How long is Paris's wall?")
    assert set(found) == {"a", "b"}
    assert len(follow_ups(asked, limit=1, seed=1)) == 1
    assert all(talk.second == talk.original for talk in changes(asked, limit=9, seed=1))


def test_rows_compare_each_way_with_asking_alone() -> None:
    talks = [Talk("Who built the Eiffel Tower?", "Eiffel", "How high is it?", "How high is the Eiffel Tower?", ("a",))] * 4
    rows = {row.name: row for row in compared(talks, {"alone": [0, 0, 1, 0], "carried": [1, 1, 1, 0]}, "set", seed=3)}
    assert rows["set: carried - alone"].value == 0.5
    assert rows["set: taken to lean"].value == 1
    assert list(compared([], {}, "set", seed=3)) == []
