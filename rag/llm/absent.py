"""A reader whose server does not answer, for answers that do without: it counts what it can offline and says nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from rag.errors import UpstreamError
from rag.llm import Message, Reader
from rag.tokens import ServerTokenizer, TokenCounter

# What is assumed of a server that was never asked for its window; `openai_compatible` assumes it of one that does not say.
UNSTATED_WINDOW = 8192
# Of the chat format, by OpenAI's own counting recipe, where the server cannot count the whole prompt.
_PER_MESSAGE, _PER_PROMPT = 4, 3


@dataclass(frozen=True, slots=True)
class OfflineCounter:
    """What a server's tokenizer said before, else its estimate."""

    of: ServerTokenizer
    exact: bool = False

    @property
    def name(self) -> str:
        return self.of.name

    def count(self, text: str) -> int:
        return self.of.count_offline(text)

    def count_many(self, texts: Sequence[str]) -> list[int]:
        return [self.count(text) for text in texts]


def chat_tokens(messages: Sequence[Message], count: Callable[[str], int]) -> int:
    """Tokens of a chat prompt whose template is not known: an estimate, whatever counts the texts."""
    return sum(count(message.content) + _PER_MESSAGE for message in messages) + _PER_PROMPT


class AbsentReader:
    """Stands in for `reader`, which failed with `error`: `generate` raises that."""

    def __init__(self, reader: Reader, error: UpstreamError) -> None:
        self.name = reader.name
        self.local = reader.local
        self.context_window = UNSTATED_WINDOW
        counter = reader.tokenizer
        self.tokenizer: TokenCounter = OfflineCounter(counter) if isinstance(counter, ServerTokenizer) else counter
        self._error = error

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return chat_tokens(messages, self.tokenizer.count)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> NoReturn:
        raise self._error

    def close(self) -> None:
        """There is nothing of its own to free."""
