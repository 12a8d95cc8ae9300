"""The retriever and the Runnable, as chains use them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tracers.log_stream import RunLogPatch

from rag.errors import InputError, ModelUnavailable
from rag.langchain import ThriftAnswers, ThriftRetriever
from rag.thriftrag import ThriftRAG
from tests.api_fakes import QUESTION, RECORDS, PacedReader, make_collection, make_settings, wait_until
from tests.fakes import WordEncoder

MORE = ({"id": "valve", "title": "Valve", "text": "The Beta valve has a warranty of 5 months.", "year": 2011},
        {"id": "hall", "title": "Hall", "text": "Hall 3 holds the pump and its warranty papers.", "year": 2012})


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ThriftRAG, PacedReader]]:
    settings, encoder, reader = make_settings(tmp_path_factory.mktemp("home")), WordEncoder(), PacedReader()
    make_collection(settings, encoder, records=(*RECORDS, *MORE))
    with ThriftRAG.open("default", settings=settings, encoder=encoder, reader=reader) as kb:
        yield kb, reader


@pytest.fixture
def kb(opened: tuple[ThriftRAG, PacedReader]) -> ThriftRAG:
    return opened[0]


@pytest.fixture
def reader(opened: tuple[ThriftRAG, PacedReader]) -> Iterator[PacedReader]:
    yield opened[1]
    opened[1].gate.set()
    opened[1].error = None
    opened[1].stopped_at = None


def test_hits_are_documents_with_their_place(kb: ThriftRAG) -> None:
    found = ThriftRetriever(kb=kb, k=2, where={"year": {"gte": 2020}}).invoke(QUESTION)
    [document] = found
    assert document.page_content == kb.search(QUESTION, k=1)[0].chunk.text
    assert document.id == document.metadata["chunk_id"]
    assert (document.metadata["doc_id"], document.metadata["source"], document.metadata["year"]) == ("pump", "stdin#pump", 2021)
    text = kb.document("pump").text
    assert text[document.metadata["start"]:document.metadata["end"]] == document.page_content


def test_a_budget_gives_the_sentences_that_the_reader_would_get(kb: ThriftRAG) -> None:
    retriever = ThriftRetriever(kb=kb, budget=24)
    found = retriever.invoke(QUESTION)
    context = kb.context(QUESTION, budget=24).context
    assert found
    assert [document.id for document in found] == [passage.chunk.id for passage in context.passages]
    assert all(document.page_content in context.text for document in found)
    assert sum(kb.reader.tokenizer.count(document.page_content) for document in found) <= 24
    assert [document.metadata["n"] for document in found] == [passage.n for passage in context.passages]
    assert retriever.invoke(QUESTION, budget=1) == []
    assert ThriftRetriever(kb=kb, budget=24, where={"year": 1900}).invoke(QUESTION) == []


def test_numbers_of_results_are_kept(kb: ThriftRAG) -> None:
    """The four contracts of langchain-tests for retrievers, for where it is not installed."""
    for k in (1, 3):
        assert len(ThriftRetriever(kb=kb, k=k).invoke(QUESTION)) == k
        assert len(ThriftRetriever(kb=kb).invoke(QUESTION, k=k)) == k
    found = asyncio.run(ThriftRetriever(kb=kb).ainvoke(QUESTION))
    assert found == ThriftRetriever(kb=kb).invoke(QUESTION)
    assert all(isinstance(document, Document) for document in found)
    with pytest.raises(InputError):
        ThriftRetriever(kb=kb, mode="magic").invoke(QUESTION)
    with pytest.raises(ValueError, match="kk"):
        ThriftRetriever(kb=kb, kk=3)  # type: ignore[call-arg]


def test_retrievers_stand_in_chains(kb: ThriftRAG) -> None:
    chain = {"documents": ThriftRetriever(kb=kb, k=1), "question": RunnablePassthrough()} | RunnableLambda(
        lambda row: f"{row['question']} {row['documents'][0].metadata['doc_id']}") | StrOutputParser()
    assert chain.invoke(QUESTION) == f"{QUESTION} pump"
    assert chain.batch([QUESTION, "otters sleep"])[1].endswith("otter")


def test_an_answer_is_the_answer_object(kb: ThriftRAG, reader: PacedReader) -> None:
    found = ThriftAnswers(kb, budget=64).invoke(QUESTION)
    direct = kb.ask(QUESTION, budget=64).to_dict()
    assert list(found) == [*direct, "carried"]
    for name in ("question", "answer", "verdict", "citations", "config"):
        assert found[name] == direct[name]
    assert found["receipt"]["budget_tokens"] == 64
    assert ThriftAnswers(kb, budget=64).bind(budget=32).invoke(QUESTION)["receipt"]["budget_tokens"] == 32
    assert asyncio.run(ThriftAnswers(kb).ainvoke(QUESTION))["answer"] == found["answer"]


def test_prompts_messages_and_histories_are_questions(kb: ThriftRAG, reader: PacedReader) -> None:
    answers = ThriftAnswers(kb, budget=64)
    prompt = ChatPromptTemplate.from_messages([("system", "Talk like a pirate."), ("human", "How long is the warranty of {what}?")])
    assert (prompt | answers).invoke({"what": "the Zeta pump"})["question"] == QUESTION
    history = [SystemMessage("x"), HumanMessage(QUESTION), AIMessage("27 months [1].")]
    leaning = "Where are its spare parts kept?"
    carried = ["27 months", "long", "warranty", "Zeta pump"]
    for asked in ([*history, HumanMessage(leaning)], {"question": leaning, "history": history}):
        found = answers.invoke(asked)
        assert found["carried"] == carried
        assert found["receipt"]["budget_tokens"] < 64
    for wrong in ([AIMessage("x")], {"query": "x"}, {}):
        with pytest.raises(InputError):
            answers.invoke(wrong)


def test_a_stream_adds_up_to_the_answer(kb: ThriftRAG, reader: PacedReader) -> None:
    pieces = list(ThriftAnswers(kb).stream(QUESTION))
    assert [piece["answer"] for piece in pieces] == ["27", " months", " [1]", ".", ""]
    whole: Any = functools.reduce(lambda one, other: one + other, pieces)
    assert whole["answer"] == whole["checked_answer"] == "27 months [1]."
    assert whole["citations"] == ThriftAnswers(kb).invoke(QUESTION)["citations"]
    assert whole["receipt"]["completion_tokens"] == 4

    async def streamed() -> list[dict[str, Any]]:
        return [piece async for piece in ThriftAnswers(kb).astream(QUESTION)]

    assert [piece["answer"] for piece in asyncio.run(streamed())] == [piece["answer"] for piece in pieces]


def test_streams_pass_through_chains_and_tracers(kb: ThriftRAG, reader: PacedReader) -> None:
    chain = ThriftAnswers(kb) | RunnableLambda(lambda row: row["answer"])
    assert "".join(chain.stream(QUESTION)) == "27 months [1]."

    async def logged() -> list[RunLogPatch]:
        return [patch async for patch in ThriftAnswers(kb).astream_log(QUESTION)]

    assert any(op["path"] == "/streamed_output/-" for patch in asyncio.run(logged()) for op in patch.ops)


def test_a_stream_that_is_closed_stops_the_reader(kb: ThriftRAG, reader: PacedReader) -> None:
    reader.gate.clear()
    stream = ThriftAnswers(kb).stream(QUESTION)
    assert next(iter(stream))["answer"] == "27"
    stream.close()  # type: ignore[attr-defined]  # a generator
    wait_until(lambda: reader.stopped_at is not None)
    reader.stopped_at = None

    async def left() -> None:
        pieces = ThriftAnswers(kb).astream(QUESTION)
        assert (await anext(pieces))["answer"] == "27"
        await pieces.aclose()  # type: ignore[attr-defined]

    asyncio.run(left())
    wait_until(lambda: reader.stopped_at is not None)


def test_errors_come_through_as_they_are(kb: ThriftRAG, reader: PacedReader) -> None:
    reader.error = ModelUnavailable("Nothing answers.")
    with pytest.raises(ModelUnavailable):
        ThriftAnswers(kb).invoke(QUESTION)
    with pytest.raises(ModelUnavailable):
        list(ThriftAnswers(kb).stream(QUESTION))
