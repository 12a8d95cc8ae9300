"""A reader behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama, a hosted model.

The request runs as a task on an event loop of its own, so that a caller who leaves (deadline, cancellation, a loop in the
answer) closes the connection at once, whatever the server is doing, and the server stops working.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rag.errors import ConfigError, ModelTimeout, ModelUnavailable, UpstreamError
from rag.llm import Generation, Message
from rag.llm.absent import UNSTATED_WINDOW, chat_tokens
from rag.llm.breaker import Breaker
from rag.llm.chat import ChatEncoder
from rag.llm.server_errors import Asked, Failure, broken_off, from_status, not_a_stream, reported, unreachable
from rag.llm.stream import Event, Followed, follow
from rag.tokens import ServerTokenizer, TokenCounter, public_url
from rag.types import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

ATTEMPTS = 3                    # one and two more, only while no text has come
FIRST_PAUSE_S = 0.25            # doubled each time
LONGEST_PAUSE_S = 30.0          # a server that asks for more is not waited for
CONNECT_S = 10.0
STALL_S = 120.0
USAGE_S = 2.0                   # what a server gets to send the bill after the answer
_OF_SCHEMAS = ("response_format", "schema", "grammar", "guided")
_HERE = {"localhost", "127.0.0.1", "::1"}


@dataclass(slots=True)
class _Call:
    """One request under way, shared between the loop's thread and the caller's."""

    asked: Asked
    deadline: float | None
    inbox: queue.SimpleQueue[Event] = field(default_factory=queue.SimpleQueue)
    usage: tuple[int, int, int] | None = None      # prompt, completion, cached
    said: list[str] = field(default_factory=list)

    @property
    def text_came(self) -> bool:
        return bool(self.said)

    def __call__(self, timeout_s: float) -> Event | None:
        try:
            return self.inbox.get(timeout=max(timeout_s, 0))
        except queue.Empty:
            return None

    def ended(self, task: Future[None]) -> None:
        """A task that ends by itself has said how; one cut off by `close` or by a defect must not leave us waiting."""
        cause = None if task.cancelled() else task.exception()
        if task.cancelled() or cause is not None:
            why = "it was closed" if cause is None else f"{type(cause).__name__}: {cause}"
            self.inbox.put(Event(error=ModelUnavailable(f"The request to {self.asked.url} ended: {why}.")))


class OpenAICompatibleReader:
    """Opening it does not touch the network."""

    def __init__(self, base_url: str, *, model: str, tokenizer: TokenCounter, chat: ChatEncoder | None = None,
                 api_key: str = "", context_window: int | None = None, stall_s: float = STALL_S,
                 breaker: Breaker | None = None, jitter: Callable[[], float] = random.random) -> None:
        """`chat` is the model's chat template where it is known here, `context_window` its window: None asks the server.
        `breaker`: None asks the server however often it has failed. `jitter`, in [0, 1), spreads the pauses before attempts.

        Raises:
            ConfigError: `base_url` is not an HTTP address.
        """
        _require_http(base_url)
        self.name = model
        self.local = urlsplit(base_url).hostname in _HERE
        self.tokenizer = tokenizer
        self._chat = chat
        self._base_url = base_url
        self._api_key = api_key
        self._window = context_window
        self._stall_s = stall_s
        self.breaker = breaker or Breaker(model, failures=0, rest_s=0)
        self._jitter = jitter
        self._quirks: set[str] = set()
        self._client: AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def context_window(self) -> int:
        if self._window is None:
            self.breaker.check()
            try:
                self._window = ask_window(self._base_url, model=self.name, api_key=self._api_key) or UNSTATED_WINDOW
            except ModelUnavailable as error:
                self.breaker.failed(error)
                raise
        return self._window

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        if self._chat is not None:
            return len(self._chat.encode(messages))
        if isinstance(self.tokenizer, ServerTokenizer):
            counted = self.tokenizer.count_prompt([{"role": m.role, "content": m.content} for m in messages])
            if counted is not None:
                return counted
        return chat_tokens(messages, self.tokenizer.count)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        """See `Reader`. A server that falls silent counts as one whose deadline has passed."""
        return self._generate(messages, max_tokens=max_tokens, stop=stop, on_token=on_token, deadline=deadline,
                              cancelled=cancelled, further={})

    def generate_json(self, messages: Sequence[Message], *, schema: Mapping[str, object], max_tokens: int,
                      deadline: float | None = None, cancelled: Callable[[], bool] | None = None) -> Generation:
        """See `Constrained`. A server that does not take `response_format` is asked without, from then on."""
        wanted = {"type": "json_schema", "json_schema": {"name": "reply", "schema": dict(schema), "strict": True}}
        return self._generate(messages, max_tokens=max_tokens, deadline=deadline, cancelled=cancelled,
                              further={"response_format": wanted})

    def _generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                  on_token: Callable[[str], None] | None = None, deadline: float | None,
                  cancelled: Callable[[], bool] | None, further: Mapping[str, Any]) -> Generation:
        """`further`: parameters of this request alone."""
        with self.breaker.call() as judged:
            found = self._generated(messages, max_tokens=max_tokens, stop=stop, on_token=on_token, deadline=deadline,
                                    cancelled=cancelled, further=further)
            judged.conclusive = bool(found.text) or found.finish not in ("cancelled", "deadline")
            return found

    def _generated(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str],
                   on_token: Callable[[str], None] | None, deadline: float | None,
                   cancelled: Callable[[], bool] | None, further: Mapping[str, Any]) -> Generation:
        started = time.monotonic()
        asked = Asked(public_url(self._base_url), self.name, self._api_key, messages)
        call = _Call(asked, deadline)
        body = {"model": self.name, "messages": [{"role": m.role, "content": m.content} for m in messages],
                "max_tokens": max_tokens, "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
                **({"stop": list(stop)} if stop else {}), **further}
        client, loop = self._running()
        task = asyncio.run_coroutine_threadsafe(self._attempts(client, call, body), loop)
        task.add_done_callback(call.ended)
        try:
            followed = follow(call, name=f"{self.name} at {asked.url}", stop=stop, on_token=on_token, deadline=deadline,
                              cancelled=cancelled, stall_s=self._stall_s)
        except UpstreamError as error:
            if call.text_came or isinstance(error, ModelTimeout):      # it has read the prompt, as far as anybody can tell
                prompt, completion, _ = self._uncounted(messages, "".join(call.said), len(call.said))
                error.spent = Usage(prompt_tokens=prompt, completion_tokens=completion, llm_calls=1,
                                    llm_seconds=time.monotonic() - started)
            raise
        finally:
            task.cancel()
        prompt, completion, cached = call.usage or self._counted(messages, followed)
        return Generation(text=followed.text, prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached,
                          finish=followed.finish, seconds=time.monotonic() - started, first_token_s=followed.first_token_s,
                          counted_by="tokenizer" if call.usage is None else "server")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            loop, client, self._loop, self._client = self._loop, self._client, None, None
        if loop is not None and client is not None:
            asyncio.run_coroutine_threadsafe(_close(client), loop).add_done_callback(
                lambda _: loop.call_soon_threadsafe(loop.stop))
        if isinstance(self.tokenizer, ServerTokenizer):
            self.tokenizer.close()

    def _counted(self, messages: Sequence[Message], followed: Followed) -> tuple[int, int, int]:
        """Tokens where the server sent no usage. One that was left in the middle of an answer is not asked again."""
        if followed.finish in ("stop", "length"):
            with contextlib.suppress(ModelUnavailable):     # it has just answered: losing the answer for a count is worse
                return self.prompt_tokens(messages), self.tokenizer.count(followed.text), 0
        return self._uncounted(messages, followed.text, followed.pieces)

    def _uncounted(self, messages: Sequence[Message], text: str, pieces: int) -> tuple[int, int, int]:
        """Tokens of a request that broke off, without asking anybody."""
        count = self.tokenizer.count_offline if isinstance(self.tokenizer, ServerTokenizer) else self.tokenizer.count
        prompt = chat_tokens(messages, count) if self._chat is None else len(self._chat.encode(messages))
        return prompt, max(count(text), pieces), 0

    def _running(self) -> tuple[AsyncOpenAI, asyncio.AbstractEventLoop]:
        """The client and its loop, started with the first request."""
        import openai

        with self._lock:
            if self._closed:
                raise ModelUnavailable(f"{self.name} was closed.", hint="Open it again.")
            if self._loop is None or self._client is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="model-server", daemon=True).start()
                self._client = openai.AsyncOpenAI(
                    base_url=self._base_url, api_key=self._api_key or "none", max_retries=0,
                    timeout=openai.Timeout(None, connect=CONNECT_S))
                # The library fills these from the environment, for its own service; they are no business of another server.
                self._client.organization = self._client.project = None
            return self._client, self._loop

    async def _attempts(self, client: AsyncOpenAI, call: _Call, body: dict[str, Any]) -> None:
        pause = FIRST_PAUSE_S
        attempt = 1
        while True:
            failure, quirk = await self._attempt(client, call, body)
            if failure is None:
                return
            if quirk is not None and quirk not in self._quirks:
                self._quirks.add(quirk)
                continue
            # Spread, so that those whom one failure struck do not all come back at once; never before the server's own time.
            wait = pause * (0.5 + self._jitter() / 2)
            if failure.wait_s is not None:
                wait = failure.wait_s + self._jitter() * FIRST_PAUSE_S
            late = call.deadline is not None and time.monotonic() + wait >= call.deadline
            if call.text_came or not failure.again or attempt == ATTEMPTS or late or wait > LONGEST_PAUSE_S:
                call.inbox.put(Event(error=failure.error))
                return
            await asyncio.sleep(wait)
            attempt, pause = attempt + 1, pause * 2

    async def _attempt(self, client: AsyncOpenAI, call: _Call,
                       body: dict[str, Any]) -> tuple[Failure | None, str | None]:
        """Why it failed, or None; and a parameter that the server does not take, if that was why."""
        import httpx
        import openai

        try:
            stream = await client.chat.completions.create(**_adapted(body, self._quirks))
            async with stream:
                return await _read(stream, call), None
        except openai.APIStatusError as error:
            failure = from_status(call.asked, status=error.status_code, said=error.message,
                                  retry_after=error.response.headers.get("retry-after"))
            return failure, _quirk(error.message, body) if error.status_code in (400, 422) else None
        except (openai.APIConnectionError, httpx.HTTPError) as error:
            if call.text_came:
                return broken_off(call.asked, after_text=True), None
            return unreachable(call.asked, why=type(error.__cause__ or error).__name__), None
        except openai.APIError as error:
            return reported(call.asked, said=error.message), None
        except (ValueError, TypeError, AttributeError, openai.OpenAIError):
            return not_a_stream(call.asked), None        # JSON that does not parse, or is no completion


async def _read(stream: Any, call: _Call) -> Failure | None:
    """Passes the stream's text on. Why it is no complete answer, or None."""
    done: str | None = None
    chunks = 0
    chunk: Any
    iterator = aiter(stream)
    while True:
        try:
            async with asyncio.timeout(None if done is None else USAGE_S):
                chunk = await anext(iterator, None)
        except TimeoutError:
            break
        if chunk is None:
            break
        chunks += 1
        call.usage = _usage(chunk.usage) or call.usage
        text = ""
        for choice in (chunk.choices or [])[:1]:
            text = (choice.delta.content if choice.delta is not None else None) or ""
            done = choice.finish_reason or done
        if text:
            call.said.append(text)
        call.inbox.put(Event(text=text))
    if done is not None:
        call.inbox.put(Event(done="length" if done == "length" else "stop"))
        return None
    streams = stream.response.headers.get("content-type", "").startswith("text/event-stream")
    return broken_off(call.asked, after_text=call.text_came) if chunks or streams else not_a_stream(call.asked)


