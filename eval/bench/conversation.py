"""What a question that leans on the turn before it finds, alone and with the words that are carried over.

The conversations are made by rule from two questions on one gold document that share a name (the longest run of capitalised words
and numbers in both): the first is asked and answered, and in the second the name gives way to "it" or "its". So they are one kind
of follow-up, and a clumsy one: people also leave things out in ways that no rule makes. Four ways of asking the second: alone, with
the words that `rag.conversation` carries, with the whole first question before it, and as it was with its name, which is as good as
a rewriter could be. Changes of subject, a question after one on another document, tell what carrying does where there is nothing
to carry. Hybrid search, the share of questions whose gold document is among the best five, differences paired by conversation with
95 % bootstrap intervals; at most 300 conversations of a set, drawn with the seed (`--limit`).
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter

from eval.bench import Measurement, Options
from eval.corpus import FOLDER, collection_name, opened
from eval.datasets import Dataset, Question
from eval.origins.opened import loaded
from eval.statistics import mean, paired_difference
from indexers.encoders import Encoder, open_encoder
from rag.conversation import Turn, leans, standalone
from rag.llm import Reader
from rag.models import ModelCache
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import OnProgress, Progress

TAKES = frozenset({"limit"})
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
_LIMIT = 300
_K = 5
_NAME = re.compile(r"(?<=\s)(?:[A-Z][\w'’-]*|\d[\w.,]*\w)(?:\s+(?:of |the )?(?:[A-Z][\w'’-]*|\d[\w.,]*\w))*")


@dataclass(frozen=True, slots=True)
class Talk:
    """One conversation of two questions. `second` as it is asked, `original` with its name; the two are one after a change of
    subject."""

    first: str
    answer: str
    second: str
    original: str
    gold: tuple[str, ...]

    def ways(self) -> dict[str, str]:
        """What is searched, by the way of asking."""
        history = (Turn("user", self.first), Turn("assistant", self.answer))
        return {"alone": self.second, "carried": standalone(self.second, history).text,
                "both questions": f"{self.first} {self.second}", "original": self.original}


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    settings = options.settings if options.home is None else dataclasses.replace(options.settings, home=options.home)
    encoder = open_encoder(settings.embedder, cache=ModelCache(settings.models), precision=settings.precision,
                           threads=settings.threads)
    rows: list[Measurement] = []
    for dataset in loaded(options.data or (SAMPLE,)):
        limit = options.limit or _LIMIT
        with _collection(dataset, settings, encoder, on_progress) as kb:
            for kind, talks in (("follow-ups", follow_ups(dataset.questions, limit=limit, seed=options.seed)),
                                ("changes of subject", changes(dataset.questions, limit=limit, seed=options.seed))):
                on_progress(Progress("search", 0, len(talks), "conversations", f"{dataset.name}, {kind}"))
                rows += compared(talks, found(kb, talks), f"{dataset.name}, {kind}", seed=options.seed)
    return rows


def follow_ups(questions: Sequence[Question], *, limit: int, seed: int) -> list[Talk]:
    """One conversation for each gold document that two questions name alike, at most `limit`."""
    about: defaultdict[str, list[Question]] = defaultdict(list)
    for question in questions:
        if len(question.evidence) == 1 and question.answers and question.language == "en":
            about[question.evidence[0]].append(question)
    made = [talk for gold in sorted(about) if (talk := _first_pair(about[gold])) is not None]
    Random(seed).shuffle(made)
    return made[:limit]


def changes(questions: Sequence[Question], *, limit: int, seed: int) -> list[Talk]:
    """Pairs of questions on different documents, each question once."""
    known = [question for question in questions if question.evidence and question.answers and question.language == "en"]
    Random(seed).shuffle(known)
    pairs = zip(known[::2], known[1::2], strict=False)
    return [Talk(one.text, one.answers[0], two.text, two.text, two.evidence) for one, two in pairs
            if not set(one.evidence) & set(two.evidence)][:limit]


def found(kb: ThriftRAG, talks: Sequence[Talk]) -> dict[str, list[float]]:
    """For each way of asking, whether a gold document is among the best."""
    values: dict[str, list[float]] = defaultdict(list)
    for talk in talks:
        for way, text in talk.ways().items():
            values[way].append(float(any(hit.chunk.doc_id in talk.gold for hit in kb.search(text, k=_K))))
    return values


def compared(talks: Sequence[Talk], values: Mapping[str, Sequence[float]], name: str, *, seed: int) -> Iterator[Measurement]:
    """Each way's mean, the paired differences to asking alone, how often anything was carried, and what that took."""
    if not talks:
        return
    for way, column in values.items():
        yield Measurement(f"{name}: {way}", mean(column) or 0.0, f"recall@{_K}", len(column))
    for way in [way for way in values if way != "alone"]:
        gap = paired_difference(values[way], values["alone"], seed=seed)
        if gap is not None:
            yield Measurement(f"{name}: {way} - alone", gap[0], f"recall@{_K}", len(talks), interval=gap[1])
    yield Measurement(f"{name}: taken to lean", mean([float(leans(talk.second)) for talk in talks]) or 0.0, "share", len(talks))
    since = perf_counter()
    added = [standalone(talk.second, (Turn("user", talk.first), Turn("assistant", talk.answer))).tokens for talk in talks]
    yield Measurement(f"{name}: carrying", 1e6 * (perf_counter() - since) / len(talks), "us", len(talks))
    yield Measurement(f"{name}: carried", mean([float(count) for count in added]) or 0.0, "tokens, estimated", len(talks))


def _first_pair(questions: Sequence[Question]) -> Talk | None:
    """The first two questions with a name in common, by length of the name."""
    best: tuple[int, Talk] | None = None
    for at, one in enumerate(questions):
        for two in questions[at + 1:]:
            shared = [match for match in _NAME.finditer(two.text) if match.group() in one.text]
            if not shared:
                continue
            name = max(shared, key=lambda match: len(match.group()))
            talk = Talk(one.text, one.answers[0], _without(two.text, name), two.text, two.evidence)
            if best is None or len(name.group()) > best[0]:
                best = len(name.group()), talk
    return None if best is None else best[1]


def _without(text: str, name: re.Match[str]) -> str:
    """The text with a pronoun for the name, and for an article before it."""
    before = re.sub(r"\b(?:the|a|an)\s+$", "", text[:name.start()], flags=re.IGNORECASE)
    said = name.group()
    owner = re.search(r"['’]s?$", said) is not None
    return f"{before}{'its' if owner else 'it'}{text[name.end():]}"


def _collection(dataset: Dataset, settings: Settings, encoder: Encoder, on_progress: OnProgress) -> ThriftRAG:
    """The passages below `settings.home`, ingested if they are not there from an earlier run."""
    def open_collection(name: str, *, settings: Settings, reader: Reader | None, cold: bool) -> ThriftRAG:
        return ThriftRAG.open(name, settings=settings, reader=reader, encoder=encoder)

    kb = opened(dataset, settings=settings, open_collection=open_collection, reader=None, on_progress=on_progress)
    if kb is not None:
        kb.close()
    home = dataclasses.replace(settings, home=settings.home / FOLDER)
    return ThriftRAG.open(collection_name(dataset, settings), settings=home, encoder=encoder)
