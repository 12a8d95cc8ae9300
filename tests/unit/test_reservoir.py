"""The store behind memory: what goes in comes out, bounded, dated, owned, and never a wrong byte."""

from __future__ import annotations

import dataclasses
import logging
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from retrievers.reservoir import DAY, FILE, Asked, Case, Knowledge, Reservoir


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def half(*values: float) -> np.ndarray:
    return np.asarray(values, np.float16)


def knowledge(name: str, row: int = 1, title: str = "Kettles") -> Knowledge:
    return Knowledge(chunk_id=name, row=row, content_hash=f"hash of {name}", title=title, below=9,
                     sentences=np.asarray([[1, 0], [0, 1]], np.float16), title_vector=half(0.6, 0.8))


def asked(question: str, *chunks: str) -> Asked:
    return Asked(question=question, vector=half(1, 0), below=9, naive_tokens=500, passes=40, seconds=0.25, knowledge=chunks)


def opened(tmp_path: Path, *, owner: str = "me", limit: int = 100, days: float = 10, clock: Clock | None = None) -> Reservoir:
    return Reservoir(tmp_path / FILE, owner=owner, limit=limit, days=days, clock=clock or Clock())


def numbers(reservoir: Reservoir, table: str, scope: str = "s") -> list[int]:
    return reservoir.since(table, scope, after=0)


def test_what_goes_in_comes_out_and_outlives_the_process(tmp_path: Path) -> None:
    one = opened(tmp_path)
    one.remember("s", asked("Why?", "a", "b"), [knowledge("a"), knowledge("b")], answers={"t": {"text": "so"}})
    one.close()
    two = opened(tmp_path)
    found = two.knowledge(numbers(two, "knowledge"))
    assert {each.chunk_id for each in found.values()} == {"a", "b"}
    back = next(each for each in found.values() if each.chunk_id == "a")
    for field in dataclasses.fields(Knowledge):
        assert np.array_equal(getattr(back, field.name), getattr(knowledge("a"), field.name))
    question = next(iter(two.questions(numbers(two, "questions")).values()))
    assert (question.question, question.knowledge, question.naive_tokens, question.passes) == ("Why?", ("a", "b"), 500, 40)
    assert two.answer("t", "Why?") == {"text": "so"}
    assert two.answer("other", "Why?") is None
    assert numbers(two, "knowledge", "other scope") == []


def test_what_is_told_anew_gets_a_new_number(tmp_path: Path) -> None:
    reservoir = opened(tmp_path)
    reservoir.remember("s", asked("Why?"), [knowledge("a")])
    old = numbers(reservoir, "knowledge")
    reservoir.remember("s", asked("Why?"), [knowledge("a", row=2)])
    new = numbers(reservoir, "knowledge")
    assert len(new) == 1
    assert new != old
    assert reservoir.since("knowledge", "s", after=old[0]) == new
    assert reservoir.knowledge(old) == {}


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    clock = Clock()
    reservoir = opened(tmp_path, limit=8, clock=clock)
    for i in range(8):
        clock.now += 1
        reservoir.remember("s", asked(f"q{i}"), [knowledge(f"c{i}")])
    clock.now += 1
    reservoir.used("knowledge", numbers(reservoir, "knowledge")[:1])
    clock.now += 1
    reservoir.remember("s", asked("q8"), [knowledge("c8")])
    kept = {each.name for each in reservoir.listed("knowledge")}
    assert kept == {"c0", *(f"c{i}" for i in range(2, 9))}
    assert reservoir.listed("knowledge")[0].name == "c8"
    assert next(each for each in reservoir.listed("knowledge") if each.name == "c0").hits == 1


def test_entries_end_by_time_and_prune_gives_back_their_space(tmp_path: Path) -> None:
    clock = Clock()
    reservoir = opened(tmp_path, days=1, clock=clock)
    reservoir.remember("s", asked("Why?"), [knowledge("a")], answers={"t": {"text": "so"}})
    clock.now += DAY - 1
    assert reservoir.answer("t", "Why?") is not None
    clock.now += 2
    assert reservoir.answer("t", "Why?") is None
    assert numbers(reservoir, "knowledge") == [] == reservoir.listed("questions")
    assert reservoir.prune() == 3
    assert reservoir.counts()["knowledge"] == 0


def test_a_clock_turned_back_revives_nothing(tmp_path: Path) -> None:
    clock = Clock()
    reservoir = opened(tmp_path, days=1, clock=clock)
    reservoir.remember("s", asked("Why?"), [knowledge("a")])
    clock.now += 2 * DAY
    reservoir.remember("s", asked("Who?"), [knowledge("b")])
    clock.now -= 1.9 * DAY
    assert {each.name for each in reservoir.listed("knowledge")} == {"b"}


