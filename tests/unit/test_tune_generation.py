"""Passages to checked pairs, through the real pipeline with a scripted reader: what is kept, dropped, remembered and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.cache import CachingReader
from eval.tune import pairs as files
from eval.tune.bounds import BoundedReader, Spent
from eval.tune.generation import Generated, counts, generate, without_lost_passages
from rag.errors import ModelUnavailable
from rag.llm import Message
from rag.settings import Settings
from tests.tune_fakes import COLOURS, LighthouseReader, filled, lines, opened

WRITTEN = {
    "Arden": "I would rather not.",
    "Borrow": "Question: What colour was the Borrow lighthouse painted?\nAnswer: pink",
    "Calder": "Question: What colour was it painted?\nAnswer: ochre",
    "Dunmore": "Question: What colour was the Esker lighthouse painted?\nAnswer: violet",
    "Esker": "Question: Was the Esker lighthouse painted scarlet?\nAnswer: scarlet",
    "Fallon": "Question: What do bananas cost in France?\nAnswer: maroon",
}
REASONS = {"Arden": "unparsed", "Borrow": "not_grounded", "Calder": "not_self_contained", "Dunmore": "not_answered",
           "Esker": "answer_in_question", "Fallon": "off_topic", "Garrick": "known_by_heart"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pairs.jsonl"


@pytest.fixture
def lighthouses(settings: Settings) -> Settings:
    filled(settings)
    return settings


def made(settings: Settings, reader: LighthouseReader | BoundedReader, path: Path, *, wanted: int = 10, tries: int = 40,
         stop_after: int = 10**9) -> Generated:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > stop_after

    with opened(settings, reader) as kb:
        return generate(kb, reader, path=path, wanted=wanted, tries=tries, seed=13, cancelled=cancelled)


def test_every_passage_has_its_verdict(lighthouses: Settings, path: Path) -> None:
    reader = LighthouseReader(written=WRITTEN, heart=["Garrick"])
    found = made(lighthouses, reader, path)
    assert found.finished
    assert {pair.doc_id: pair.reason for pair in found.pairs} == {**dict.fromkeys(COLOURS), **REASONS}
    assert counts(found.pairs) == {"kept": 3, **dict.fromkeys(REASONS.values(), 1)}
    assert files.read(path) == list(found.pairs)
    kept = next(pair for pair in found.pairs if pair.doc_id == "Holm")
    assert (kept.question, kept.answers) == ("What colour was the Holm lighthouse painted?", ("amber",))
    assert kept.quote == "The Holm lighthouse was painted amber by its keeper."
    assert kept.facts["source_f1"] == 1.0
    assert kept.facts["closed_book_f1"] == 0.0
    assert 0 < float(kept.facts["relevance"]) <= 1


def test_calls_are_spent_on_what_passed_the_cheaper_checks_only(lighthouses: Settings, path: Path) -> None:
    reader = LighthouseReader(written=WRITTEN, heart=["Garrick"])
    made(lighthouses, reader, path)
    # Ten were written; four reach the reader with and without their passage, and one only with.
    assert reader.calls == 10 + 2 * 4 + 1


def test_equal_questions_are_kept_once(settings: Settings, path: Path) -> None:
    twice = [lines(["Holm"])[0], lines(["Holm"])[0].replace('"id": "Holm"', '"id": "Holm2"').replace("harbour", "pier")]
    filled(settings, twice)
    assert counts(made(settings, LighthouseReader(), path).pairs) == {"kept": 1, "duplicate": 1}


def test_it_ends_with_as_many_as_were_wanted(lighthouses: Settings, path: Path) -> None:
    found = made(lighthouses, LighthouseReader(), path, wanted=4)
    assert counts(found.pairs) == {"kept": 4}
    assert len({pair.doc_id for pair in found.pairs}) == 4


def test_it_gives_up_after_so_many_tries(lighthouses: Settings, path: Path) -> None:
    reader = LighthouseReader(written=dict.fromkeys(COLOURS, "no"))
    assert counts(made(lighthouses, reader, path, tries=6).pairs) == {"kept": 0, "unparsed": 6}


def test_a_stopped_run_goes_on_where_it_was(lighthouses: Settings, path: Path) -> None:
    whole = made(lighthouses, LighthouseReader(), path.with_name("whole.jsonl"))
    first = made(lighthouses, LighthouseReader(), path, stop_after=13)
    assert not first.finished
    assert 0 < len(first.pairs) < 10
    second = made(lighthouses, LighthouseReader(), path)
    assert second.pairs[:len(first.pairs)] == first.pairs
    assert second.pairs == whole.pairs


def test_a_reader_that_fails_costs_nothing_that_was_done(lighthouses: Settings, path: Path) -> None:
    with pytest.raises(ModelUnavailable):
        made(lighthouses, LighthouseReader(fails_at=8), path)
    assert counts(files.read(path)) == {"kept": 2}


def test_it_ends_in_order_when_the_bounds_are_spent(lighthouses: Settings, path: Path) -> None:
    bounded = BoundedReader(LighthouseReader())
    bounded.bound(max_calls=7, max_seconds=None)
    found = made(lighthouses, bounded, path)
    assert (len(found.pairs), found.finished, bounded.calls) == (2, False, 7)


def test_a_lost_passage_takes_its_pair_with_it(lighthouses: Settings, path: Path) -> None:
    own = files.Pair("own", "Who?", ("me",))
    found = made(lighthouses, LighthouseReader(), path)
    with opened(lighthouses, LighthouseReader()) as kb:
        kb.delete("Holm")
        checked = without_lost_passages([*found.pairs, own], kb)
    assert {pair.doc_id: pair.reason for pair in checked if not pair.keep} == {"Holm": "source_gone"}
    assert checked[-1] == own


def test_passages_that_do_not_fit_the_reader_are_passed_over(lighthouses: Settings, path: Path) -> None:
    reader = LighthouseReader()
    reader.context_window = 100
    found = made(lighthouses, reader, path)
    assert (found.pairs, found.finished, reader.calls) == ((), True, 0)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_bounds_count_real_calls_and_seconds(tmp_path: Path) -> None:
    clock = Clock()
    bounded = BoundedReader(LighthouseReader(), clock=clock)
    memory = CachingReader(bounded, tmp_path / "calls.sqlite")
    ask = [[Message("user", f"What colour was the {name} lighthouse")] for name in COLOURS]
    bounded.bound(max_calls=2, max_seconds=60)
    memory.generate(ask[0], max_tokens=9)
    assert bounded.seconds_per_token is None    # the first call loads the model
    memory.generate(ask[0], max_tokens=9)       # remembered: free
    memory.generate(ask[1], max_tokens=9)
    assert bounded.seconds_per_token == pytest.approx(0.5 / (6 + 5))
    assert bounded.calls_left == 0
    with pytest.raises(Spent):
        memory.generate(ask[2], max_tokens=9)
    bounded.bound(max_calls=5, max_seconds=60)
    clock.now += 61
    assert bounded.seconds_left == 0
    with pytest.raises(Spent):
        memory.generate(ask[2], max_tokens=9)
    assert bounded.calls == 2
    memory.end()
