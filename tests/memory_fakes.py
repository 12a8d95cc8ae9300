"""A collection with a memory of which every part is known: no model is loaded."""

from __future__ import annotations

from pathlib import Path

from rag.settings import Settings, overridden
from rag.thriftrag import ThriftRAG
from retrievers import trigger
from tests.fakes import ScriptedReader, WordEncoder

FACTS = {
    "warranty.md": "# Warranty\n\nThe warranty of the kettle lasts two years. It covers parts and labour.\n",
    "shipping.txt": "Shipping a kettle takes nine days. Express shipping takes two days and costs more.\n",
    "otters.txt": "Otters sleep holding hands so that they do not drift apart.\n",
}
QUESTION = "How long does the warranty of the kettle last?"
# Nearly the same words, so WordEncoder finds it near.
LIKE = "How long does the warranty of the kettle last in all?"


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def first_words(prompt: str) -> str:
    """A reader that says the first sentence that it was given."""
    lines = [line for line in prompt.splitlines() if line and not line.startswith(("<", "[", "Question:", "Short answer:"))]
    return lines[0].split(".")[0] if lines else "I don't know"


def open_kb(settings: Settings, **overrides: object) -> ThriftRAG:
    changes = {"memory": "calibrated", "memory_audit": 0.0, **overrides}
    return ThriftRAG.open("kb", settings=overridden(settings, changes), reader=ScriptedReader(first_words), encoder=WordEncoder())


def sure(kind: str, *, near: float) -> dict[str, object]:
    """A fitted model that serves from this cosine to the nearest question on, and nothing below."""
    names = {"questions": trigger.QUESTIONS, "passages_unread": trigger.PASSAGES[:-1]}[kind]
    return {"features": list(names), "weights": [float(name == "past_question") for name in names], "bias": 0.0,
            "sigmoid": {"t": near - 0.1, "g": 200.0, "se": 0.001, "n": 1000, "right": 900}, "least": near, "error": 0.001}


def trust(kb: ThriftRAG, *, near: float = 0.7) -> ThriftRAG:
    """The collection, whose memory believes questions that are as near as that."""
    for kind in ("questions", "passages_unread"):
        kb.memory().reservoir.fit(kind, sure(kind, near=near))
    return kb