def test_entries_dated_in_the_future_are_forgotten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    ahead = opened(tmp_path, clock=Clock(clock.now + 400 * DAY))
    ahead.remember("s", asked("Why?"), [knowledge("a")])
    ahead.observe("questions", Case("Why?", (1.0,), True))
    ahead.close()
    with caplog.at_level(logging.WARNING):
        back = opened(tmp_path, clock=clock)
    assert numbers(back, "knowledge") == []
    assert "clock" in caplog.text
    back.remember("s", asked("Who?"), [knowledge("b")])
    clock.now += DAY
    assert len(numbers(back, "knowledge")) == 1
    assert [(case.values, case.right) for case in back.observations("questions")] == [((1.0,), True)]


def test_another_owner_reads_nothing_even_of_a_copied_file(tmp_path: Path) -> None:
    mine = opened(tmp_path, owner="tenant a")
    mine.remember("s", asked("Why?"), [knowledge("a")], answers={"t": {"text": "secret"}})
    mine.observe("questions", Case("Why?", (1.0,), True))
    mine.fit("questions", {"bias": 1})
    mine.close()
    theirs = opened(tmp_path, owner="tenant b")
    assert theirs.answer("t", "Why?") is None
    assert numbers(theirs, "knowledge") == [] == theirs.listed("questions")
    assert theirs.observations("questions") == []
    assert theirs.fitted("questions") is None
    assert b"secret" not in (tmp_path / FILE).read_bytes() or theirs.counts()["answers"] == 0


def test_a_record_that_was_tampered_with_is_a_miss(tmp_path: Path) -> None:
    reservoir = opened(tmp_path)
    reservoir.remember("s", asked("Why?"), [knowledge("a"), knowledge("b")], answers={"t": {"text": "so"}})
    with sqlite3.connect(tmp_path / FILE) as db:
        # Another chunk's record under this chunk's name, and an answer of which one byte flipped.
        db.execute("UPDATE knowledge SET record = (SELECT record FROM knowledge WHERE chunk = 'b') WHERE chunk = 'a'")
        record = bytearray(db.execute("SELECT record FROM answers").fetchone()[0])
        record[5] ^= 1
        db.execute("UPDATE answers SET record = ?", (bytes(record),))
    assert {each.chunk_id for each in reservoir.knowledge(numbers(reservoir, "knowledge")).values()} == {"b"}
    assert reservoir.answer("t", "Why?") is None
    assert {each.name for each in reservoir.listed("knowledge")} == {"b"}


def test_an_older_format_is_begun_anew_and_a_newer_one_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened(tmp_path).close()
    for version in (0, 99):
        with sqlite3.connect(tmp_path / FILE) as db:
            db.execute(f"PRAGMA user_version={version}")
        before = (tmp_path / FILE).read_bytes()
        with caplog.at_level(logging.WARNING):
            reservoir = opened(tmp_path)
        reservoir.remember("s", asked("Why?"), [knowledge("a")])
        if version:
            assert not reservoir.usable
            assert numbers(reservoir, "knowledge") == []
            assert (tmp_path / FILE).read_bytes() == before
            assert "newer" in caplog.text
        else:
            assert len(numbers(reservoir, "knowledge")) == 1
            assert (tmp_path / f"{FILE}.damaged").exists()
        reservoir.close()


def test_cases_are_bounded_and_models_replace_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrievers.reservoir.CASES", 3)
    reservoir = opened(tmp_path)
    for i in range(5):
        reservoir.observe("passages", Case(f"q{i}", (float(i), 0.5), i % 2 == 0))
    assert [(case.values, case.right) for case in reservoir.observations("passages")] == [
        ((2.0, 0.5), True), ((3.0, 0.5), False), ((4.0, 0.5), True)]
    reservoir.fit("passages", {"bias": 1})
    reservoir.fit("passages", {"bias": 2})
    assert reservoir.fitted("passages") == {"bias": 2}
    reservoir.fit("passages", None)
    assert reservoir.fitted("passages") is None
    assert reservoir.clear(cases=True) == 0
    assert reservoir.observations("passages") == []


def test_threads_may_write_at_once(tmp_path: Path) -> None:
    one, two = opened(tmp_path, limit=1000), opened(tmp_path, limit=1000)

    def work(reservoir: Reservoir, name: str) -> None:
        for i in range(25):
            reservoir.remember("s", asked(f"{name}{i}"), [knowledge(f"{name}{i}")])
            reservoir.used("knowledge", numbers(reservoir, "knowledge")[:3])

    threads = [threading.Thread(target=work, args=(which, name)) for which, name in ((one, "a"), (one, "b"), (two, "c"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(numbers(one, "knowledge")) == len(numbers(two, "knowledge")) == 75
