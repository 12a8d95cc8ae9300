"""Declining: how well each signal tells questions that will be answered right from those that will not, unanswerable ones included.

Half of the questions are answerable, half are not (as many as the set has), and the reader answers all of them from the default
selection. A signal orders the questions; answering only its best share gives a risk, the share of these that were answered wrong
(an unanswerable one is never right). Rows: area under the risk-coverage curve (Geifman and El-Yaniv 2017), less is better, for

- sufficiency    the calibrated chance that the chosen context holds the answer (`optimizers.sufficiency`)
- best chance    of its likeliest sentence
- retrieval      the cosine of the best passage, what most programs threshold
- refusal        whether the reader said in words that it does not know; ties count as their mean
- refusal, then sufficiency

and the area of a perfect order and of a random one; the share of unanswerable questions among all, and the coverage and risk of
refusal in words alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from eval.bench import Measurement, Options
from eval.cache import CachingReader
from eval.corpus import FOLDER, opened
from eval.datasets import Question, load, sampled
from eval.metrics import f1
from eval.statistics import bootstrap_interval
from optimizers import relevance
from optimizers.sufficiency import sufficiency
from optimizers.training.relevance import open_alone
from rag import prompts
from rag.errors import InputError
from rag.llm.open import open_reader
from rag.models import ModelCache
from rag.thriftrag import ThriftRAG
from rag.types import Extract, OnProgress, Passage, Progress

TAKES = frozenset({"limit"})
SAMPLE = Path(__file__).parents[1] / "data" / "sample"
_QUESTIONS = 200
_BUDGET = 128
_RIGHT = 0.5
SIGNALS = ("sufficiency", "best chance", "retrieval", "refusal", "refusal, then sufficiency")


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One question: what each signal says, and whether the reader's answer is wrong."""

    signals: Mapping[str, float]
    wrong: bool
    refused: bool


def run(options: Options, *, on_progress: OnProgress) -> list[Measurement]:
    settings = dataclasses.replace(options.settings, home=options.home or options.scratch, abstain_below=0.0, min_sufficiency=0.0)
    (settings.home / FOLDER).mkdir(parents=True, exist_ok=True)
    reader = CachingReader(open_reader(settings, cache=ModelCache(settings.models)), settings.home / FOLDER / "reader-calls.sqlite")
    rows: list[Measurement] = []
    try:
        for folder in options.data or (SAMPLE,):
            dataset = load(folder)
            kb = opened(dataset, settings=settings, open_collection=open_alone, reader=reader, on_progress=on_progress)
            assert isinstance(kb, ThriftRAG)  # what open_alone gave: None comes only of cancelling
            found: list[Asked] = []
            with kb:
                questions = mixed(dataset.questions, limit=options.limit or _QUESTIONS, seed=options.seed)
                for question in questions:
                    found.append(asked(kb, question))
                    on_progress(Progress("ask", len(found), len(questions), "questions", folder.name))
            rows += measured(folder.name, found, unanswerable=float(np.mean([each.unanswerable for each in questions])),
                             seed=options.seed)
    finally:
        reader.end()
    return rows


def mixed(questions: Sequence[Question], *, limit: int, seed: int) -> list[Question]:
    """Answerable and unanswerable ones in turn, each drawn by the seed.

    Raises:
        InputError: the set has only one kind.
    """
    drawn = sampled([each for each in questions if each.language == "en"], seed=seed)
    with_answer, without = [each for each in drawn if each.answers], [each for each in drawn if each.unanswerable]
    if not with_answer or not without:
        raise InputError("Declining is measured on questions with and without answers, and this set has only one kind.",
                         field="data", hint="Use a set such as SQuAD 2.0.")
    return [each for pair in zip(with_answer, without, strict=False) for each in pair][:limit]


def asked(kb: ThriftRAG, question: Question) -> Asked:
    answer = kb.ask(question.text, budget=_BUDGET)
    pool = kb.pool(question.text)
    chosen = [_extract(passage) for passage in answer.context.passages]
    chances = relevance.chances(pool)
    enough = sufficiency(pool, chances, chosen)
    refused = answer.verdict == "abstained" or prompts.abstains(answer.text)
    wrong = question.unanswerable or refused or f1(answer.text, question.answers) < _RIGHT
    return Asked({"sufficiency": enough, "best chance": max(chances.values(), default=0.0),
                  "retrieval": max((each.relevance for each in pool.candidates), default=0.0), "refusal": float(not refused),
                  "refusal, then sufficiency": float(not refused) + enough}, wrong, refused)


def _extract(passage: Passage) -> Extract:
    return Extract(passage.chunk, passage.sentences)


def area(scores: ArrayLike, wrong: ArrayLike) -> float:
    """Mean risk over all coverages; questions of equal score share their risk."""
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ranked, errors = np.asarray(scores, np.float64)[order], np.asarray(wrong, np.float64)[order]
    for value in np.unique(ranked):
        errors[ranked == value] = errors[ranked == value].mean()
    return float((np.cumsum(errors) / np.arange(1, len(errors) + 1)).mean())


def measured(name: str, found: Sequence[Asked], *, unanswerable: float, seed: int) -> list[Measurement]:
    wrong, n = [each.wrong for each in found], len(found)
    rows = [Measurement(f"{name}: unanswerable", unanswerable, "share", n),
            Measurement(f"{name}: wrong if all are answered", float(np.mean(wrong)), "share", n,
                        interval=bootstrap_interval([float(each) for each in wrong], seed=seed)),
            Measurement(f"{name}: coverage of refusal in words", float(np.mean([not each.refused for each in found])), "share", n)]
    answered = [float(each.wrong) for each in found if not each.refused]
    if answered:
        rows.append(Measurement(f"{name}: risk of refusal in words", float(np.mean(answered)), "share", len(answered)))
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, n, (1000, n))
    for signal in SIGNALS:
        scores = np.asarray([each.signals[signal] for each in found])
        areas = [area(scores[draw], np.asarray(wrong)[draw]) for draw in draws]
        low, high = np.percentile(areas, [2.5, 97.5]).tolist()
        rows.append(Measurement(f"{name}: area, {signal}", area(scores, wrong), "risk", n, interval=(low, high)))
    perfect = area([float(not each) for each in wrong], wrong)
    return [*rows, Measurement(f"{name}: area, perfect", perfect, "risk", n),
            Measurement(f"{name}: area, random", float(np.mean(wrong)), "risk", n)]