def _require_http(url: str) -> None:
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit:
        raise ConfigError(f"reader_url = {public_url(url)!r} is not an HTTP address.", field="reader_url",
                          hint="Use for instance http://127.0.0.1:8000/v1.")


def _usage(usage: Any) -> tuple[int, int, int] | None:
    if usage is None or not isinstance(usage.prompt_tokens, int) or not isinstance(usage.completion_tokens, int):
        return None
    details = getattr(usage, "prompt_tokens_details", None)
    return usage.prompt_tokens, usage.completion_tokens, getattr(details, "cached_tokens", None) or 0


def _quirk(said: str, body: Mapping[str, Any]) -> str | None:
    """The parameter that a server complains about, if it is one that we can do without. Few servers call a schema by the name of
    its parameter."""
    named = next((name for name in ("stream_options", "max_completion_tokens", "temperature") if name in said), None)
    if named is None and "response_format" in body and any(word in said.lower() for word in _OF_SCHEMAS):
        return "response_format"
    return named


def _adapted(body: dict[str, Any], quirks: set[str]) -> dict[str, Any]:
    """The request for a server that does not take all of it. Newer hosted models want `max_completion_tokens` and allow no
    temperature; older servers know no `stream_options`."""
    adapted = {name: value for name, value in body.items() if name not in quirks}
    if "max_completion_tokens" in quirks:
        adapted["max_completion_tokens"] = adapted.pop("max_tokens")
    return adapted


