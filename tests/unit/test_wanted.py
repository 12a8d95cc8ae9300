"""What a question asks for, and whether a sentence has it."""

from __future__ import annotations

import pytest

from optimizers.wanted import has_number, names, signs, wanted, wants_name, wants_number


@pytest.mark.parametrize(("question", "number", "name"), [
    ("When was the bridge built?", True, False),
    ("how many people live there", True, False),
    ("What year did it open?", True, False),
    ("Who wrote it, and when?", True, True),
    ("Where is the Eiffel Tower?", False, True),
    ("In which city was she born?", False, True),
    ("What colour is it?", False, False),
    ("Whenever it rains, what happens?", False, False),
    ("Wann wurde die Brücke gebaut?", False, False),
    ("", False, False)])
def test_what_a_question_asks_for(question: str, number: bool, name: bool) -> None:
    assert wants_number(question) is number
    assert wants_name(question) is name


def test_numbers_and_names_in_sentences() -> None:
    assert has_number("It opened in 1937.")
    assert has_number("It took eleven years.")
    assert not has_number("It took ages; someone waited.")
    assert names("The bridge was designed by Joseph Strauss, of Chicago.") == ["Joseph", "Strauss", "Chicago"]
    assert names("Nothing here. Or Here.") == ["Here"]      # "Or" begins a sentence
    assert names("all in small letters") == []


def test_signs_by_hand() -> None:
    question = "When did Strauss design the bridge?"
    assert signs(wanted(question), "Strauss designed the bridge in 1930.") == (3 / 12, 0.0, 0.0)
    assert signs(wanted(question), "Strauss did design the bridge.") == (0.0, 1.0, 0.0)
    assert signs(wanted("Who designed it?"), "It was designed by Joseph Strauss.") == (4 / 12, 0.0, 1.0)
    assert signs(wanted("Who was Strauss?"), "People say that Strauss was ill.") == (4 / 12, 0.0, 0.0)
    assert signs(wanted(""), " ".join(f"w{at}" for at in range(40)))[0] == 1.0
