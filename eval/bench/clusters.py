"""Questions about all texts: cluster summaries in the prompt against all texts in it, by tokens and by what the reader says.

A group is what the field `item` or `topic` of the corpus says, such as one hotel; without such a field all passages are one. Of
each group so many texts are drawn with the seed (`--sizes`; the question's own evidence first where there is less of it),
clustered, summarised, and asked about, at most so many questions of each set (`--limit`). Ways, with one reader and one prompt:

- all texts      every text of the group in the prompt
- extractive     cluster summaries made of sentences of the texts
- llm            cluster summaries that the reader wrote

Rows, for each set and size: prompt tokens; ROUGE-L and token F1 of the answer against the best gold answer, and the paired
difference to all texts; tokens that building took for each question; and the number of questions from which on a way is cheaper,
where a written token costs three read ones. Then how much the prompt grows from the smallest size to the largest. Intervals are
95 % bootstrap intervals, over questions. Answers are kept below the evaluation home, so that another run asks only for what is new.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from eval.bench import Measurement, Options
from eval.cache import CachingReader
from eval.corpus import FOLDER
from eval.datasets import Passage, Question, load, sampled
from eval.layouts.folder import extras
from eval.metrics import f1, rouge
from eval.statistics import bootstrap_interval, mean, paired_difference
from rag.llm.open import open_reader
from rag.models import ModelCache
from rag.settings import Settings
from rag.thriftrag import ThriftRAG
from rag.types import Answer, OnProgress, Progress, whole

TAKES = frozenset({"limit"})
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
SIZES = (8, 32, 75)
WAYS = ("all texts", "extractive", "llm")
_FIELDS = ("item", "topic")
_LIMIT = 30
_BUDGET = 256
_DEADLINE_S = 3600.0
# What a written token costs, in read ones: the ratio of most price lists.
_OUT = 3.0


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A question about the texts of one group. `members`: ids of the passages, in the order of the draw."""

    question: Question
    asked: str
    group: str
    members: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What one way made of one question."""

    prompt_tokens: int
    rouge: float
    f1: float


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    home = options.home or options.scratch
    (home / FOLDER).mkdir(parents=True, exist_ok=True)
    settings = dataclasses.replace(options.settings, home=options.scratch / "home", abstain_below=0.0, min_sufficiency=0.0,
                                   clustered="always", deadline_s=_DEADLINE_S, budget_tokens=_BUDGET)
    reader = CachingReader(open_reader(settings, cache=ModelCache(settings.models)), home / FOLDER / "reader-calls.sqlite")
    rows: list[Measurement] = []
    try:
        for folder in options.data or (SAMPLE,):
            found = {}
            for size in options.sizes or SIZES:
                cases = drawn(folder, size=size, limit=options.limit or _LIMIT, seed=options.seed)
                if cases:
                    found[size] = measured(folder, cases, settings=settings, reader=reader, size=size, on_progress=on_progress)
                    rows += told(f"{folder.name}, {size} texts", *found[size], seed=options.seed)
            rows += growth(folder.name, {size: asked for size, (asked, _) in found.items()})
    finally:
        reader.end()
    return rows


def drawn(folder: Path, *, size: int, limit: int, seed: int) -> list[Case]:
    """Questions with an answer about groups of at least `size` texts, each with its texts; in the order of the draw."""
    dataset = load(folder)
    group_of = extras(folder, _FIELDS)
    groups: dict[str, list[str]] = {}
    for passage in dataset.passages:
        groups.setdefault(group_of.get(passage.id, ""), []).append(passage.id)
    cases: list[Case] = []
    for question in sampled([each for each in dataset.questions if each.answers and each.evidence], seed=seed):
        group = group_of.get(question.evidence[0], "")
        if len(groups[group]) >= size and len(cases) < limit:
            summary = question.type == "opinion-summary"
            asked = f"What do people say about the {question.text}?" if summary else question.text
            cases.append(Case(question, asked, group, members(groups[group], question.evidence, size=size, seed=seed)))
    return cases


def members(group: Sequence[str], evidence: Sequence[str], *, size: int, seed: int) -> tuple[str, ...]:
    """`size` of the group's passages: the evidence where that is fewer, then what the seed draws."""
    order = sorted(group, key=lambda each: hashlib.sha256(f"{seed}:{each}".encode()).digest())
    first = [each for each in order if each in set(evidence)] if len(evidence) < size else []
    return tuple([*first, *(each for each in order if each not in set(first))][:size])