def ask_window(base_url: str, *, model: str, api_key: str = "", timeout_s: float = 10.0) -> int | None:
    """The context window that the server states for the model (vLLM, OpenRouter and LiteLLM in /models, llama.cpp in
    /props), or None.

    Raises:
        ModelUnavailable: nothing answers.
    """
    import httpx

    base = base_url.rstrip("/")
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with httpx.Client(timeout=timeout_s, headers=headers) as client:
            listed = _json(client.get(f"{base}/models"))
            rows = listed.get("data") if isinstance(listed.get("data"), list) else []
            row = next((row for row in rows or [] if isinstance(row, dict) and row.get("id") == model), {})
            stated = row.get("max_model_len") or row.get("context_length")
            if not stated and row.get("owned_by") == "llamacpp":
                props = _json(client.get(f"{base.removesuffix('/v1')}/props"))
                stated = props.get("default_generation_settings", {}).get("n_ctx")
    except httpx.HTTPError as error:
        raise ModelUnavailable(f"No answer from the model server at {public_url(base_url)}: {type(error).__name__}.",
                               hint="Start the server, or check reader_url.") from error
    return stated if isinstance(stated, int) and stated > 0 else None


def _json(response: Any) -> dict[str, Any]:
    try:
        table = response.json() if response.is_success else {}
    except ValueError:
        return {}
    return table if isinstance(table, dict) else {}


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _close(client: AsyncOpenAI) -> None:
    """Ends what is running, so that nothing is left to clean up when the loop stops."""
    running = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await client.close()
