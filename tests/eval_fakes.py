"""A pipeline, a reader and a data set small enough to know by heart, for the tests of the evaluation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eval.datasets import Dataset, Question
from eval.reply import Reply, Shown
from optimizers.context import render
from rag.errors import ModelUnavailable
from rag.llm import Generation, Message, Reader
from rag.settings import Settings
from rag.types import Answer, Chunk, Extract, FileFailure, Hit, IngestReport, OnProgress, Prepared, Receipt

CORPUS = [
    {"id": "d1", "title": "Normans", "text": "The Normans came from the north. Rollo led them. He came from Norway."},
    {"id": "d2", "title": "Paris", "text": "Paris is the capital of France. It lies on the Seine."},
    {"id": "d3", "title": "Cooking", "text": "Butter is soft. Rice is white."},
]
QUERIES: list[dict[str, object]] = [
    {"id": "q1", "question": "Who led the Normans?", "answers": ["Rollo"], "evidence": ["d1"], "type": "span"},
    {"id": "q2", "question": "What is the capital of France?", "answers": ["Paris"], "evidence": ["d2"], "type": "span"},
    {"id": "q3", "question": "Who cooked the rice?", "answers": [], "evidence": [], "type": "unanswerable"},
    {"id": "q4", "question": "Is rice white?", "answers": ["yes"], "evidence": ["d3"], "type": "polar"},
]


def dataset_folder(folder: Path, *, queries: Sequence[object] = QUERIES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, rows in (("corpus", CORPUS), ("queries", queries)):
        (folder / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def question(**changes: object) -> Question:
    base = Question(id="q1", text="Who led the Normans?", answers=("Rollo",), evidence=("d1",), type="extractive")
    return replace(base, **changes)  # type: ignore[arg-type]


def chunk_of(record: dict[str, str]) -> Chunk:
    spans = tuple(match.span() for match in re.finditer(r"[^.]+\.", record["text"]))
    spans = tuple((start + (record["text"][start] == " "), end) for start, end in spans)
    return Chunk(id=f"{record['id']}:0", doc_id=record["id"], ordinal=0, text=record["text"], span=(0, len(record["text"])),
                 sentences=spans, tokens=len(record["text"].split()), title=record["title"], source=record["id"])


class WordTokens:
    name = "words"
    exact = True

    def count(self, text: str) -> int:
        return len(text.split())

    def count_many(self, texts: Sequence[str]) -> list[int]:
        return [self.count(text) for text in texts]


class ScriptedReader:
    """Answers with the first word of its script that stands in the prompt, else "I don't know". Counts its calls."""

    local = True
    context_window = 1000

    def __init__(self, script: Sequence[str] = ("Rollo", "Paris"), *, name: str = "scripted") -> None:
        self.name = name
        self.tokenizer = WordTokens()
        self.calls = 0
        self.closed = False
        self.fails_on = ""
        self._script = script

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def generate(self, messages: Sequence[Message], *, max_tokens: int, stop: Sequence[str] = (),
                 on_token: Callable[[str], None] | None = None, deadline: float | None = None,
                 cancelled: Callable[[], bool] | None = None) -> Generation:
        self.calls += 1
        prompt = messages[-1].content
        if self.fails_on and self.fails_on in prompt:
            raise ModelUnavailable("The reader is gone.", hint="Start it.")
        text = next((word for word in self._script if word in prompt), "I don't know")
        return Generation(text, self.prompt_tokens(messages), len(text.split()), 0, "stop", seconds=2.0)

    def close(self) -> None:
        self.closed = True


class FakeBase:
    """Ranks documents by the words they share with the question and shows the best sentences that fit the budget."""

    def __init__(self, world: World, name: str, reader: Reader | None) -> None:
        self._world = world
        self._records = world.collections.setdefault(name, {})
        self._reader = reader
        self.closed = False

    def ingest(self, *, lines: Iterable[str], on_progress: OnProgress, cancelled: Callable[[], bool]) -> IngestReport:
        self._world.ingestions += 1
        for line in lines:
            record = json.loads(line)
            self._records[record["id"]] = record
        return IngestReport(added=len(self._records), failures=self._world.failures, interrupted=cancelled())

    def ask(self, question: str, *, budget: int, changes: Mapping[str, object] | None = None) -> Answer:
        self._world.asked.append((question, budget, dict(changes or {})))
        return self.answer_from(question, self._chosen(question, budget), budget=budget)

    def context(self, question: str, *, budget: int, changes: Mapping[str, object] | None = None,
                extracts: Sequence[Extract] | None = None) -> Prepared:
        chosen = self._chosen(question, budget) if extracts is None else extracts
        made = render(chosen, counter=WordTokens(), budget=budget)
        return Prepared(question, made, reason=None, prompt_tokens=made.tokens + 9, naive_tokens=60, encoder_passes=1,
                        seconds={"total": 0.1}, trace=())

    def _chosen(self, question: str, budget: int) -> list[Extract]:
        chosen: list[Extract] = []
        for hit in self.search(question, mode="hybrid", k=10):
            extract = Extract(hit.chunk, tuple(range(len(hit.chunk.sentences))))
            if render([*chosen, extract], counter=WordTokens()).tokens <= budget:
                chosen.append(extract)
        return chosen

    def search(self, query: str, *, mode: str, k: int) -> list[Hit]:
        self._world.searched.append((query, mode, k))
        wanted = set(re.findall(r"\w+", query.lower()))
        scored = [(len(wanted & set(re.findall(r"\w+", record["text"].lower()))), record)
                  for record in self._records.values()]
        ranked = sorted(scored, key=lambda pair: (-pair[0], pair[1]["id"]))
        return [Hit(chunk_of(record), float(score), {}) for score, record in ranked[:k]]

    def answer_from(self, question: str, extracts: Sequence[Extract], *, budget: int) -> Answer:
        context = render(extracts, counter=WordTokens(), budget=budget)
        assert self._reader is not None
        said = self._reader.generate([Message("user", f"{context.text}\n{question}")], max_tokens=8)
        declined = said.text.startswith("I don't know")
        receipt = Receipt(
            budget_tokens=budget, context_tokens=context.tokens, prompt_tokens=said.prompt_tokens,
            completion_tokens=said.completion_tokens, cached_tokens=0, llm_calls=1, encoder_passes=1,
            model=self._reader.name, cost_usd=0.001, seconds={"generate": 0.0, "total": 0.25}, naive_tokens=60,
            saved_tokens=0, energy_wh=0.0, water_ml=0.0, co2_g=0.0, estimates=())
        return Answer(id="a", question=question, text=said.text, verdict="abstained" if declined else "answered",
                      reason=None, citations=(), receipt=receipt, snapshot="s", config="c", trace=(), context=context)

    def chunks_of(self, document_ids: Sequence[str]) -> list[Chunk]:
        return [chunk_of(self._records[doc_id]) for doc_id in sorted(document_ids)]

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self.closed = True


class World:
    """Every collection there is, and what was done to them. Called, it opens one."""

    def __init__(self) -> None:
        self.collections: dict[str, dict[str, dict[str, str]]] = {}
        self.opened: list[FakeBase] = []
        self.cold: list[bool] = []
        self.closed = False
        self.peers: list[FakePeer] = []
        self.asked: list[tuple[str, int, dict[str, object]]] = []
        self.searched: list[tuple[str, str, int]] = []
        self.ingestions = 0
        self.failures: tuple[FileFailure, ...] = ()

    def __call__(self, name: str, *, settings: Settings, reader: Reader | None, cold: bool = True) -> FakeBase:
        kb = FakeBase(self, name, reader)
        self.opened.append(kb)
        self.cold.append(cold)
        return kb

    @property
    def encoded(self) -> tuple[int, int]:
        return 0, 0

    def close(self) -> None:
        self.closed = True

    def peer(self, name: str, dataset: Dataset, *, settings: Settings, reader: Reader, cold: bool,
             on_progress: OnProgress) -> FakePeer:
        made = FakePeer(dataset, reader)
        self.peers.append(made)
        return made


class FakePeer:
    """Shows the first passage, whatever the question."""

    def __init__(self, dataset: Dataset, reader: Reader) -> None:
        self.closed = False
        self._first = dataset.passages[0]
        self._reader = reader

    def answer(self, question: str, *, budget: int, read: bool) -> Reply:
        text = " ".join(self._first.text.split()[:budget])
        reply = Reply(context=text, context_tokens=len(text.split()), passages=(Shown(self._first.id, text),), prompt_tokens=20,
                      seconds={"total": 0.5})
        if not read:
            return reply
        said = self._reader.generate([Message("user", f"{text}\n{question}")], max_tokens=8)
        return replace(reply, text=said.text, verdict="answered", llm_calls=1)

    def ahead(self, question: str, *, budget: int) -> None:
        self.answer(question, budget=budget, read=True)

    def close(self) -> None:
        self.closed = True
