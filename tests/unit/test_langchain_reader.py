"""A LangChain chat model as the reader: it says what the model says, counts honestly, and stops when told to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from rag.errors import ModelRefused, ModelTimeout, ModelUnavailable, RagError
from rag.llm import Message, Reader
from rag.llm.langchain import LangChainReader
from rag.thriftrag import ThriftRAG
from tests.api_fakes import QUESTION, make_collection, make_settings
from tests.fakes import WordCounter, WordEncoder

ASKED = [Message("system", "Be short."), Message("user", "How long?")]


class Paced(BaseChatModel):
    """Streams its words; waits after the first while `gate` is shut. Remembers what it was sent."""

    words: tuple[str, ...] = ("27", " months", " [1]", ".")
    usage: bool = True
    finish: str = "stop"
    fails: Any = None
    fails_at: int = 0
    seen: list[Any] = []  # noqa: RUF012  # a field of a pydantic model, copied for each
    gate: Any = None
    left: Any = None

    @property
    def _llm_type(self) -> str:
        return "paced"

    def _generate(self, messages: list[BaseMessage], stop: list[str] | None = None,
                  run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any) -> ChatResult:
        self.seen.append((messages, stop, kwargs))
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(self.words)))])


class Streaming(Paced):
    async def _astream(self, messages: list[BaseMessage], stop: list[str] | None = None,
                       run_manager: AsyncCallbackManagerForLLMRun | None = None, **kwargs: Any
                       ) -> AsyncIterator[ChatGenerationChunk]:
        self.seen.append((messages, stop, kwargs))
        try:
            for at, word in enumerate(self.words):
                if self.fails is not None and at == self.fails_at:
                    raise self.fails
                yield ChatGenerationChunk(message=AIMessageChunk(word))
                while at == 0 and self.gate is not None and not self.gate.is_set():
                    await asyncio.sleep(0.005)
            usage: Any = {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16, "input_token_details": {"cache_read": 8}}
            yield ChatGenerationChunk(message=AIMessageChunk(
                "", usage_metadata=usage if self.usage else None, response_metadata={"finish_reason": self.finish}))
        except (asyncio.CancelledError, GeneratorExit):
            if self.left is not None:
                self.left.set()
            raise


@pytest.fixture
def opened() -> Iterator[list[LangChainReader]]:
    readers: list[LangChainReader] = []
    yield readers
    for reader in readers:
        reader.close()


def made(opened: list[LangChainReader], model: BaseChatModel, **options: Any) -> LangChainReader:
    opened.append(LangChainReader(model, **options))
    return opened[-1]


def test_it_is_a_reader_and_counts_as_the_model_did(opened: list[LangChainReader]) -> None:
    model = Streaming()
    reader: Reader = made(opened, model)
    pieces: list[str] = []
    found = reader.generate(ASKED, max_tokens=20, stop=["\n"], on_token=pieces.append)
    assert pieces == ["27", " months", " [1]", "."]
    assert (found.text, found.finish, found.counted_by) == ("27 months [1].", "stop", "server")
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (11, 5, 8)
    assert found.first_token_s is not None
    [(messages, stop, options)] = model.seen
    assert [(message.type, message.content) for message in messages] == [("system", "Be short."), ("human", "How long?")]
    assert (stop, options["max_tokens"]) == (["\n"], 20)


def test_counts_are_called_estimates_where_they_are(opened: list[LangChainReader]) -> None:
    estimated = made(opened, Streaming(usage=False))
    found = estimated.generate(ASKED, max_tokens=20)
    assert (estimated.tokenizer.exact, found.counted_by) == (False, "tokenizer")
    assert found.prompt_tokens == estimated.prompt_tokens(ASKED) > 0
    assert found.completion_tokens == estimated.tokenizer.count("27 months [1].")
    own = made(opened, Streaming(custom_get_token_ids=lambda text: list(range(len(text)))))
    assert (own.tokenizer.exact, own.tokenizer.count("abc"), own.tokenizer.count_many(["", "ab"])) == (True, 3, [0, 2])
    counter = WordCounter()
    assert made(opened, Streaming(), tokenizer=counter).tokenizer is counter


def test_a_model_that_does_not_stream_is_read_whole(opened: list[LangChainReader]) -> None:
    pieces: list[str] = []
    found = made(opened, Paced()).generate(ASKED, max_tokens=20, on_token=pieces.append)
    assert pieces == [found.text] == ["27 months [1]."]


def test_the_longest_answer_holds_whether_the_model_keeps_to_it_or_not(opened: list[LangChainReader]) -> None:
    assert made(opened, Streaming(finish="length")).generate(ASKED, max_tokens=20).finish == "length"
    found = made(opened, Streaming(), tokenizer=WordCounter(), max_tokens_option=None).generate(ASKED, max_tokens=1)
    assert (found.finish, found.text) == ("length", "27 months")
    assert found.counted_by == "tokenizer"


def test_a_stop_string_ends_it(opened: list[LangChainReader]) -> None:
    assert made(opened, Streaming()).generate(ASKED, max_tokens=20, stop=["months"]).text == "27 "


def test_who_leaves_ends_the_request(opened: list[LangChainReader]) -> None:
    model = Streaming(gate=threading.Event(), left=threading.Event())
    said: list[str] = []
    found = made(opened, model).generate(ASKED, max_tokens=20, on_token=said.append, cancelled=lambda: bool(said))
    assert (found.finish, found.text) == ("cancelled", "27")
    assert model.left.wait(20)


def test_deadlines_hold(opened: list[LangChainReader]) -> None:
    model = Streaming(gate=threading.Event(), left=threading.Event())
    reader = made(opened, model)
    found = reader.generate(ASKED, max_tokens=20, deadline=time.monotonic() + 3)
    assert (found.finish, found.text) == ("deadline", "27")
    assert model.left.wait(20)
    with pytest.raises(ModelTimeout):
        reader.generate(ASKED, max_tokens=20, deadline=time.monotonic() - 1)


class _Status(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__("the prompt was: SECRET")
        self.status_code = status_code


@pytest.mark.parametrize(("error", "kind", "shown"), [
    (_Status(401), ModelRefused, "status 401"), (_Status(503), ModelUnavailable, "status 503"),
    (httpx.ConnectError("SECRET"), ModelUnavailable, "ConnectError"), (ValueError("SECRET"), ModelRefused, "ValueError")])
@pytest.mark.parametrize("at", [0, 2])
def test_whatever_the_model_raises_is_an_error_of_ours_without_its_words(
        opened: list[LangChainReader], error: Exception, kind: type[RagError], shown: str, at: int) -> None:
    with pytest.raises(kind) as caught:
        made(opened, Streaming(fails=error, fails_at=at)).generate(ASKED, max_tokens=20)
    assert shown in caught.value.message
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_one_that_was_closed_says_so(opened: list[LangChainReader]) -> None:
    reader = made(opened, Streaming())
    reader.close()
    with pytest.raises(ModelUnavailable):
        reader.generate(ASKED, max_tokens=20)


def test_names_and_windows_come_from_the_model(opened: list[LangChainReader]) -> None:
    assert made(opened, Streaming()).name == "Streaming"
    assert made(opened, Streaming(), name="mine").name == "mine"
    assert made(opened, Streaming()).context_window == 8192
    assert made(opened, Streaming(profile={"max_input_tokens": 1000})).context_window == 1000


def test_a_collection_is_answered_by_it(tmp_path: Path, opened: list[LangChainReader]) -> None:
    settings, encoder = make_settings(tmp_path), WordEncoder()
    make_collection(settings, encoder)
    with ThriftRAG.open("default", settings=settings, encoder=encoder, reader=made(opened, Streaming(usage=False))) as kb:
        answer = kb.ask(QUESTION, budget=64)
    assert (answer.text, answer.verdict, answer.receipt.model) == ("27 months [1].", "answered", "Streaming")
    assert {"context_tokens", "prompt_tokens", "completion_tokens"} <= set(answer.receipt.estimates)