def measured(folder: Path, cases: Sequence[Case], *, settings: Settings, reader: CachingReader, size: int, on_progress: OnProgress
             ) -> tuple[dict[str, list[Asked]], float]:
    """What each way made of each question, and the tokens that written summaries took for each, in read ones."""
    found: dict[str, list[Asked]] = {way: [] for way in WAYS}
    with ThriftRAG.open(f"{folder.name}-{size}", settings=settings, reader=reader) as kb:
        kb.ingest(lines=_lines(cases, load(folder).passages), on_progress=on_progress)
        built = 0.0
        for way in WAYS:
            if way != "all texts":
                report = kb.build_clusters("case", summaries=way, on_progress=on_progress)
                built = report.prompt_tokens + _OUT * report.completion_tokens
            for place, case in enumerate(cases):
                on_progress(Progress(f"{way}, {size} texts", place, len(cases), "questions", folder.name))
                if way == "all texts":
                    chunks = kb.chunks_of([f"{place}/{each}" for each in case.members])
                    answer = kb.answer_from(case.asked, [whole(chunk) for chunk in chunks], budget=reader.context_window,
                                            overall=True)
                else:
                    answer = kb.ask(case.asked, where={"case": str(place)})
                found[way].append(scored(answer, case))
    return found, built / len(cases)


def _lines(cases: Sequence[Case], passages: Sequence[Passage]) -> Iterator[str]:
    by_id = {passage.id: passage for passage in passages}
    for place, case in enumerate(cases):
        for each in case.members:
            yield json.dumps({"id": f"{place}/{each}", "title": by_id[each].title, "text": by_id[each].text, "case": str(place)})


def scored(answer: Answer, case: Case) -> Asked:
    answers = case.question.answers
    return Asked(answer.receipt.prompt_tokens, rouge(answer.text, answers), f1(answer.text, answers))


def told(name: str, found: Mapping[str, Sequence[Asked]], built: float, *, seed: int) -> Iterator[Measurement]:
    base = found[WAYS[0]]
    tokens = {way: float(mean([each.prompt_tokens for each in asked]) or 0.0) for way, asked in found.items()}
    for way, asked in found.items():
        yield _row(name, way, [float(each.prompt_tokens) for each in asked], "prompt tokens", tokens, seed=seed)
    for measure in ("rouge", "f1"):
        values = {way: [float(getattr(each, measure)) for each in asked] for way, asked in found.items()}
        means = {way: float(mean(column) or 0.0) for way, column in values.items()}
        unit = "ROUGE-L" if measure == "rouge" else "F1"
        for way, column in values.items():
            yield _row(name, way, column, unit, means, seed=seed)
        for way in WAYS[1:]:
            gap = paired_difference(values[way], values[WAYS[0]], seed=seed)
            if gap is not None:
                yield Measurement(f"{name}: {way} - {WAYS[0]}", gap[0], unit, len(base), interval=gap[1])
    yield Measurement(f"{name}: llm, building", built, "tokens/question", len(base))
    for way, cost in (("extractive", 0.0), ("llm", built)):
        saved = tokens[WAYS[0]] - tokens[way]
        if saved > 0:
            yield Measurement(f"{name}: {way}, cheaper from", cost / saved, "questions", len(base))


def _row(name: str, way: str, column: Sequence[float], unit: str, means: Mapping[str, float], *, seed: int) -> Measurement:
    base = means[WAYS[0]]
    ratio = means[way] / base if base and way != WAYS[0] else None
    return Measurement(f"{name}: {way}", means[way], unit, len(column), ratio, None if ratio is None else f"{name}: {WAYS[0]}",
                       bootstrap_interval(column, seed=seed))


def growth(name: str, found: Mapping[int, Mapping[str, Sequence[Asked]]]) -> Iterator[Measurement]:
    """Mean prompt at the largest size over that at the smallest."""
    if len(found) < 2:
        return
    least, most = min(found), max(found)
    for way in WAYS:
        small, large = (float(mean([each.prompt_tokens for each in found[size][way]]) or 0.0) for size in (least, most))
        yield Measurement(f"{name}: {way}, growth from {least} to {most} texts", large / small, "times", len(found[most][way]))
