"""Two readers as one: the small one first where it will do, the large one where it is worth its call. `optimizers.router` decides;
here the decisions meet real readers, their money and their time.

    cascade   the small reader, then the large one if its answer is expected to be so much better
    auto      the same, but the large reader at once where the small one's answer would hardly be kept

What can go wrong stays small: a large reader that cannot be reached, is too dear or too late leaves the small reader's answer, and
the trace says so; where it failed the answer is `degraded`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from optimizers.router import Decision, Model, Size, first, onward
from optimizers.routing import Reading, said
from rag.errors import UpstreamError
from rag.llm import Generation, Message, Preloading, Reader
from rag.settings import Settings
from rag.tokens import TokenCounter

Mode = Literal["cascade", "auto"]
_CUT_SHORT = frozenset({"deadline", "cancelled"})


class LargerCount:
    """Counts for two tokenizers at once: the larger count of each text, so that a budget holds whichever model reads."""

    def __init__(self, one: TokenCounter, other: TokenCounter) -> None:
        self._both = one, other
        self.name = f"the larger of {one.name} and {other.name}"

    @property
    def exact(self) -> bool:
        return all(each.exact for each in self._both)

    def count(self, text: str) -> int:
        return max(each.count(text) for each in self._both)

    def count_many(self, texts: Sequence[str]) -> list[int]:
        one, other = (each.count_many(texts) for each in self._both)
        return [max(pair) for pair in zip(one, other, strict=True)]


@dataclass(frozen=True)
class Pair:
    """A large reader with a small one beside it. As a `Reader` it is the large one, but for what has to hold for both: tokens are
    the larger count, the window the smaller one."""

    large: Reader
    small: Reader
    model: Model
    tokenizer: TokenCounter = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokenizer", LargerCount(self.large.tokenizer, self.small.tokenizer))

    @property
    def name(self) -> str:
        return self.large.name

    @property
    def local(self) -> bool:
        return self.large.local

    @property
    def context_window(self) -> int:
        return min(self.large.context_window, self.small.context_window)

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return max(self.large.prompt_tokens(messages), self.small.prompt_tokens(messages))

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        return self.large.generate(messages, max_tokens=max_tokens, stop=stop, on_token=on_token, deadline=deadline,
                                   cancelled=cancelled)

    def load(self) -> None:
        """Begins to load the small reader; the large one loads when it is first needed."""
        if isinstance(self.small, Preloading):
            self.small.load()

    def close(self) -> None:
        self.large.close()
        self.small.close()


class Ask(Protocol):
    def __call__(self, size: Size, /, *, last: bool) -> Generation:
        """The answer of that reader, recorded and billed. `last`: no other will be asked, so whoever listens may hear it as it
        comes. Raises UpstreamError."""


class Tell(Protocol):
    def __call__(self, **facts: object) -> None:
        """Records a decision in the trace."""


@dataclass(frozen=True, slots=True)
class Routed:
    """Whose answer it is, and why it is not what was wanted, or None."""

    size: Size
    generation: Generation
    degraded: str | None = None
    heard: bool = False         # it was told as it came


def small_settings(settings: Settings) -> Settings:
    """Those that open the small reader. A key is sent only to the address that it was given for."""
    same = settings.reader_small_url == settings.reader_url
    return replace(settings, reader=settings.reader_small, reader_url=settings.reader_small_url,
                   reader_api_key=settings.reader_small_api_key or (settings.reader_api_key if same else ""),
                   reader_tokenizer=settings.reader_tokenizer if same else "", reader_window=settings.reader_window if same else 0)


def share(model: Model, settings: Settings) -> float:
    """What a call of the small reader costs over one of the large: in money where prompts of both have a price, else in the seconds
    that the model was fitted with."""
    if settings.price_prompt > 0 and settings.price_small_prompt > 0:
        return settings.price_small_prompt / settings.price_prompt
    return model.share


def routed(model: Model, question: str, signs: Mapping[str, float], *, settings: Settings, ask: Ask,
           judge: Callable[[Generation], Reading], forbidden: Callable[[], str | None], tell: Tell) -> Routed:
    """Asks one reader or both. `signs`: those of SEEN. `forbidden`: why the large reader may not be asked any more, or None.

    Raises:
        UpstreamError: the first reader that was asked cannot answer.
    """
    cost = settings.router_lambda
    begun = first(model, signs, cost=cost, share=share(model, settings), cascade=settings.router == "cascade")
    tell(asked="before reading", **begun.facts())
    if begun.reader == "large":
        return Routed("large", ask("large", last=True), heard=True)
    small = ask("small", last=False)
    if small.finish in _CUT_SHORT:
        return Routed("small", small)
    decision = onward(model, {**signs, **said(question, judge(small))}, cost=cost)
    why_not = forbidden() if decision.reader == "large" else None
    tell(asked="after the small reader", **_unless(decision, why_not).facts())
    if decision.reader == "small" or why_not:
        return Routed("small", small)
    try:
        large = ask("large", last=False)
    except UpstreamError as error:
        return Routed("small", small, f"large_reader_failed: this is the small reader's answer, because {error.message}")
    if large.finish in _CUT_SHORT:
        return Routed("small", small, f"{large.finish}: this is the small reader's answer, because the large one's was cut short")
    return Routed("large", large)


def _unless(decision: Decision, why_not: str | None) -> Decision:
    return decision if why_not is None else replace(decision, reader="small", why=f"{decision.why}; not asked: {why_not}")
