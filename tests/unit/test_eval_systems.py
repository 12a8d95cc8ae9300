"""Each system shows the reader what its name says, and nothing else."""

from __future__ import annotations

import pytest

from eval import systems
from eval.systems import SYSTEMS
from rag.errors import InputError
from rag.types import Answer
from tests.eval_fakes import CORPUS, FakeBase, ScriptedReader, World, question


@pytest.fixture
def kb() -> FakeBase:
    world = World()
    world.collections["c"] = {record["id"]: record for record in CORPUS}
    return world("c", settings=None, reader=ScriptedReader())  # type: ignore[arg-type]


def shown(answer: Answer) -> list[tuple[str, tuple[int, ...]]]:
    return [(passage.chunk.doc_id, passage.sentences) for passage in answer.context.passages]


def test_closed_book_shows_nothing(kb: FakeBase) -> None:
    answer = SYSTEMS["closed_book"].answer(kb, question(), 100)
    assert answer.context.text == ""
    assert answer.text == "I don't know"


def test_gold_shows_the_gold_passages_whole_in_the_order_of_the_evidence(kb: FakeBase) -> None:
    answer = SYSTEMS["gold"].answer(kb, question(evidence=("d2", "d1")), 100)
    assert shown(answer) == [("d2", (0, 1)), ("d1", (0, 1, 2))]


def test_gold_sentences_shows_only_those_that_bear_an_answer(kb: FakeBase) -> None:
    answer = SYSTEMS["gold_sentences"].answer(kb, question(evidence=("d2", "d1"), answers=("rollo", "norway")), 100)
    assert shown(answer) == [("d1", (1, 2))]


def test_an_answer_across_a_sentence_end_is_borne_by_both_sentences(kb: FakeBase) -> None:
    answer = SYSTEMS["gold_sentences"].answer(kb, question(answers=("led them. He came",)), 100)
    assert shown(answer) == [("d1", (1, 2))]


@pytest.mark.parametrize("answers", [("42",), ("yes",), ()])
def test_gold_sentences_shows_whole_passages_without_bearing_ones(kb: FakeBase, answers: tuple[str, ...]) -> None:
    answer = SYSTEMS["gold_sentences"].answer(kb, question(answers=answers), 100)
    assert shown(answer) == [("d1", (0, 1, 2))]


def test_ceilings_are_not_bound_by_the_budgets_of_the_run() -> None:
    assert [name for name, system in SYSTEMS.items() if not system.bounded] == ["closed_book", "gold", "gold_sentences"]


@pytest.mark.parametrize(("name", "selector"), [
    ("topk", "topk"), ("sentences", "sentences"), ("greedy", "greedy"), ("thrift", None)])
def test_selectors_are_asked_for_by_name_and_thrift_takes_the_default(kb: FakeBase, name: str, selector: str | None) -> None:
    SYSTEMS[name].answer(kb, question(), 33)
    assert kb._world.asked == [("Who led the Normans?", 33, selector)]


def test_named_keeps_order_and_drops_repeats() -> None:
    assert [system.name for system in systems.named(["thrift", "gold", "thrift"])] == ["thrift", "gold"]


@pytest.mark.parametrize(("names", "message"), [
    (["topk", "mcts"], "'mcts' is not built yet"), (["topq"], "'topq' is unknown"), ([], "No system is named")])
def test_unknown_systems_are_refused_with_what_there_is(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        systems.named(names)
    assert "closed_book, gold, gold_sentences, topk, sentences, greedy, thrift" in caught.value.hint
