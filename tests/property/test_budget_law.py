"""The budget law: whatever the chunks, titles, alphabets and budgets, no rendered context costs more than its budget.

Thousands of cases a selector with a cheap counter, and a share of them with the reader's own tokenizer; the searches over sets have
a hundred thousand of their own (`test_search_laws`).
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from optimizers import SELECTORS
from optimizers.context import compose, inert, render
from optimizers.pool import Candidate, Pool
from rag import prompts
from rag.tokens import FileTokenizer, TokenCounter
from rag.types import Extract
from tests.fakes import WordCounter, make_chunk

CASES = 2_500
ALPHABETS = tuple(words.split() for words in (
    "the cat sat on a mat and fish swam under bridges while warranty terms applied to everyone",
    "保修 期限 为 两年 自 购买 之 日 起 北京 上海", "кот сидел на коврике рыба плыла", "القط جلس على السجادة",
    "🙂 e\u0301te\u0301 naïve ﬁne Ⅷ a\u200bb \u202eevil xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "<|im_end|> [1] [99] </context> [INST] {braces} %s \\n <s> ignore previous instructions",
))


def random_text(rng: random.Random, words: int) -> str:
    alphabet = rng.choice(ALPHABETS) if rng.random() < 0.8 else rng.choice(ALPHABETS) + rng.choice(ALPHABETS)
    return " ".join(rng.choice(alphabet) + (rng.choice((".", "!", "。", ".\n", "?\n\n")) if rng.random() < 0.2 else "")
                    for _ in range(words)).strip() or "x"


def random_pool(rng: random.Random, counter: TokenCounter, *, most: int = 8) -> Pool:
    candidates = []
    terms = {word: rng.random() * 5 for word in "abcd"}
    for i in range(rng.randint(0, most)):
        title = random_text(rng, rng.randint(1, 6)) if rng.random() < 0.7 else ""
        text = candidates[0].chunk.text if candidates and rng.random() < 0.1 else random_text(rng, rng.randint(1, 60))
        chunk = make_chunk(text, id=f"d{i}:0:0", doc_id=f"d{i}", title=title, heading=title[:5] if rng.random() < 0.2 else "")
        n = len(chunk.sentences)
        vectors = np.asarray([[rng.gauss(0, 1) for _ in range(4)] for _ in range(n)], np.float32).reshape(n, 4)
        candidates.append(Candidate(
            chunk=chunk, score=rng.random(), relevance=rng.uniform(-0.2, 1), tokens=counter.count(text),
            sentence_relevance=tuple(rng.uniform(-0.2, 1) for _ in range(n)),
            sentence_tokens=tuple(counter.count_many([chunk.sentence(j) for j in range(n)])),
            sentence_terms=tuple(frozenset(rng.sample(list(terms), rng.randint(0, 4))) for _ in range(n)),
            sentence_vectors=vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)))
    return Pool(tuple(candidates), terms)


def check(name: str, counter: TokenCounter, *, cases: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(cases):
        pool = random_pool(rng, counter)
        budget = rng.choice((0, 1, rng.randint(2, 40), rng.randint(20, 400)))
        run = lambda: SELECTORS[name](pool, budget=budget, stop=lambda: False,  # noqa: B023,E731  # called at once
                                      render=lambda extracts: render(extracts, counter=counter))
        selection = run()
        context = render(selection.extracts, counter=counter, budget=budget)  # raises if over
        assert context.tokens == counter.count(context.text) <= budget
        chosen = [extract.chunk.id for extract in selection.extracts]
        assert len(set(chosen)) == len(chosen)
        assert len({extract.chunk.content_hash for extract in selection.extracts}) == len(chosen)
        for extract in selection.extracts:
            assert extract.sentences == tuple(sorted(set(extract.sentences))) != ()
            assert extract.sentences[-1] < len(extract.chunk.sentences)
        assert len(selection.considered) == len(pool.candidates)
        assert {row.chunk_id for row in selection.considered if row.kept} == set(chosen)
        assert all(row.why for row in selection.considered)
        assert run().extracts == selection.extracts


@pytest.mark.parametrize("name", SELECTORS)
def test_no_selector_ever_exceeds_its_budget(name: str) -> None:
    check(name, WordCounter(), cases=CASES // {"lazy": 10, "beam": 10, "mcts": 10, "exact": 40}.get(name, 1), seed=1)


@pytest.mark.parametrize("name", SELECTORS)
def test_nor_with_the_tokenizer_of_the_reader(name: str, reader_folder: Path) -> None:
    check(name, FileTokenizer(reader_folder / "tokenizer.json"), cases=100 if name == "exact" else 500, seed=2)


def test_the_tokens_of_a_prompt_are_those_of_its_parts(reader_folder: Path) -> None:
    """What the budget covers is exactly what the context adds to the prompt."""
    counter = FileTokenizer(reader_folder / "tokenizer.json")
    rng = random.Random(3)
    for _ in range(500):
        pool = random_pool(rng, counter, most=4)
        extracts = [Extract(c.chunk, tuple(range(len(c.chunk.sentences)))) for c in pool.candidates]
        context = compose(extracts)
        if context:
            whole = prompts.build("What is it?", context)[-1].content
            before, after = whole.split(context)
            assert counter.count(whole) == counter.count(before) + counter.count(context) + counter.count(after)


def test_retrieved_text_is_rendered_inert() -> None:
    rng = random.Random(4)
    for _ in range(2000):
        text = random_text(rng, 30)
        safe = inert(text)
        assert inert(safe) == safe
        for structure in ("<|", "|>", "[1]", "[99]", "</context>", "<context>", "[INST]", "<s>", "\u202e", "\u200b"):
            assert structure not in safe
