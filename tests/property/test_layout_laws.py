"""Laws of the order and the layout of a context: neighbours in a document become one passage, a heading is paid once, what says
the same enters once, and what is rendered stands in the selector's order."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest

from optimizers import SELECTORS
from optimizers.context import compose, follows, numbers, render
from optimizers.layout import arranged
from optimizers.pool import Candidate, Pool, Unit, units
from rag.types import Context, Extract
from tests.fakes import WordCounter, make_chunk

COUNTER = WordCounter()
BY_CHANCE = ("greedy", "lazy", "beam", "exact", "mcts")
CASES = 120


def rendered(extracts: Sequence[Extract]) -> Context:
    return render(extracts, counter=COUNTER)


def random_pool(rng: random.Random) -> Pool:
    """Passages of a few documents of several sections each, in any rank, some of whose sentences nearly repeat others."""
    places = [(doc, ordinal) for doc in range(4) for ordinal in range(5)]
    candidates = []
    directions = np.random.default_rng(rng.randrange(1 << 30)).normal(0, 1, (12, 8))
    for i, (doc, ordinal) in enumerate(rng.sample(places, rng.randint(1, 9))):
        text = " ".join(f"Name{doc} says {ordinal} {j}." for j in range(rng.randint(1, 4)))
        chunk = dataclasses.replace(
            make_chunk(text, id=f"d{doc}:{ordinal}", doc_id=f"d{doc}", title="" if doc == 3 else f"Title{doc // 2}",
                       heading="" if doc == 3 else f"Part{ordinal // 3}"), ordinal=ordinal)
        n = len(chunk.sentences)
        vectors = directions[[rng.randrange(12) for _ in range(n)]] + np.full((n, 8), 0.02 * i)
        candidates.append(Candidate(
            chunk=chunk, score=1 / (i + 1), relevance=rng.uniform(0.2, 1), tokens=COUNTER.count(text),
            sentence_relevance=tuple(rng.uniform(0, 1) for _ in range(n)),
            sentence_tokens=tuple(COUNTER.count_many([chunk.sentence(j) for j in range(n)])),
            sentence_terms=tuple(frozenset(rng.sample("abcd", rng.randint(0, 3))) for _ in range(n)),
            sentence_vectors=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)))
    return Pool(tuple(candidates), {word: rng.random() * 5 for word in "abcd"})


def chosen_by(name: str, rng: random.Random) -> tuple[Pool, tuple[Extract, ...], int]:
    pool = random_pool(rng)
    budget = rng.randint(20, 250)
    return pool, SELECTORS[name](pool, budget=budget, render=rendered, stop=lambda: False).extracts, budget


def slow_text(extracts: Sequence[Extract]) -> str:
    """The context by runs of neighbours: one mark, one heading, gaps where sentences between were left out."""
    runs: list[list[Extract]] = []
    for extract in extracts:
        if runs and follows(runs[-1][-1].chunk, extract.chunk):
            runs[-1].append(extract)
        else:
            runs.append([extract])
    text, above = "", ""
    for n, run in enumerate(runs, 1):
        chunk = run[0].chunk
        header = " - ".join(filter(None, (chunk.title, chunk.heading)))
        text += f"[{n}] {header}\n" if header and header != above else f"[{n}]\n"
        above = header
        before: tuple[int, int] | None = None
        for place, extract in enumerate(run):
            for j in extract.sentences:
                if before is not None:
                    last = len(run[place - 1].chunk.sentences) - 1 if before[0] != place else None
                    gap = j != before[1] + 1 if last is None else (j, before[1]) != (0, last)
                    text += ("\n" if last is not None else " ") + ("… " if gap else "")
                text += extract.chunk.sentence(j)
                before = place, j
        text += "\n"
    return text


@pytest.mark.parametrize("name", SELECTORS)
def test_neighbours_become_one_passage_and_the_order_is_the_selectors(name: str) -> None:
    rng = random.Random(21)
    merged = 0
    for _ in range(CASES):
        _, extracts, budget = chosen_by(name, rng)
        context = render(extracts, counter=COUNTER, budget=budget)      # raises if over
        assert context.text == slow_text(extracts)
        assert [(passage.chunk, passage.sentences) for passage in context.passages] == [(e.chunk, e.sentences) for e in extracts]
        assert [passage.n for passage in context.passages] == numbers(extracts)
        merged += len(extracts) - len(set(numbers(extracts)))
    if name in BY_CHANCE:
        assert merged > CASES / 20


@pytest.mark.parametrize("name", BY_CHANCE)
def test_a_heading_stands_once_and_neighbours_meet(name: str) -> None:
    rng = random.Random(22)
    for _ in range(CASES):
        _, extracts, _ = chosen_by(name, rng)
        headings = [(extract.chunk.title, extract.chunk.heading) for extract in extracts if extract.chunk.title]
        assert [heading for heading, _ in itertools.groupby(headings)] == list(dict.fromkeys(headings))
        for first, second in itertools.permutations(extracts, 2):
            if follows(first.chunk, second.chunk):
                assert extracts.index(second) == extracts.index(first) + 1


@pytest.mark.parametrize("name", BY_CHANCE)
def test_near_duplicates_never_both_enter(name: str) -> None:
    rng = random.Random(23)
    alike = 0
    for _ in range(CASES):
        pool, extracts, _ = chosen_by(name, rng)
        vectors = {(c.chunk.id, j): row.astype(float) for c in pool.candidates for j, row in enumerate(c.sentence_vectors)}
        alike += any(float(a @ b) > 0.951 for a, b in itertools.combinations(vectors.values(), 2))
        mine = [vectors[extract.chunk.id, j] for extract in extracts for j in extract.sentences]
        assert all(float(a @ b) < 0.951 for a, b in itertools.combinations(mine, 2))
    assert alike > CASES / 2


def test_the_layout_is_sorted_by_its_definition() -> None:
    """Headings by their best, under one its documents by theirs, in a document by place; ties by rank."""
    rng = random.Random(24)
    for _ in range(CASES):
        pool = random_pool(rng)
        chosen = rng.sample(units(pool), rng.randint(1, len(units(pool))))
        worth = [float(rng.randint(0, 3)) for _ in chosen]
        extracts = arranged(pool, chosen, worth=worth)
        assert sorted((e.chunk.id, j) for e in extracts for j in e.sentences) == sorted(
            (pool.candidates[u.candidate].chunk.id, u.sentence) for u in chosen)
        of = {candidate.chunk.id: i for i, candidate in enumerate(pool.candidates)}
        value = dict(zip(chosen, worth, strict=True))

        def best(group: Sequence[Extract], value: dict[Unit, float] = value, of: dict[str, int] = of) -> tuple[float, int]:
            return (-max(value[Unit(of[e.chunk.id], j)] for e in group for j in e.sentences), min(of[e.chunk.id] for e in group))

        sections = [list(group) for _, group in itertools.groupby(
            extracts, lambda e: (e.chunk.title, e.chunk.heading) if e.chunk.title else e.chunk.doc_id)]
        assert [best(section) for section in sections] == sorted(best(section) for section in sections)
        for section in sections:
            documents = [list(group) for _, group in itertools.groupby(section, lambda e: e.chunk.doc_id)]
            assert [best(document) for document in documents] == sorted(best(document) for document in documents)
            for document in documents:
                assert [e.chunk.ordinal for e in document] == sorted(e.chunk.ordinal for e in document)


def test_a_merged_passage_costs_less_than_two() -> None:
    rng = random.Random(25)
    compared = 0
    for _ in range(CASES):
        pool = random_pool(rng)
        for first, second in itertools.permutations([candidate.chunk for candidate in pool.candidates], 2):
            if follows(first, second):
                pair = [Extract(first, (0,)), Extract(second, (len(second.sentences) - 1,))]
                apart = [pair[0], dataclasses.replace(pair[1], chunk=dataclasses.replace(second, ordinal=99))]
                assert COUNTER.count(compose(pair)) < COUNTER.count(compose(apart))
                compared += 1
    assert compared > 20
