"""Repeated traffic made of a data set: questions that fill a memory, then questions like them.

    paraphrase     the same question in other words: by fixed rules, or by a reader whose rewording passes a check
    same passage   another question that the same passage answers
    near miss      the question most like one that filled the memory, of another passage: memory must not answer it

Gold answers and evidence stay those of the question that was asked, so every answer can be scored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eval.datasets import Dataset, Question, sampled
from indexers import lexical
from indexers.encoders import Vectors
from rag.llm import Message, Reader
from retrievers import veto

KINDS = ("paraphrase", "same passage", "near miss")
Encode = Callable[[Sequence[str]], Vectors]
# A rewording's cosine to its question: lower ones ask something else, and what is all the same is no rewording.
_ALIKE = 0.75
_PROMPT = ("Rewrite the question in other words without changing what it asks. Keep every name and number. Reply with the question "
           "only.")
_QUESTION_WORD = re.compile(r"^(what|who|whom|whose|when|where|why|which|how)\b", re.IGNORECASE)
_SWAPS = (("located", "situated"), ("begin", "start"), ("began", "started"), ("created", "made"), ("primary", "main"),
          ("called", "named"), ("purchase", "buy"), ("country", "nation"), ("wrote", "penned"), ("died", "passed away"),
          ("large", "big"), ("movie", "film"), ("born", "given birth to"), ("happened", "took place"), ("kind of", "type of"),
          ("show", "programme"), ("season", "series"), ("first", "earliest"), ("about", "roughly"), ("many", "large a number of"))
_FRAMES = ("Can you tell me {}?", "I would like to know {}.", "Do you know {}?", "Please tell me {}.", "{}, do you know?")


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of the stream. `like`: the text of the one that filled the memory; `by`: how it was made, for paraphrases."""

    question: Question
    text: str
    kind: str
    like: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Traffic:
    fill: tuple[Question, ...]
    asked: tuple[Asked, ...]


def traffic(dataset: Dataset, *, fill: int, ask: int, seed: int, encode: Encode, reader: Reader | None = None,
            shares: tuple[float, float] = (1 / 2, 1 / 3)) -> Traffic:
    """`fill` questions on as many passages, and `ask` others. `shares`: of paraphrases, and of questions from the same passages, as
    far as there are any; the rest are near misses. The reader, if there is one, rewords every other paraphrase."""
    usable = [each for each in sampled(dataset.questions, seed=seed) if each.language == "en" and each.evidence and each.answers]
    first: dict[tuple[str, ...], Question] = {}
    for each in usable:
        first.setdefault(each.evidence, each)
    filled = list(first.values())[:fill]
    passages = {name for each in filled for name in each.evidence}
    taken = {each.id for each in filled}
    rest = [each for each in usable if each.id not in taken]
    reworded = int(ask * shares[0])
    siblings = _one_each([each for each in rest if each.evidence in {one.evidence for one in filled}], filled, int(ask * shares[1]))
    misses = _nearest([each for each in rest if not passages & set(each.evidence)], filled, ask - reworded - len(siblings), encode)
    sources = (filled * (ask // max(1, len(filled)) + 1))[:reworded]
    paraphrases = [_reworded(each, turn, encode, reader) for turn, each in enumerate(sources)]
    asked = [*paraphrases, *siblings, *misses]
    order = np.random.default_rng(seed).permutation(len(asked))
    return Traffic(tuple(filled), tuple(asked[i] for i in order.tolist()))


def _one_each(others: Sequence[Question], filled: Sequence[Question], most: int) -> list[Asked]:
    """Questions of the same passages, each passage in turn."""
    by_evidence: dict[tuple[str, ...], list[Question]] = {}
    for each in others:
        by_evidence.setdefault(each.evidence, []).append(each)
    rounds = max((len(group) for group in by_evidence.values()), default=0)
    found = [Asked(by_evidence[one.evidence][turn], by_evidence[one.evidence][turn].text, "same passage", one.text)
             for turn in range(rounds) for one in filled if len(by_evidence.get(one.evidence, [])) > turn]
    return found[:most]


def _nearest(others: Sequence[Question], filled: Sequence[Question], most: int, encode: Encode) -> list[Asked]:
    """The questions nearest to any that filled the memory, each once."""
    if not others or not filled or most < 1:
        return []
    cosines = encode([each.text for each in others]) @ encode([each.text for each in filled]).T
    order = np.argsort(-cosines.max(axis=1), kind="stable")[:most].tolist()
    return [Asked(others[i], others[i].text, "near miss", filled[int(cosines[i].argmax())].text) for i in order]


def _reworded(question: Question, turn: int, encode: Encode, reader: Reader | None) -> Asked:
    """Every other one by the reader where its rewording passes."""
    text = _by_reader(question.text, encode, reader) if reader is not None and turn % 2 else None
    return Asked(question, text or by_rule(question.text, turn), "paraphrase", question.text, "reader" if text else "rule")


def by_rule(question: str, turn: int) -> str:
    """The same question in another frame, or with other words where one of the known swaps applies; `turn` varies it."""
    bare = question.strip().rstrip("?").strip()
    for old, new in _SWAPS:
        if re.search(rf"\b{old}\b", bare) and turn % 3 == 0:
            return re.sub(rf"\b{old}\b", new, bare, count=1) + "?"
    if turn % 4 == 3 and bare.lower() != question:
        return bare.lower()
    inner = bare[0].lower() + bare[1:] if _QUESTION_WORD.match(bare) else bare
    return _FRAMES[turn % len(_FRAMES)].format(inner)


def _by_reader(question: str, encode: Encode, reader: Reader | None) -> str | None:
    """The reader's rewording, or None where it fails the check: near enough, other words, nothing that forbids a shared answer."""
    if reader is None:
        return None
    generation = reader.generate([Message("system", _PROMPT), Message("user", question)], max_tokens=64)
    said = generation.text.strip().split("\n")[0].strip('"')
    if not said.endswith("?") or lexical.words(said) == lexical.words(question):
        return None
    if veto.numbers(said) != veto.numbers(question) or veto.kind(said) != veto.kind(question):
        return None
    if veto.names(question) - frozenset(lexical.words(said)):
        return None
    one, other = encode([question, said])
    return said if float(one @ other) >= _ALIKE else None
