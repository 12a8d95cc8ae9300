"""Questions about all texts: told by their form and their scores, answered from summaries within the budget, cited to members."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from optimizers.context import render
from optimizers.coverage import choose_by_coverage
from optimizers.pool import Candidate, Pool
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import Chunk, Extract
from retrievers.overall import form_of, judged
from tests.fakes import ScriptedReader, WordCounter, WordEncoder, make_chunk

SAID = {"battery": "The battery lasts two long days.", "screen": "The bright screen shows sharp colours.",
        "staff": "The friendly staff helped us quickly."}
FLAT = [0.5] * 12
PEAKED = [0.9] + [0.4] * 11


@pytest.mark.parametrize("question", [
    "What do guests complain about?", "What do people say about the battery life of the amazon kindle?",
    "Summarize the reviews.", "What are the main issues with the screen?", "What did most customers like?",
    "How do users feel about the price?", "What are the most common complaints?", "Give me an overview of the feedback.",
    "How many guests mention noise?", "What are the pros and cons?", "What topics do the documents cover?",
    "Worüber beschweren sich die Gäste?", "Que disent les clients ?", "¿Qué dicen los clientes?"])
def test_questions_about_all_texts_are_known_by_their_form(question: str) -> None:
    assert form_of(question) == "strong"
    assert judged(question, FLAT).whole
    assert not judged(question, PEAKED).whole
    assert judged(question, []).whole


@pytest.mark.parametrize("question", [
    "How long is the warranty?", "Who wrote the report?", "What is the battery capacity?", "When did the company open in Boston?",
    "What does error E-1042 mean?",
    "How many people live in Boston?", "In what country is Normandy located?", "Which band was formed first, Blur or Oasis?", ""])
def test_questions_that_one_passage_answers_never_are(question: str) -> None:
    assert form_of(question) == "none"
    assert not judged(question, FLAT).whole


def test_a_weak_form_counts_only_where_no_passage_stands_out() -> None:
    assert form_of("How is the breakfast?") == "weak"
    assert judged("How is the breakfast?", FLAT).whole
    assert not judged("How is the breakfast?", [0.6, *FLAT[1:]]).whole
    assert not judged("How is the breakfast?", []).whole


def test_the_topic_is_what_is_left_of_the_form() -> None:
    assert judged("What do guests say?", FLAT).topic == frozenset()
    assert judged("Summarize the reviews", FLAT).topic == frozenset()
    assert len(judged("What do guests say about the parking?", FLAT).topic) == 1


@pytest.fixture
def reader() -> ScriptedReader:
    return ScriptedReader("The battery lasts two long days.")


@pytest.fixture
def kb(settings: Settings, reader: ScriptedReader) -> Iterator[ThriftRAG]:
    lines = [json.dumps({"id": f"{name}-{i}", "text": f"{text[:-1]}, number{i}.", "product": "Kettle 3" if i % 2 else "lamp"})
             for name, text in SAID.items() for i in range(6)]
    with ThriftRAG.open("kb", settings=settings, reader=reader, encoder=WordEncoder()) as kb:
        kb.ingest(lines=lines)
        kb.build_clusters()
        yield kb


def route(kb: ThriftRAG, question: str, **changes: object) -> dict[str, object]:
    found = kb.ask(question, changes=changes).trace[0].to_dict()["clustered"]
    assert isinstance(found, dict)
    return found


def test_a_question_about_all_texts_is_answered_from_summaries_and_cited_to_members(kb: ThriftRAG, reader: ScriptedReader) -> None:
    answer = kb.ask("What do people say about the battery?")
    facts = answer.trace[0].to_dict()["clustered"]
    assert isinstance(facts, dict)
    assert (facts["route"], facts["form"], facts["summaries"], facts["texts"]) == ("summaries", "strong", 3, 18)
    assert answer.verdict == "answered"
    assert "33% of 18" in answer.context.text
    assert all(name in answer.context.text for name in SAID)
    [cited] = answer.citations
    assert cited.doc_id.startswith("battery-")
    assert cited.quote == kb.document(cited.doc_id).text[cited.start:cited.end]
    assert answer.receipt.context_tokens <= answer.receipt.budget_tokens
    select = next(step for step in answer.trace if step.stage == "select").to_dict()
    considered = select["considered"]
    assert select["selector"] == "coverage"
    assert isinstance(considered, list)
    assert [row["kept"] for row in considered] == [True] * 3
    assert "Answer:" in reader.prompts[-1]
    assert "Short answer:" not in reader.prompts[-1]


def test_a_question_that_one_passage_answers_goes_the_ordinary_way(kb: ThriftRAG, reader: ScriptedReader) -> None:
    assert route(kb, "How many days does the battery last?")["route"] == "passages"
    assert "Short answer:" in reader.prompts[-1]


def test_the_setting_decides(kb: ThriftRAG) -> None:
    assert route(kb, "Which staff helped quickly?", clustered="always")["route"] == "summaries"
    assert "clustered" not in kb.ask("What do people say?", changes={"clustered": "off"}).trace[0].to_dict()


@pytest.mark.parametrize("budget", [1, 9, 12, 20, 30, 64])
def test_summaries_never_break_the_budget(kb: ThriftRAG, budget: int) -> None:
    answer = kb.ask("What do people say about the battery?", budget=budget)
    assert answer.receipt.context_tokens <= budget
    assert answer.verdict == "answered" or (budget < 20 and "budget_too_small" in str(answer.reason))


def test_the_context_and_the_pool_show_the_same_summaries(kb: ThriftRAG) -> None:
    question = "What do people say about the battery?"
    prepared, pool = kb.context(question), kb.pool(question)
    assert sorted(candidate.chunk.id for candidate in pool.candidates) == [f"cluster:all::{number}" for number in (1, 2, 3)]
    assert prepared.context.text == kb.ask(question).context.text
    answer = kb.answer_from(question, [Extract(candidate.chunk, (0,)) for candidate in pool.candidates])
    assert answer.citations
    assert all(not cited.chunk_id.startswith("cluster:") for cited in answer.citations)


def test_a_question_with_a_topic_that_no_text_has_is_declined(kb: ThriftRAG) -> None:
    answer = kb.ask("What do people say about zebra astronomy quantum whales?", changes={"abstain_below": 0.95})
    assert answer.verdict == "abstained"
    assert str(answer.reason).startswith("nothing_relevant")
    assert kb.ask("What do people say?", changes={"abstain_below": 0.95}).verdict == "answered"


def test_a_group_that_the_question_names_is_in_scope(kb: ThriftRAG) -> None:
    kb.build_clusters("product")
    named = route(kb, "What do customers say about the kettle 3?")
    assert (named["clustering"], named["groups"], named["texts"]) == ("metadata.product", ["Kettle 3"], 9)
    assert route(kb, "What do customers say?")["clustering"] == "all"
    facts = kb.ask("What do customers say?", where="product = lamp").trace[0].to_dict()["clustered"]
    assert isinstance(facts, dict)
    assert facts["groups"] == ["lamp"]
    kb.delete_clusters("all")
    hits = kb.search("What do customers say?", mode="clustered")
    assert {hit.chunk.heading.split(":")[0] for hit in hits} == {"Kettle 3", "lamp"}


def test_texts_that_came_since_are_counted(kb: ThriftRAG) -> None:
    kb.ingest(lines=[json.dumps({"id": "new", "text": "The lid is loose."})])
    assert route(kb, "What do people say about the battery?")["outdated"] == 1
    found = kb.find("What do people say?", mode="clustered")
    assert "1 texts came after" in found.notes[0]
    assert found.origins == ("clustered",)
    assert found.hits[0].to_dict()["chunk_id"]
    assert len(kb.find("What do people say?", mode="clustered", k=2).hits) == 2


def pool_of(*candidates: tuple[str, float]) -> Pool:
    """Candidates with these texts and scores."""
    counter, encoder, made = WordCounter(), WordEncoder(), []
    for i, (text, score) in enumerate(candidates):
        chunk: Chunk = make_chunk(text, id=f"c{i}", doc_id=f"c{i}", heading="50%")
        said = [chunk.sentence(j) for j in range(len(chunk.sentences))]
        made.append(Candidate(chunk, score, 0.0, tuple(0.5 for _ in said), tuple(counter.count_many(said)),
                              tuple(frozenset() for _ in said), encoder.encode(said), counter.count(text)))
    return Pool(tuple(made), {})


def shown(context: Extract) -> tuple[str, tuple[int, ...]]:
    return context.chunk.id, context.sentences


def test_coverage_takes_a_sentence_of_each_before_a_third_of_one() -> None:
    pool = pool_of(("Otters sleep well. Herons fly high. Badgers dig holes.", 1.0), ("Kettles boil water. Lamps give light.", 0.6),
                   ("Doors open slowly.", 0.3))
    full = choose_by_coverage(pool, budget=500, render=lambda e: render(e, counter=WordCounter()), stop=lambda: False)
    assert [shown(each) for each in full.extracts] == [("c0", (0, 1, 2)), ("c1", (0, 1)), ("c2", (0,))]
    for budget in range(60):
        found = choose_by_coverage(pool, budget=budget, render=lambda e: render(e, counter=WordCounter()), stop=lambda: False)
        assert not found.extracts or render(found.extracts, counter=WordCounter()).tokens <= budget
        assert len(found.considered) == 3
    some = choose_by_coverage(pool, budget=34, render=lambda e: render(e, counter=WordCounter()), stop=lambda: False)
    assert {each.chunk.id for each in some.extracts} >= {"c0", "c1"}


def test_quotes_come_last_and_take_a_tenth() -> None:
    pool = pool_of(("Aa bb cc dd.", 1.0), ("Ee ff gg hh.", 0.01), ("Ii jj kk ll.", 0.005))
    counter = WordCounter()

    def chosen(budget: int) -> list[str]:
        found = choose_by_coverage(pool, budget=budget, render=lambda e: render(e, counter=counter), stop=lambda: False,
                                   quotes=frozenset({1, 2}))
        return [each.chunk.id for each in found.extracts]

    assert chosen(60) == ["c0"]
    assert chosen(150) == ["c0", "c1"]
    assert chosen(400) == ["c0", "c1", "c2"]


def test_a_stopped_choice_is_marked_and_repeated_sentences_are_left_out() -> None:
    pool = pool_of(("Aa bb cc.", 1.0), ("Aa bb cc!", 0.9))
    found = choose_by_coverage(pool, budget=99, render=lambda e: render(e, counter=WordCounter()), stop=lambda: False)
    assert len(found.extracts) == 1
    assert found.considered[1].why == "says the same as another candidate"
    stopped = choose_by_coverage(pool, budget=99, render=lambda e: render(e, counter=WordCounter()), stop=lambda: True)
    assert stopped.extracts == ()
    assert stopped.degraded is not None
    assert np.isfinite(found.utility)
