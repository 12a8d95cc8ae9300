"""A small collection of lighthouses and a reader that knows how to ask about them, for the tests of tuning."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from rag.errors import ModelUnavailable
from rag.llm import Generation, Message, Reader
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from tests.fakes import WordCounter, WordEncoder

COLOURS = {"Arden": "crimson", "Borrow": "turquoise", "Calder": "ochre", "Dunmore": "violet", "Esker": "scarlet",
           "Fallon": "maroon", "Garrick": "emerald", "Holm": "amber", "Innis": "cobalt", "Jura": "ivory"}
_PASSAGE = re.compile(r"The (\w+) lighthouse was painted (\w+)")
_ASKED = re.compile(r"colour was the (\w+) lighthouse")


def text_of(name: str) -> str:
    return (f"Visitors climb the many stairs of the {name} lighthouse to see the wide bay. The {name} lighthouse was painted "
            f"{COLOURS[name]} by its keeper. Tickets for boats are sold at the small wooden gate beside the harbour.")


def lines(names: Sequence[str] = tuple(COLOURS)) -> list[str]:
    return [json.dumps({"id": name, "title": name, "text": text_of(name)}) for name in names]


class LighthouseReader:
    """Writes a question about the lighthouse of a passage; answers with the colour that the context gives it.

    `written` replaces what it writes for a name, `heart` are names whose colour it knows without a context. Fails from call
    number `fails_at` on. Counts its calls.
    """

    local = True
    context_window = 2000

    def __init__(self, *, written: dict[str, str] | None = None, heart: Sequence[str] = (), fails_at: int | None = None,
                 name: str = "lighthouse") -> None:
        self.name = name
        self.tokenizer = WordCounter()
        self.calls = 0
        self.closed = False
        self.before: Callable[[], None] = lambda: None
        self._written = written or {}
        self._heart = heart
        self._fails_at = fails_at

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return sum(self.tokenizer.count(message.content) for message in messages)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        self.before()
        self.calls += 1
        if self._fails_at is not None and self.calls >= self._fails_at:
            raise ModelUnavailable("The reader is gone.", hint="Start it.")
        text = self._said(messages[-1].content)
        return Generation(text, self.prompt_tokens(messages), self.tokenizer.count(text), 0, "stop", seconds=0.5)

    def close(self) -> None:
        self.closed = True

    def _said(self, prompt: str) -> str:
        found = _PASSAGE.findall(prompt)
        if "<passage>" in prompt:
            if not found:
                return "I cannot."
            name, colour = found[0]
            return self._written.get(name, f"Question: What colour was the {name} lighthouse painted?\nAnswer: {colour}")
        asked = _ASKED.search(prompt)
        if asked is None:
            return "I don't know"
        known = {**dict(found), **{name: COLOURS[name] for name in self._heart}}
        return known.get(asked[1], "I don't know")


def opened(settings: Settings, reader: Reader, keep_pools: int = 0) -> ThriftRAG:
    return ThriftRAG.open(settings.collection, create=False, settings=settings, reader=reader, encoder=WordEncoder(),
                          keep_pools=keep_pools)


def filled(settings: Settings, rows: Sequence[str] = tuple(lines())) -> None:
    """Makes the settings' collection from these JSON lines."""
    with ThriftRAG.open(settings.collection, settings=settings, reader=LighthouseReader(), encoder=WordEncoder()) as kb:
        assert kb.ingest(lines=rows).failures == ()
