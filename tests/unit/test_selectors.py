"""Selectors by example: what they take, what they leave, and where they stop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval.datasets import Question, load
from optimizers import SELECTORS, relevance, steps
from optimizers.adagres import AdagresSettings, redundancy_weight
from optimizers.context import render
from optimizers.mmr import choose_by_mmr
from optimizers.pool import Candidate, Pool, Unit, units
from optimizers.training import relevance as training
from optimizers.training.steps import before_the_last
from optimizers.vectors import mean_likeness
from rag.types import Context, Extract, Led, Selection
from tests.fakes import WordCounter, make_chunk

COUNTER = WordCounter()


def candidate(text: str, *cosines: float, name: str = "d", chunk_cosine: float | None = None,
              vectors: Sequence[Sequence[float]] | None = None, terms: Sequence[str] = ()) -> Candidate:
    chunk = make_chunk(text, id=f"{name}:0:0", doc_id=name)
    assert len(chunk.sentences) == len(cosines)
    own = np.eye(32, dtype=np.float32)[[hash_of(name) + i for i in range(len(cosines))]]
    return Candidate(chunk=chunk, score=1.0, relevance=max(cosines) if chunk_cosine is None else chunk_cosine,
                     sentence_relevance=cosines,
                     sentence_tokens=tuple(COUNTER.count(chunk.sentence(i)) for i in range(len(cosines))),
                     sentence_terms=tuple(frozenset(t for t in terms if t in chunk.sentence(i)) for i in range(len(cosines))),
                     sentence_vectors=own if vectors is None else np.asarray(vectors, np.float32), tokens=COUNTER.count(text))


def hash_of(name: str) -> int:
    return sum(map(ord, name)) * 7 % 24


def select(name: str, pool: Pool, budget: int) -> Selection:
    return SELECTORS[name](pool, budget=budget, stop=lambda: False, render=lambda extracts: render(extracts, counter=COUNTER))


def rendered(extracts: Sequence[Extract]) -> Context:
    return render(extracts, counter=COUNTER)


def kept(selection: Selection) -> list[tuple[str, tuple[int, ...]]]:
    return [(extract.chunk.doc_id, extract.sentences) for extract in selection.extracts]


def test_rank_order_fill_cuts_the_last_chunk_at_a_sentence() -> None:
    pool = Pool((candidate("One two three. Four five six.", .1, .1, name="a"),
                 candidate("Seven eight. Nine ten.", .9, .9, name="b")), {})
    # [1] and newline are 4 tokens, each chunk's last newline 1.
    assert kept(select("topk", pool, 13)) == [("a", (0, 1))]
    assert kept(select("topk", pool, 13 + 8)) == [("a", (0, 1)), ("b", (0,))]
    assert kept(select("topk", pool, 9)) == [("a", (0,))]
    assert kept(select("topk", pool, 8)) == []
    rows = select("topk", pool, 9).considered
    assert (rows[0].why, rows[1].why) == ("1 of 2 sentences", "the budget was full")


def test_similarity_takes_the_nearest_sentences_wherever_they_stand() -> None:
    pool = Pool((candidate("Far away. Very near indeed.", .1, .8, name="a"),
                 candidate("Also near. Nothing here.", .7, .0, name="b")), {})
    assert kept(select("sentences", pool, 17)) == [("a", (1,)), ("b", (0,))]


def test_a_repeated_chunk_enters_once_and_the_trace_says_why() -> None:
    same = "The very same sentence."
    pool = Pool((candidate(same, .8, name="a"), candidate(same, .8, name="b")), {})
    for name in SELECTORS:
        selection = select(name, pool, 100)
        assert kept(selection) == [("a", (0,))], name
        assert selection.considered[1].why == "same text as candidate 1", name


def test_greedy_stops_when_the_next_sentence_is_not_worth_its_tokens() -> None:
    good = candidate("Kettle warranty lasts years.", .9, name="a", terms=("Kettle", "warranty"))
    filler = [candidate(f"Unrelated filler number {i} about nothing.", .05, name=chr(98 + i)) for i in range(8)]
    pool = Pool((good, *filler), {"Kettle": 3.0, "warranty": 3.0})
    assert kept(select("greedy", pool, 500)) == [("a", (0,))]
    assert len(select("topk", pool, 500).extracts) > 3


def test_greedy_covers_both_halves_of_a_question() -> None:
    first = candidate("The film was directed by Lee.", .7, name="a", terms=("film", "directed"))
    echo = candidate("The film was also directed by Lee.", .69, name="b", terms=("film", "directed"))
    second = candidate("Lee was born in Taiwan.", .6, name="c", terms=("born",))
    pool = Pool((first, echo, second), {"film": 1.0, "directed": 2.0, "born": 6.0})
    assert {doc for doc, _ in kept(select("greedy", pool, 25))} >= {"c"}


def test_greedy_never_takes_a_near_duplicate() -> None:
    pool = Pool((candidate("Otters hold hands when asleep.", .9, name="a", vectors=[[1, 0]]),
                 candidate("Otters hold hands while asleep.", .89, name="b", vectors=[[.999, .04]])), {})
    assert kept(select("greedy", pool, 100)) == [("a", (0,))]


def test_whole_chunks_in_rank_order_stop_at_the_first_that_does_not_fit() -> None:
    pool = Pool((candidate("One two three.", .1, name="a"),
                 candidate("Far too long a chunk. It has two sentences.", .9, .9, name="b"),
                 candidate("Five six.", .9, name="c")), {})
    found = select("topk_whole", pool, 9 + 8)
    assert kept(found) == [("a", (0,))]
    assert [row.why for row in found.considered] == [
        "whole", "its 11 tokens, mark and heading did not fit into the 8 that were left", "a better candidate did not fit"]
    assert kept(select("topk_whole", pool, 9 + 16 + 8)) == [("a", (0,)), ("b", (0, 1)), ("c", (0,))]


def test_mmr_prefers_what_is_new_to_what_repeats() -> None:
    pool = Pool((candidate("Otters hold hands when asleep.", .9, name="a", vectors=[[1, 0]]),
                 candidate("Otters hold hands while asleep.", .8, name="b", vectors=[[.9, .436]]),
                 candidate("They live in rivers.", .5, name="c", vectors=[[0, 1]])), {})
    # After a, b is worth .7 * .8 - .3 * .9 = .29 and c .7 * .5 = .35.
    assert [doc for doc, _ in kept(select("mmr", pool, 100))] == ["a", "c", "b"]
    strict = choose_by_mmr(pool, budget=100, render=rendered, stop=lambda: False, weight=0.8)
    assert [doc for doc, _ in kept(strict)] == ["a", "b", "c"]      # .64 - .18 against .4
    by_relevance = choose_by_mmr(pool, budget=100, render=rendered, stop=lambda: False, weight=1.0)
    assert [doc for doc, _ in kept(by_relevance)] == ["a", "b", "c"]
    assert [doc for doc, _ in kept(select("mmr", pool, 21))] == ["a", "c"]


def test_the_knapsack_gives_up_the_best_chunk_for_two_that_are_worth_more() -> None:
    pool = Pool((candidate("The best chunk of all is also by far the longest.", .9, name="a"),
                 candidate("Short and good.", .5, name="b"), candidate("Nearly as good.", .5, name="c"),
                 candidate("Not it.", -.1, name="d")), {})
    found = select("knapsack", pool, 18)
    assert kept(found) == [("b", (0,)), ("c", (0,))]
    assert found.utility == pytest.approx(1.0)
    assert [row.why for row in found.considered] == [
        "other candidates were worth more for the same tokens", "whole", "whole", "it is not relevant"]
    assert kept(select("knapsack", pool, 17)) == [("a", (0,))]


def test_the_knapsack_is_no_greedy_choice_by_relevance_per_token() -> None:
    # Per token the first is best, and the two others together are better.
    pool = Pool((candidate("One two three four five.", .6, name="a"), candidate("One two three four.", .5, name="b"),
                 candidate("Six seven eight nine.", .5, name="c")), {})
    assert [doc for doc, _ in kept(select("knapsack", pool, 20))] == ["b", "c"]


def test_adagres_stops_where_redundancy_outweighs_relevance() -> None:
    pool = Pool((candidate("Otters hold hands when asleep.", .9, name="a", vectors=[[1, 0]]),
                 candidate("Otters hold hands while asleep.", .8, name="b", vectors=[[.9, .436]]),
                 candidate("They live in rivers.", .5, name="c", vectors=[[0, 1]])), {})
    assert [doc for doc, _ in kept(select("adagres", pool, 100))] == ["a", "b", "c"]    # room for many: little penalty
    assert [doc for doc, _ in kept(select("adagres", pool, 40))] == ["a", "c", "b"]
    tight = select("adagres", pool, 13)
    assert [doc for doc, _ in kept(tight)] == ["a"]


def test_the_weight_of_redundancy_by_hand() -> None:
    rows = np.asarray([[1, 0], [.6, .8], [-.6, .8]])
    between = (.6 + 0 + .28) / 3        # the first and the last point away from each other
    assert mean_likeness(rows) == pytest.approx(between)
    assert mean_likeness(rows[:1]) == 0
    assert redundancy_weight(.7, between, expected=5) == pytest.approx(.7 / (0.5 * 4 * between), rel=1e-5)
    changed = AdagresSettings(kappa=1.0, scale=2.0, shift=-0.1)
    assert redundancy_weight(.7, between, expected=5, settings=changed) == pytest.approx(2 * .7 / (4 * between) - 0.1, rel=1e-5)
    assert redundancy_weight(.7, between, expected=0.5) > 1e5     # room for less than one: one, and no second
    assert redundancy_weight(.7, between, expected=5, settings=AdagresSettings(shift=-9)) == 0


def test_adagres_leaves_out_what_says_the_same_again() -> None:
    same = [candidate(f"Otters hold hands, says source {name}.", .8, name=name, vectors=[[1, 0]]) for name in "bcd"]
    pool = Pool((candidate("They live in rivers.", .9, name="a", vectors=[[0, 1]]), *same), {})
    found = select("adagres", pool, 34)
    assert kept(found) == [("a", (0,)), ("b", (0,))]
    assert found.considered[2].why == "its redundancy outweighs its relevance"


@pytest.mark.parametrize("name", ["topk_whole", "mmr", "knapsack", "adagres", "carrot"])
def test_a_pool_of_which_no_chunk_fits_whole_gives_an_empty_choice_with_reasons(name: str) -> None:
    pool = Pool((candidate("Otters hold hands when they sleep.", .9, name="a"),
                 candidate("Another long one, says the book.", .8, name="b")), {})
    found = select(name, pool, 10)
    assert found.extracts == ()
    assert "7 tokens, mark and heading" in found.considered[0].why
    assert kept(select(name, pool, 12)) == [("a", (0,))]


@pytest.mark.parametrize("name", SELECTORS)
def test_an_empty_pool_and_a_caller_that_stops_choose_nothing(name: str) -> None:
    assert select(name, Pool((), {}), 100).extracts == ()
    pool = Pool((candidate("Otters hold hands.", .9),), {})
    stopped = SELECTORS[name](pool, budget=100, stop=lambda: True, render=lambda extracts: render(extracts, counter=COUNTER))
    assert stopped.extracts == ()


def test_features_by_hand() -> None:
    pool = Pool((candidate("Kettle here. Tea there.", .5, .25, name="a", chunk_cosine=.6, terms=("Kettle", "Tea")),
                 candidate("Nothing else.", .1, name="b", chunk_cosine=.2)), {"Kettle": 3.0, "Tea": 1.0})
    assert relevance.features(pool) == pytest.approx(np.asarray([
        [.5, .6, 1.0, .75, 0.0, 0.0, 0.0, 2 / 12, 0, 0], [.25, .6, 1.0, .25, 0.0, 0.0, .25, 2 / 12, 0, 0],
        [.1, .2, 0.0, 0.0, np.log(2), .4, 0.0, 2 / 12, 0, 0]]))
    asked = replace(pool, question="How many kettles are here?")
    assert relevance.features(asked)[:, 7:] == pytest.approx(np.asarray([[1 / 12, 1, 0], [2 / 12, 1, 0], [2 / 12, 1, 0]]))
    assert list(relevance.chances(pool)) == units(pool)


def test_the_shipped_weights_fit_the_features() -> None:
    stored = json.loads(relevance.WEIGHTS.read_text(encoding="utf-8"))
    assert [tuple(each["features"]) for each in stored["models"]] == [relevance.PLAIN, relevance.READ, relevance.LED]
    for each in stored["models"]:
        assert len(each["weights"]) == len(each["features"])
        assert each["fitted_on"]


def test_what_leads_to_a_passage_raises_its_chance_where_the_question_takes_two_steps() -> None:
    first = candidate("Blood Lane is a film by Ilmar Vant.", .6, name="a")
    other, plain = (candidate("Ilmar Vant was born in Tartu.", .2, name=name) for name in "bc")
    led = replace(other, led=Led(linked=1.0, rare=0.5, named=0.9, by=first.chunk.id))
    hops = "Where was the director of the film Blood Lane, which Ann Reed wrote, born?"
    simple = "who made the film about blood"
    assert steps.chance(hops) > 0.8 > 0.1 > steps.chance(simple)
    for question, least, most in ((hops, 2.0, 9.0), (simple, 0.0, 0.4)):
        without = relevance.chances(Pool((first, plain), {}, question=question))
        found = relevance.chances(Pool((first, led), {}, question=question))
        gained, other_gained = (np.log(found[unit] / (1 - found[unit])) - np.log(without[unit] / (1 - without[unit]))
                                for unit in (Unit(1, 0), Unit(0, 0)))
        assert least < gained - other_gained < most
    assert relevance.led_features(Pool((first, led), {}, question=hops)) == pytest.approx(
        np.asarray([[0, 0, 0, 0], [1, 0, .5, .9]]) * steps.chance(hops))


def test_a_question_is_read_by_its_form() -> None:
    assert steps.features("Where was the maker of Blood Lane and Ann's film, which won, born?") == (1.3, 0.5, 1.0, 1.0, 1.0)
    assert steps.features("") == (0.0,) * 5
    assert steps.features("谁导演了红高粱?") == (0.1, 0.0, 0.0, 0.0, 0.0)


def test_training_asks_questions_of_several_steps_before_their_last(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": "a", "title": "", "text": "Ada built it."}\n')
    rows = [{"id": "1", "question": "How many letters has its builder?", "answers": ["3"], "evidence": ["a"], "type": "steps",
             "previous_question": "Who built it?", "previous_answer": "Ada"},
            {"id": "2", "question": "Who?", "answers": ["Ada"], "evidence": ["a"], "type": "one"}]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = load(tmp_path).questions
    assert [(each.text, each.answers) for each in before_the_last(tmp_path, questions)] == [("Who built it?", ("Ada",)),
                                                                                           ("Who?", ("Ada",))]


def test_the_third_model_is_taught_what_the_others_say() -> None:
    read = replace(candidate("One two. Three four.", .5, .25, name="a"), sentence_answers=(1.0, -1.0))
    pool = Pool((read, candidate("Five six.", .1, name="b")), {}, question="who is it")
    data = training.labelled("made up", [(pool, Question(id="1", text="who is it", answers=("Five",), evidence=("b",), type="x"))])
    models = {name: relevance.model(names) for name, names in (("plain", relevance.PLAIN), ("read", relevance.READ))}
    [(rows, labels)] = data.of("led", models)
    assert labels.tolist() == [0, 0, 1]
    assert data.candidates == [[0, 0, 1]]
    # Nothing leads anywhere: the chances are those of the first two models.
    assert 1 / (1 + np.exp(-rows[:, 0])) == pytest.approx(list(relevance.chances(pool).values()))
    right, wrong = training.best_of([(rows, labels)], data.candidates, np.asarray([1.0, 0, 0, 0, 0]), 0.0)
    assert (right, wrong) == ([pytest.approx(relevance.chances(pool)[Unit(1, 0)])],
                              [pytest.approx(max(relevance.chances(pool)[Unit(0, i)] for i in (0, 1)))])


def test_fitting_recovers_known_weights() -> None:
    rng = np.random.default_rng(5)
    truth, bias = np.asarray([2.0, -1.0, 0.5, 0.0, 0.0, 1.5]), -0.5
    x = rng.normal(size=(20_000, 6))
    y = (rng.random(20_000) < 1 / (1 + np.exp(-(x @ truth + bias)))).astype(float)
    weights, found = training.fit([[(x, y)]])
    assert weights == pytest.approx(truth, abs=0.1)
    assert found == pytest.approx(bias, abs=0.1)
    assert training.calibration_error([(x, y)], weights, found) < 0.02
    assert training.calibration_error([(x, y)], weights, found + 3) > 0.2
    assert training.hit_rates([(x[:50], y[:50]), (x[50:99], np.zeros(49))], weights, found)[-1] == 0.5
