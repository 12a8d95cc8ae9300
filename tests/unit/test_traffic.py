"""Repeated traffic: its parts, that rewordings ask the same, and that nothing of it depends on chance."""

from __future__ import annotations

from collections.abc import Sequence

from eval.datasets import Dataset, Passage, Question
from eval.traffic import KINDS, by_rule, traffic
from indexers import lexical
from retrievers import veto
from tests.fakes import ScriptedReader, WordEncoder


def dataset(passages: int = 12, of_each: int = 3) -> Dataset:
    questions = tuple(Question(f"q{p}-{i}", f"How long does item{p} take in case{i}?", (f"{p}{i} days",), (f"p{p}",), "extractive")
                      for p in range(passages) for i in range(of_each))
    texts = tuple(Passage(f"p{p}", f"Item {p}", f"item{p} takes {p} days.") for p in range(passages))
    return Dataset("made", texts, questions, "d", "c")


def made(**changes: object):  # type: ignore[no-untyped-def]
    return traffic(dataset(), **{"fill": 4, "ask": 12, "seed": 5, "encode": WordEncoder().encode, **changes})  # type: ignore[arg-type]


def test_the_stream_has_its_parts_and_keeps_gold_apart() -> None:
    found = made()
    filled = {question.evidence for question in found.fill}
    assert len(found.fill) == len(filled) == 4
    assert {kind: sum(each.kind == kind for each in found.asked) for kind in KINDS} == {
        "paraphrase": 6, "same passage": 4, "near miss": 2}
    texts = {question.text for question in found.fill}
    for each in found.asked:
        assert each.like in texts
        if each.kind == "paraphrase":
            assert each.question.text == each.like != each.text
        else:
            assert each.text == each.question.text not in texts
            assert (each.question.evidence in filled) == (each.kind == "same passage")


def test_equal_seeds_give_equal_streams() -> None:
    assert made() == made()
    assert made(seed=6) != made()


def test_rules_keep_what_is_asked() -> None:
    for turn in range(24):
        for question in ("What country is Normandy located in?", "who wrote the song my girl",
                         "When was the Zeta pump built in 1999?"):
            said = by_rule(question, turn)
            assert said != question
            assert veto.numbers(said) == veto.numbers(question)
            assert veto.names(question) <= frozenset(lexical.words(said))


def test_a_readers_rewording_is_taken_only_if_it_passes() -> None:
    def reworded(prompt: str) -> str:
        return prompt.replace("How long does", "How many days does").replace("?", " then?")

    def wrong(prompt: str) -> str:
        return prompt.replace("item", "thing") + " maybe"

    assert {each.by for each in made(reader=ScriptedReader(wrong)).asked if each.kind == "paraphrase"} == {"rule"}
    kept = [each for each in made(reader=ScriptedReader(lambda prompt: f"So, {prompt[0].lower()}{prompt[1:]}")).asked
            if each.by == "reader"]
    assert len(kept) == 3
    # Another kind of question.
    assert {each.by for each in made(reader=ScriptedReader(reworded)).asked if each.kind == "paraphrase"} == {"rule"}


def test_few_questions_give_what_there_is() -> None:
    def encode(texts: Sequence[str]):  # type: ignore[no-untyped-def]
        return WordEncoder().encode(texts)

    alone = traffic(dataset(passages=2, of_each=1), fill=4, ask=10, seed=1, encode=encode)
    assert len(alone.fill) == 2
    assert {each.kind for each in alone.asked} == {"paraphrase"}
