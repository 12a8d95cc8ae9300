"""Any LangChain chat model as the reader. Needs the extra `langchain`.

    ThriftRAG.open("handbook", reader=LangChainReader(ChatOllama(model="llama3", temperature=0)))

Two things are the model's own, and no reader can change them: how it samples (set its temperature to 0), and how it tries again.
The request runs as a task on an event loop of its own, so that a caller who leaves ends it, as far as the model is asynchronous:
one that is not goes on in its thread until its next piece of text.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from rag.errors import ModelRefused, ModelUnavailable, RagError
from rag.llm import Generation, Message
from rag.llm.absent import UNSTATED_WINDOW, chat_tokens
from rag.llm.openai_compatible import STALL_S
from rag.llm.stream import Event, follow
from rag.tokens import ByteEstimate, TokenCounter

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessageChunk, BaseMessage
    from langchain_core.messages.ai import UsageMetadata

_CUT = {"length", "max_tokens", "MAX_TOKENS", "max_output_tokens"}
_ENDS = ("finish_reason", "stop_reason", "done_reason")
_AWAY = (408, 404, 502, 503, 504)


class CountedIds:
    """The token ids that a model was given a function for: the user's word that they are the model's own."""

    exact = True

    def __init__(self, ids: Callable[[str], list[int]], *, name: str) -> None:
        self._ids = ids
        self.name = name

    def count(self, text: str) -> int:
        return len(self._ids(text)) if text else 0

    def count_many(self, texts: Sequence[str]) -> list[int]:
        return [self.count(text) for text in texts]


class LangChainReader:
    """See `Reader`. Opening it does not ask the model anything."""

    def __init__(self, model: BaseChatModel, *, name: str | None = None, tokenizer: TokenCounter | None = None,
                 context_window: int | None = None, max_tokens_option: str | None = "max_tokens", local: bool = False,
                 stall_s: float = STALL_S) -> None:
        """`tokenizer`: of the model that answers, for instance `rag.tokens.FileTokenizer`. Without one the model's
        `custom_get_token_ids` counts, else an estimate by bytes, which the receipt names as such; the model's own
        `get_num_tokens` is never asked, because it may be another model's or fetch files. `context_window`: default that of
        the model's profile, else 8192. `max_tokens_option`: what the model calls the longest answer; None: it takes no such
        option. An answer that grows longer is ended here all the same. `local`: it runs on this machine, so its energy is ours.
        """
        self._model = model
        self.name = name or _name(model)
        self.local = local
        ids = model.custom_get_token_ids
        self.tokenizer: TokenCounter = tokenizer or (CountedIds(ids, name=self.name) if ids is not None else ByteEstimate())
        self._window = context_window or (model.profile or {}).get("max_input_tokens") or UNSTATED_WINDOW
        self._option = max_tokens_option
        self._stall_s = stall_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def context_window(self) -> int:
        return self._window

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """An estimate as far as the chat template goes, which is not known here."""
        return chat_tokens(messages, self.tokenizer.count)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        """See `Reader`. A model that falls silent counts as one whose deadline has passed."""
        started, loop = time.monotonic(), self._running()
        call = _Call(self.name, self.tokenizer, max_tokens)
        options: dict[str, Any] = {} if self._option is None else {self._option: max_tokens}
        chunks = self._model.astream(_as_langchain(messages), stop=list(stop) or None, **options)
        task = asyncio.run_coroutine_threadsafe(call.read(chunks), loop)
        task.add_done_callback(call.ended)
        try:
            followed = follow(call, name=self.name, stop=stop, on_token=on_token, deadline=deadline, cancelled=cancelled,
                              stall_s=self._stall_s)
        finally:
            task.cancel()
        usage = call.usage
        prompt, completion, cached = (self.prompt_tokens(messages), self.tokenizer.count(followed.text), 0) if usage is None else (
            usage["input_tokens"], usage["output_tokens"], usage.get("input_token_details", {}).get("cache_read") or 0)
        return Generation(text=followed.text, prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached,
                          finish=followed.finish, seconds=time.monotonic() - started, first_token_s=followed.first_token_s,
                          counted_by="tokenizer" if usage is None else "server")

    def close(self) -> None:
        """Ends what is under way. The model itself is its owner's."""
        with self._lock:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is not None:
            asyncio.run_coroutine_threadsafe(_end_all(), loop).add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop, started with the first request. One for all: models keep connections that belong to a loop."""
        with self._lock:
            if self._closed:
                raise ModelUnavailable(f"{self.name} was closed.", hint="Open it again.")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="langchain-model", daemon=True).start()
            return self._loop


class _Call:
    """One request under way, shared between the loop's thread and the caller's."""

    def __init__(self, name: str, counter: TokenCounter, max_tokens: int) -> None:
        self.usage: UsageMetadata | None = None
        self._name = name
        self._counter = counter
        self._most = max_tokens
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def __call__(self, timeout_s: float) -> Event | None:
        try:
            return self._inbox.get(timeout=max(timeout_s, 0))
        except queue.Empty:
            return None

    async def read(self, chunks: AsyncIterator[AIMessageChunk]) -> None:
        """Passes the text on. Where the model does not keep to its longest answer, reading ends there, and what it costs to the
        end is not known."""
        from langchain_core.messages.ai import add_usage

        said, end = "", "stop"
        try:
            async with aclosing(chunks) as open_chunks:  # type: ignore[type-var]  # a generator, though not declared as one
                async for chunk in open_chunks:
                    if chunk.usage_metadata is not None:
                        self.usage = add_usage(self.usage, chunk.usage_metadata)
                    if any(chunk.response_metadata.get(name) in _CUT for name in _ENDS):
                        end = "length"
                    if text := str(chunk.text):
                        said += text
                        self._inbox.put(Event(text=text))
                        if self._counter.count(said) > self._most and self._counter.exact:
                            end = "length"
                            break
        except Exception as error:  # any model of any maker: there is no common class
            self._inbox.put(Event(error=_failure(self._name, error)))
            return
        self._inbox.put(Event(done="length" if end == "length" else "stop"))

    def ended(self, task: Future[None]) -> None:
        """A task that was cut off by `close` must not leave its caller waiting."""
        if task.cancelled() or task.exception() is not None:
            self._inbox.put(Event(error=ModelUnavailable(f"The request to {self._name} was ended.")))


def _failure(name: str, error: Exception) -> RagError:
    """Without what the model's maker says: that may repeat the prompt. It is the cause, for whoever reads the traceback."""
    status = getattr(error, "status_code", None) or getattr(getattr(error, "response", None), "status_code", None)
    shown = type(error).__name__ + (f", status {status}" if isinstance(status, int) else "")
    away = status in _AWAY or isinstance(error, OSError | TimeoutError) or "Connect" in shown or "Timeout" in shown
    kind = ModelUnavailable if away else ModelRefused
    found = kind(f"The LangChain model {name} failed: {shown}.", hint="Try the model by itself: model.invoke('hello').")
    found.__cause__ = error
    return found


def _name(model: BaseChatModel) -> str:
    given = (getattr(model, field, None) for field in ("model_name", "model", "model_id"))
    return next((value for value in given if isinstance(value, str) and value), type(model).__name__)


def _as_langchain(messages: Sequence[Message]) -> list[BaseMessage]:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

    kinds = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
    return [kinds[message.role](content=message.content) for message in messages]


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _end_all() -> None:
    running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
