"""Readers: models that answer from a rendered prompt, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from rag.tokens import TokenCounter

Role = Literal["system", "user", "assistant"]
# `length`: the token limit was hit; `cancelled`: the caller stopped it; `deadline`: time ran out after some text came;
# `repetition`: the reader looped and was stopped.
Finish = Literal["stop", "length", "cancelled", "deadline", "repetition"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Generation:
    """What came back. Tokens as the model that ran counted them, every sampled token included, the end token too.

    `counted_by` is `tokenizer` where the server sent no usage, or was stopped before it could: then the prompt and the
    text that came were counted by `Reader.tokenizer`, and the receipt must call the tokens an estimate.

    `mean_logprob`, `least_logprob`: over the sampled tokens, natural logarithms; None where the reader does not tell them.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    finish: Finish
    seconds: float
    first_token_s: float | None = None
    counted_by: Literal["server", "tokenizer"] = "server"
    mean_logprob: float | None = None
    least_logprob: float | None = None


@runtime_checkable
class Preloading(Protocol):
    """A reader that takes seconds to be ready, and can begin while the question is still being looked up."""

    def load(self) -> None:
        """Begins to load the model and returns at once; does nothing where it is loaded."""


@runtime_checkable
class Constrained(Protocol):
    """A reader that can be held to a JSON schema while it writes. What cannot be held is asked in words and checked afterwards:
    text that does not fit the schema may come back in any case, as a server may ignore it and a token limit may cut it off."""

    def generate_json(self, messages: Sequence[Message], *, schema: Mapping[str, object], max_tokens: int,
                      deadline: float | None = None, cancelled: Callable[[], bool] | None = None) -> Generation:
        """As `Reader.generate`, with what it raises."""


class Reader(Protocol):
    """One model that answers. Safe to call from several threads at once."""

    @property
    def name(self) -> str: ...

    @property
    def local(self) -> bool:
        """Runs on this machine: its energy is ours."""

    @property
    def tokenizer(self) -> TokenCounter: ...

    @property
    def context_window(self) -> int:
        """Prompt and completion together, in tokens. A served model may have to be asked: raises ModelUnavailable then."""

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the whole prompt as sent, chat template included; an estimate if `tokenizer.exact` is False."""

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        """Greedy decoding (temperature 0). `deadline` is a `time.monotonic()` instant. `on_token` gets text as it comes.

        The pieces that `on_token` gets, joined, are exactly `Generation.text`; no piece ends inside a character.

        Raises:
            ModelUnavailable: nothing answers, or the model is not there.
            ModelTimeout: the deadline passed before any text came.
            ModelRefused: the server answered with an error, or the prompt does not fit the model.
        """

    def close(self) -> None:
        """Frees the model. Further calls raise ModelUnavailable."""
