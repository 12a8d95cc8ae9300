"""LangChain's face: a Runnable whose outputs are answers with receipts. The retriever and the reader are here under one name.

    from rag.langchain import LangChainReader, ThriftAnswers, ThriftRetriever

Needs the extra `langchain`. Nothing else imports this module.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import AddableDict

from rag.conversation import Standalone, Turn, standalone
from rag.errors import InputError
from rag.llm.langchain import LangChainReader
from rag.thriftrag import ThriftRAG
from rag.types import Answer
from retrievers.langchain import ThriftRetriever

Asked = str | Mapping[str, Any] | Sequence[BaseMessage] | PromptValue
Put = Callable[[str | None], None]

__all__ = ["LangChainReader", "ThriftAnswers", "ThriftRetriever"]


class ThriftAnswers(Runnable[Asked, dict[str, Any]]):
    """Answers as the dictionary of `Answer.to_dict()`, with `carried`: the words that the question took from earlier turns.

    Input: a question; messages or a prompt, whose last human message is the question; or a mapping with `question` and, where
    there is one, `history` as messages. `budget`, `max_cost`, `deadline`, `selector`, `where`, `changes` as `ThriftRAG.ask`;
    `bind` changes them for one chain. What was carried counts against the budget, by a generous estimate.

    A stream gives `answer` in pieces as the reader says it, and at last everything else; the pieces added up are the whole, but
    that `answer` is as said: `checked_answer` is without citation marks that the context does not have. A stream that is closed
    early stops the reader. Errors are those of `rag.errors`.
    """

    def __init__(self, kb: ThriftRAG, **terms: Any) -> None:
        self._kb = kb
        self._terms = terms

    def invoke(self, input: Asked, config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        return self._call_with_config(self._whole, input, config, run_type="chain", **kwargs)

    def stream(self, input: Asked, config: RunnableConfig | None = None, **kwargs: Any | None) -> Iterator[dict[str, Any]]:
        yield from self._transform_stream_with_config(iter([input]), self._pieces, config, run_type="chain", **kwargs)

    async def astream(self, input: Asked, config: RunnableConfig | None = None, **kwargs: Any | None
                      ) -> AsyncIterator[dict[str, Any]]:
        async def alone() -> AsyncIterator[Asked]:
            yield input

        async for piece in self._atransform_stream_with_config(alone(), self._apieces, config, run_type="chain", **kwargs):
            yield piece

    def _whole(self, asked: Asked, **kwargs: Any) -> dict[str, Any]:
        question = _question(asked)
        return _row(self._kb.ask(question.text, **self._terms_of(question, kwargs)), question)

    def _pieces(self, inputs: Iterator[Asked], **kwargs: Any) -> Iterator[dict[str, Any]]:
        question, told = _question(next(inputs)), SimpleQueue[str | None]()
        future, left = self._begun(question, kwargs, told.put)
        try:
            while (text := told.get()) is not None:
                yield AddableDict(answer=text)
            yield _rest(_row(future.result(), question))
        finally:
            left.set()

    async def _apieces(self, inputs: AsyncIterator[Asked], **kwargs: Any) -> AsyncIterator[dict[str, Any]]:
        question, told = _question(await anext(inputs)), asyncio.Queue[str | None]()
        loop = asyncio.get_running_loop()
        future, left = self._begun(question, kwargs, lambda text: _from_thread(loop, told, text))
        try:
            while (text := await told.get()) is not None:
                yield AddableDict(answer=text)
            yield _rest(_row(future.result(), question))
        finally:
            left.set()

    def _begun(self, question: Standalone, kwargs: Mapping[str, Any], put: Put) -> tuple[Future[Answer], threading.Event]:
        """The answer to come, on a thread that tells `put` each piece and at last None; and what calls it off."""
        left = threading.Event()
        terms = self._terms_of(question, kwargs)
        with_thread = ThreadPoolExecutor(1, thread_name_prefix="thrift-answers")
        future = with_thread.submit(lambda: self._kb.ask(question.text, on_token=put, cancelled=left.is_set, **terms))
        future.add_done_callback(lambda _: put(None))
        with_thread.shutdown(wait=False)
        return future, left

    def _terms_of(self, question: Standalone, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the call over those of the chain, and what is left of the budget."""
        terms = {**self._terms, **kwargs}
        if question.tokens:
            whole = terms.get("budget") or self._kb.settings.budget_tokens
            terms["budget"] = max(1, whole - question.tokens)
        return terms


def _from_thread(loop: asyncio.AbstractEventLoop, told: asyncio.Queue[str | None], text: str | None) -> None:
    """A loop that has ended has nobody left to tell."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(told.put_nowait, text)


def _question(asked: Asked) -> Standalone:
    """Raises InputError: there is no question in it."""
    if isinstance(asked, str):
        return Standalone(asked)
    if isinstance(asked, PromptValue):
        return _of_messages(asked.to_messages())
    if isinstance(asked, Mapping):
        if not isinstance(asked.get("question"), str):
            raise InputError("The input has no text as `question`.", field="question",
                             hint="Give a question, messages, or a mapping with `question` and perhaps `history`.")
        return standalone(asked["question"], _turns(asked.get("history") or ()))
    return _of_messages(asked)


def _of_messages(messages: Sequence[BaseMessage]) -> Standalone:
    last = max((at for at, message in enumerate(messages) if isinstance(message, HumanMessage)), default=-1)
    if last < 0:
        raise InputError("No message is a human's, so there is no question.", field="question",
                         hint="End the conversation with a HumanMessage.")
    return standalone(str(messages[last].text), _turns(messages[:last]))


def _turns(messages: Sequence[BaseMessage]) -> list[Turn]:
    return [Turn("user" if isinstance(message, HumanMessage) else "assistant", str(message.text)) for message in messages
            if isinstance(message, HumanMessage | AIMessage)]


def _row(answer: Answer, question: Standalone) -> dict[str, Any]:
    return {**answer.to_dict(), "carried": list(question.carried)}


def _rest(row: Mapping[str, Any]) -> AddableDict:
    """The last piece of a stream. Its `answer` is empty, so that an answer of which nothing was said has one too."""
    return AddableDict({**row, "answer": "", "checked_answer": row["answer"]})
