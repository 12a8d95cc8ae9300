"""The reader that runs on this machine: OpenVINO GenAI with continuous batching and a prefix cache.

Several requests run at once and share steps; a prompt that begins like an earlier one starts from its cached part.

Departures and limits:
- We hand over token ids that we made (`rag.llm.chat`). GenAI's own tokenizer turns `<|im_end|>` inside a document into the
  control token, skips the Unicode normalisation that the model was trained with, and cuts prompts at 8,192 tokens.
- Stop strings, loops, deadlines and cancellation are decided here, not in the pipeline.
- `cached_tokens` is 0: the pipeline uses its prefix cache but does not say how much of a prompt came from it.
- Greedy decoding in bf16 with dynamically quantised activations: the same prompt gives the same answer, but a near tie
  between two tokens may fall differently on another processor, or beside other requests.
"""

from __future__ import annotations

import json
import queue
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock

from rag.errors import ModelRefused, ModelUnavailable, RagError
from rag.llm import Generation, Message
from rag.llm.card import read_card
from rag.llm.chat import ChatEncoder
from rag.llm.engine import Engine, Ticket, worker_command
from rag.llm.stream import Event, TextDecoder, follow
from rag.tokens import FileTokenizer

# Longer than any load on a slow disk. Later silence means that the process hangs: a step takes a second or so.
STALL_S = 180.0


class EmbeddedReader:
    """A reader in an OpenVINO folder. Opening reads its card and tokenizer; the model itself loads with the first answer,
    or with `load`. If its process dies or hangs, the next call starts another."""

    local = True

    def __init__(self, folder: Path, *, cache_gb: int = 1, name: str | None = None, command: Sequence[str] | None = None,
                 stall_s: float = STALL_S, prefix_cache: bool = True) -> None:
        """Without `prefix_cache` every prompt is computed from its beginning, as the first of its kind would be. `command`
        replaces the worker, for tests.

        Raises:
            ModelUnavailable, ModelCorrupt: see `read_card` and `FileTokenizer`.
        """
        card = read_card(folder)
        self.name = name or card.name
        self.context_window = card.context_window
        self.tokenizer = FileTokenizer(folder / "tokenizer.json")
        self._chat = ChatEncoder(self.tokenizer, template=card.chat_template, bos_token=card.bos_token,
                                 eos_token=card.eos_token)
        self._command = list(command) if command is not None else worker_command(
            folder, card, cache_gb=cache_gb, prefix_cache=prefix_cache)
        self._stall_s = stall_s
        self._engine: Engine | None = None
        self._closed = False
        self._lock = Lock()

    def load(self) -> None:
        """Begins to load the model, so that the first answer need not wait for all of it. Returns at once."""
        self._running()

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return len(self._chat.encode(messages))

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        """See `Reader`. Time spent loading counts: against the deadline, and in `seconds`."""
        return self._generate(messages, max_tokens=max_tokens, stop=stop, on_token=on_token, deadline=deadline,
                              cancelled=cancelled)

    def generate_json(self, messages: Sequence[Message], *, schema: Mapping[str, object], max_tokens: int,
                      deadline: float | None = None, cancelled: Callable[[], bool] | None = None) -> Generation:
        """See `Constrained`: tokens that the schema forbids are masked at each step. That keeps to the grammar and not to the
        model's own distribution over what fits it (grammar-aligned decoding, Park et al. 2024, explains the difference)."""
        return self._generate(messages, max_tokens=max_tokens, deadline=deadline, cancelled=cancelled, schema=json.dumps(schema))

    def _generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                  on_token: Callable[[str], None] | None = None, deadline: float | None,
                  cancelled: Callable[[], bool] | None, schema: str | None = None) -> Generation:
        started = time.monotonic()
        ids = self._chat.encode(messages)
        if len(ids) + max_tokens > self.context_window:
            raise ModelRefused(f"A prompt of {len(ids)} tokens and an answer of {max_tokens} do not fit the window of "
                               f"{self.context_window} tokens of {self.name}.", hint="Use a smaller budget.")
        engine = self._running()
        ticket = engine.submit(ids, max_tokens=max_tokens, schema=schema)
        source = _Source(ticket, TextDecoder(self.tokenizer))
        try:
            followed = follow(source, name=self.name, stop=stop, on_token=on_token, deadline=deadline, cancelled=cancelled,
                              stall_s=self._stall_s)
        finally:
            engine.cancel(ticket)
        return Generation(text=followed.text, prompt_tokens=len(ids), completion_tokens=source.tokens, cached_tokens=0,
                          finish=followed.finish, seconds=time.monotonic() - started, first_token_s=followed.first_token_s,
                          mean_logprob=source.mean_logprob, least_logprob=source.least_logprob)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _running(self) -> Engine:
        with self._lock:
            if self._closed:
                raise ModelUnavailable(f"{self.name} was closed.", hint="Open it again.")
            if self._engine is not None and self._engine.silent_s > self._stall_s:
                self._engine.kill()
            if self._engine is None or not self._engine.alive:
                self._engine = Engine(self._command, name=self.name)
                weakref.finalize(self, self._engine.close)      # a reader that is dropped, or left open at exit
            return self._engine


class _Source:
    """A ticket's messages as events. Counts the tokens that the model made, and how sure it was of them."""

    def __init__(self, ticket: Ticket, decoder: TextDecoder) -> None:
        self.tokens = 0
        self._logprobs: list[float] = []
        self._ticket = ticket
        self._decoder = decoder

    @property
    def mean_logprob(self) -> float | None:
        return sum(self._logprobs) / len(self._logprobs) if self._logprobs else None

    @property
    def least_logprob(self) -> float | None:
        return min(self._logprobs, default=None)

    def __call__(self, timeout_s: float) -> Event | None:
        try:
            message = self._ticket.inbox.get(timeout=max(timeout_s, 0))
        except queue.Empty:
            return None
        if isinstance(message, RagError):
            return Event(error=message)
        if "end" in message:
            return Event(text=self._decoder.flush(), done="length" if message["end"] == "length" else "stop")
        ids = message.get("ids")
        if not isinstance(ids, list):
            return Event()                  # a step of the pipeline: it is alive
        self.tokens += len(ids)
        told = message.get("logprobs")
        if isinstance(told, list):
            self._logprobs += told
        return Event(text=self._decoder.add(ids), tokens=tuple(ids))
