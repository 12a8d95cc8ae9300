"""Each system shows the reader what its name says, and nothing else."""

from __future__ import annotations

from functools import partial

import pytest

from eval import systems
from eval.datasets import Question
from eval.reply import Reply
from eval.systems import SYSTEMS
from rag import settings as configuration
from rag.errors import InputError, RagError
from rag.settings import Settings
from tests.eval_fakes import CORPUS, FakeBase, ScriptedReader, World, question

NORMANS, PARIS = CORPUS[0]["text"], CORPUS[1]["text"]


@pytest.fixture
def kb() -> FakeBase:
    world = World()
    world.collections["c"] = {record["id"]: record for record in CORPUS}
    return world("c", settings=None, reader=ScriptedReader())  # type: ignore[arg-type]


def reply(name: str, kb: FakeBase, asked: Question, *, budget: int = 100, read: bool = True) -> Reply:
    answers = SYSTEMS[name].reply
    assert answers is not None
    return answers(kb, asked, budget=budget, read=read)


def shown(found: Reply) -> list[tuple[str, str]]:
    return [(passage.doc_id, passage.text) for passage in found.passages]


def test_closed_book_shows_nothing(kb: FakeBase) -> None:
    answer = reply("closed_book", kb, question())
    assert answer.context == ""
    assert answer.text == "I don't know"


def test_gold_shows_the_gold_passages_whole_in_the_order_of_the_evidence(kb: FakeBase) -> None:
    answer = reply("gold", kb, question(evidence=("d2", "d1")))
    assert shown(answer) == [("d2", PARIS), ("d1", NORMANS)]


def test_gold_sentences_shows_only_those_that_bear_an_answer(kb: FakeBase) -> None:
    answer = reply("gold_sentences", kb, question(evidence=("d2", "d1"), answers=("rollo", "norway")))
    assert shown(answer) == [("d1", "Rollo led them. He came from Norway.")]


def test_an_answer_across_a_sentence_end_is_borne_by_both_sentences(kb: FakeBase) -> None:
    answer = reply("gold_sentences", kb, question(answers=("led them. He came",)))
    assert shown(answer) == [("d1", "Rollo led them. He came from Norway.")]


@pytest.mark.parametrize("answers", [("42",), ("yes",), ()])
def test_gold_sentences_shows_whole_passages_without_bearing_ones(kb: FakeBase, answers: tuple[str, ...]) -> None:
    answer = reply("gold_sentences", kb, question(answers=answers))
    assert shown(answer) == [("d1", NORMANS)]


def test_ceilings_are_not_bound_by_the_budgets_of_the_run() -> None:
    assert [name for name, system in SYSTEMS.items() if not system.bounded] == ["closed_book", "gold", "gold_sentences"]


@pytest.mark.parametrize("name", ["topk", "topk_bm25", "mmr", "carrot", "greedy", "thrift", "gold", "closed_book"])
def test_without_reading_the_context_is_the_same_and_nobody_is_asked(kb: FakeBase, name: str) -> None:
    read = reply(name, kb, question(), budget=33)
    made = reply(name, kb, question(), budget=33, read=False)
    assert (made.context, made.passages) == (read.context, read.passages)
    assert (made.text, made.verdict, made.read, read.read) == (None, None, False, True)
    assert isinstance(kb._reader, ScriptedReader)
    assert kb._reader.calls == 1


@pytest.mark.parametrize(("name", "changes"), [
    ("topk", {"selector": "topk", "mode": "hybrid", "abstain_below": 0.0, "second_look": "off"}),
    ("topk_dense_whole", {"selector": "topk_whole", "mode": "dense", "abstain_below": 0.0, "second_look": "off"}),
    ("greedy", {"selector": "greedy"}), ("thrift", {})])
def test_systems_are_settings_of_the_pipeline_and_only_ours_may_decline(kb: FakeBase, name: str,
                                                                        changes: dict[str, object]) -> None:
    reply(name, kb, question(), budget=33)
    assert kb._world.asked == [("Who led the Normans?", 33, changes)]


def test_every_setting_that_a_system_changes_may_be_changed_for_one_question() -> None:
    for system in SYSTEMS.values():
        if isinstance(system.reply, partial) and system.reply.func is systems.ours:
            configuration.changed(Settings(), system.reply.args[0])


def test_named_keeps_order_and_drops_repeats() -> None:
    assert [system.name for system in systems.named(["thrift", "gold", "thrift"])] == ["thrift", "gold"]


def test_a_variant_is_the_pipeline_with_its_settings() -> None:
    world = World()
    world.collections["c"] = {record["id"]: record for record in CORPUS}
    kb = world("c", settings=None, reader=ScriptedReader())  # type: ignore[arg-type]
    [variant] = systems.named(["thrift:second_look=off+candidates=12"])
    assert variant.bounded
    assert variant.reply is not None
    variant.reply(kb, question(), budget=90, read=True)
    assert world.asked[-1][1:] == (90, {"second_look": "off", "candidates": "12"})


@pytest.mark.parametrize(("name", "message"), [
    ("thrift:second_looks=off", "second_looks"), ("thrift:second_look=of", "is not one of"), ("thrift:home=/x", "cannot be"),
    ("thrift:candidates=0", "out of bounds"), ("thrift:candidates", "does not say which setting"), ("thrift:", "does not say"),
    ("thrift:second_look=off+", "does not say")])
def test_a_variant_is_refused_before_anything_is_run(name: str, message: str) -> None:
    with pytest.raises(RagError, match=message):
        systems.named(["topk", name])


@pytest.mark.parametrize(("names", "message"), [
    (["topk", "mctx"], "'mctx' is unknown"), (["topq"], "'topq' is unknown"), ([], "No system is named")])
def test_unknown_systems_are_refused_with_what_there_is(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        systems.named(names)
    assert "closed_book, gold, gold_sentences, topk, topk_dense" in caught.value.hint
