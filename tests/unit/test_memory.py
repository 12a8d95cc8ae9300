"""Memory in the query path: when it serves, what it saves, what it refuses, and whose it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rag.settings import Settings, overridden
from rag.thriftrag import ThriftRAG, delete_collection
from rag.types import Answer
from retrievers.trigger import PASSAGES
from tests.fakes import ScriptedReader, WordEncoder
from tests.memory_fakes import FACTS, LIKE, QUESTION, open_kb, sure, trust, write


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return write(tmp_path / "docs", FACTS)


@pytest.fixture
def kb(settings: Settings, docs: Path) -> Iterator[ThriftRAG]:
    with open_kb(settings) as kb:
        kb.ingest(docs)
        yield trust(kb)


def trigger_of(answer: Answer) -> dict[str, object]:
    return dict(next(step.facts for step in answer.trace if step.stage == "trigger"))


def stages(answer: Answer) -> list[str]:
    return [step.stage for step in answer.trace]


def test_without_the_setting_nothing_is_remembered_or_traced(settings: Settings, docs: Path) -> None:
    with open_kb(settings, memory="off") as kb:
        kb.ingest(docs)
        assert "trigger" not in stages(kb.ask(QUESTION))
        assert not (kb.folder / "reservoir.sqlite").exists()


def test_a_like_question_is_answered_without_a_search(kb: ThriftRAG, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kb.ask(QUESTION)
    assert stages(first)[:2] == ["trigger", "retrieve"]
    assert trigger_of(first)["decision"] == "retrieve"
    monkeypatch.setattr("retrievers.hybrid.Searcher.find", None)     # a search would fail
    again = kb.ask(LIKE)
    assert trigger_of(again)["decision"] == "memory"
    assert "retrieve" not in stages(again)
    assert (again.text, [c.quote for c in again.citations]) == (first.text, [c.quote for c in first.citations])
    assert again.receipt.encoder_passes == 1        # the question alone
    assert {"naive_tokens", "saved_tokens"} <= set(again.receipt.estimates)
    assert again.receipt.naive_tokens == first.receipt.naive_tokens


def test_stored_sentence_vectors_serve_a_process_that_never_encoded_them(settings: Settings, docs: Path) -> None:
    with open_kb(settings) as kb:
        kb.ingest(docs)
        trust(kb).ask(QUESTION)
    with open_kb(settings) as later:
        answer = later.ask(LIKE)
        assert trigger_of(answer)["decision"] == "memory"
        assert later.encoder.encoded == [LIKE]  # type: ignore[attr-defined]


def test_cold_start_and_unlike_questions_search(kb: ThriftRAG) -> None:
    assert trigger_of(kb.ask(LIKE))["decision"] == "retrieve"
    assert trigger_of(kb.ask("Do otters sleep?"))["decision"] == "retrieve"


def test_without_a_model_every_question_is_checked_and_becomes_a_case(settings: Settings, docs: Path) -> None:
    with open_kb(settings) as kb:
        kb.ingest(docs)
        kb.ask(QUESTION)
        told = trigger_of(kb.ask(LIKE))
        assert told["decision"] == "retrieve"
        assert told["check"] == 1.0
        [case] = kb.memory().reservoir.observations("passages_unread")
        assert case.right
        assert len(case.values) == len(PASSAGES) - 1


def test_a_model_of_other_features_is_as_if_never_fitted(settings: Settings, docs: Path) -> None:
    with open_kb(settings) as kb:
        kb.ingest(docs)
        older = {**sure("passages_unread", near=0.7), "features": ["best_passage", "past_question"], "weights": [0.0, 1.0]}
        kb.memory().reservoir.fit("passages_unread", older)
        kb.ask(QUESTION)
        assert trigger_of(kb.ask(LIKE))["decision"] == "retrieve"
        assert kb.memory().reservoir.fitted("passages_unread") is None


def test_watching_serves_nothing_and_collects_cases(settings: Settings, docs: Path) -> None:
    with open_kb(settings, memory="watch") as kb:
        kb.ingest(docs)
        trust(kb).ask(QUESTION)
        answer = kb.ask(LIKE)
        assert trigger_of(answer)["decision"] == "retrieve"
        assert "retrieve" in stages(answer)
        assert kb.memory().reservoir.counts()["observations"] == 1


def test_an_audit_searches_what_memory_could_serve(settings: Settings, docs: Path) -> None:
    with open_kb(settings, memory_audit=1.0) as kb:
        kb.ingest(docs)
        trust(kb).ask(QUESTION)
        assert "go on measuring" in str(trigger_of(kb.ask(LIKE))["why"])


@pytest.mark.parametrize("question", [
    "How long does the warranty of the kettle last in 2031?",
    "How long does the warranty of the Zephyr kettle last?",
])
def test_a_number_or_name_that_memory_lacks_forbids_a_hit(kb: ThriftRAG, question: str) -> None:
    kb.ask(QUESTION)
    told = trigger_of(kb.ask(question))
    assert told["decision"] == "retrieve"
    assert told["vetoed"] is True


def test_the_count_rule_serves_titles(settings: Settings, docs: Path) -> None:
    with open_kb(settings, memory="count", memory_tau=0.05, memory_theta=1) as kb:
        kb.ingest(docs)
        kb.ask(QUESTION)
        told = trigger_of(kb.ask("What does the warranty cover?"))
        assert (told["decision"], told["pop"]) == ("memory", 1)
        assert trigger_of(kb.ask("What does the warranty cover?"))["tau"] == 0.05
    with open_kb(settings, memory="count", memory_tau=1.0, memory_theta=1) as never:
        assert trigger_of(never.ask("What does the warranty cover?"))["decision"] == "retrieve"


def test_memory_with_nothing_to_read_gives_way_to_the_index(kb: ThriftRAG) -> None:
    """A memory hit whose passages are refused by the filter must not become an abstention."""
    kb.ask(QUESTION)
    strict = kb.ask(LIKE, changes={"abstain_below": 0.0})
    assert strict.verdict == "answered"
    answer = kb.ask(LIKE, budget=1)
    assert answer.verdict == "abstained"
    assert "retrieve" in stages(answer)


def test_scopes_do_not_share(kb: ThriftRAG) -> None:
    kb.ask(QUESTION)
    assert trigger_of(kb.ask(LIKE, changes={"mode": "dense"}))["decision"] == "retrieve"
    assert trigger_of(kb.ask(LIKE, where="language = 'en'"))["decision"] == "retrieve"
    assert trigger_of(kb.ask(LIKE, budget=64))["decision"] == "memory"      # passages serve any budget


def test_the_same_question_is_answered_without_the_reader(settings: Settings, docs: Path) -> None:
    with open_kb(settings, memory="off", answer_cache="on") as kb:
        kb.ingest(docs)
        first = kb.ask(QUESTION)
        heard: list[str] = []
        again = kb.ask(QUESTION, on_token=heard.append)
        assert len(kb.reader.prompts) == 1  # type: ignore[attr-defined]
        assert (again.text, again.citations, again.reason) == (first.text, first.citations, first.reason)
        assert again.id != first.id
        assert heard == [first.text]
        assert (again.receipt.llm_calls, again.receipt.prompt_tokens) == (0, 0)
        assert again.receipt.saved_tokens == first.receipt.naive_tokens
        told = trigger_of(again)
        assert told["saved"]["prompt_tokens"] == first.receipt.prompt_tokens  # type: ignore[index]
        assert stages(again) == ["trigger"]


@pytest.mark.parametrize("change", [{"changes": {"reader_max_tokens": 8}}, {"budget": 40}, {"where": "language = 'en'"},
                                    {"selector": "topk"}])
def test_an_answer_is_not_repeated_under_other_conditions(settings: Settings, docs: Path, change: dict[str, object]) -> None:
    with open_kb(settings, answer_cache="on") as kb:
        kb.ingest(docs)
        kb.ask(QUESTION)
        kb.ask(QUESTION, **change)  # type: ignore[arg-type]
        assert len(kb.reader.prompts) == 2  # type: ignore[attr-defined]


def test_another_reader_does_not_repeat_an_answer(settings: Settings, docs: Path) -> None:
    with open_kb(settings, answer_cache="on") as kb:
        kb.ingest(docs)
        kb.ask(QUESTION)
    other = ScriptedReader("nine days")
    other.name = "another"
    with ThriftRAG.open("kb", settings=overridden(settings, {"answer_cache": "on"}), reader=other, encoder=WordEncoder()) as kb:
        assert kb.ask(QUESTION).text == "nine days"


def test_a_near_answer_is_repeated_only_where_that_is_promised(settings: Settings, docs: Path) -> None:
    with open_kb(settings, memory="off", answer_cache="on") as kb:
        kb.ingest(docs)
        first = kb.ask(QUESTION)
        assert trigger_of(kb.ask(LIKE))["decision"] == "retrieve"
        assert [case.right for case in kb.memory().reservoir.observations("questions")] == [True]
        trust(kb)
        near = "how long does the warranty of the kettle last in all"
        answer = kb.ask(near)
        assert trigger_of(answer)["decision"] == "memory"
        assert answer.text == first.text
        told = trigger_of(kb.ask("How long does the warranty of the kettle not last?"))
        assert (told["decision"], told["why"]) == ("retrieve", "one denies and the other does not")


def test_an_answer_ends_with_its_snapshot(settings: Settings, docs: Path) -> None:
    with open_kb(settings, memory="off", answer_cache="on") as kb:
        kb.ingest(docs)
        kb.ask(QUESTION)
        (docs / "more.txt").write_text("Teapots are round.\n", encoding="utf-8")
        kb.ingest(docs)
        assert trigger_of(kb.ask(QUESTION))["decision"] == "retrieve"


def test_what_has_come_since_forbids_a_hit_only_where_it_matters(kb: ThriftRAG, docs: Path) -> None:
    kb.ask(QUESTION)
    (docs / "whales.txt").write_text("Whales sing songs below water.\n", encoding="utf-8")
    kb.ingest(docs)
    assert trigger_of(kb.ask(LIKE))["decision"] == "memory"
    (docs / "news.txt").write_text("The warranty of the kettle lasts five years from now on.\n", encoding="utf-8")
    kb.ingest(docs)
    answer = kb.ask(LIKE)
    assert trigger_of(answer)["decision"] == "retrieve"
    assert "came since" in str(trigger_of(answer)["why"])
    assert trigger_of(kb.ask(LIKE + " So?"))["decision"] == "memory"       # remembered anew, with the newcomer


def test_a_collection_made_again_has_no_past(settings: Settings, docs: Path) -> None:
    with open_kb(settings) as kb:
        kb.ingest(docs)
        trust(kb).ask(QUESTION)
        delete_collection("kb", settings=kb.settings)
        kb.ingest(docs)
        assert trigger_of(trust(kb).ask(LIKE))["decision"] == "retrieve"


def test_a_tenant_cannot_read_the_memory_of_another(settings: Settings, docs: Path) -> None:
    with open_kb(settings, answer_cache="on") as kb:
        kb.ingest(docs)
        trust(kb).ask(QUESTION)
    with open_kb(settings, answer_cache="on") as theirs:
        theirs.tenant = "them"
        assert trigger_of(theirs.ask(QUESTION))["decision"] == "retrieve"
        assert [each.name for each in theirs.memory().reservoir.listed("questions")] == [QUESTION]
    with open_kb(settings, answer_cache="on") as kb:
        assert kb.memory().reservoir.listed("answers") == []      # whose file it is now is not ours to read either
