"""A reader call is paid for once; what is remembered is exactly what came back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from eval.cache import CachingReader
from rag.errors import ModelUnavailable, StorageError
from rag.llm import Finish, Generation, Message
from tests.eval_fakes import ScriptedReader

PROMPT = [Message("system", "Answer."), Message("user", "Who? Rollo")]


def test_the_same_call_is_made_once_also_across_openings(tmp_path: Path) -> None:
    inner = ScriptedReader()
    first = CachingReader(inner, tmp_path / "out" / "calls.sqlite")
    original = first.generate(PROMPT, max_tokens=8)
    first.end()
    second = CachingReader(inner, tmp_path / "out" / "calls.sqlite")
    heard: list[str] = []
    assert second.generate(PROMPT, max_tokens=8, on_token=heard.append) == original
    assert (inner.calls, heard, second.hits, second.misses, second.replayed) == (1, ["Rollo"], 1, 0, (1, 2.0))
    second.end()


@pytest.mark.parametrize("change", [{"max_tokens": 9}, {"stop": ("\n",)}, {"messages": PROMPT[1:]}, {"name": "other"},
                                    {"messages": [Message("user", "Answer."), Message("user", "Who? Rollo")]}])
def test_anything_that_can_change_the_answer_makes_another_call(tmp_path: Path, change: dict[str, object]) -> None:
    inner = ScriptedReader()
    reader = CachingReader(inner, tmp_path / "calls.sqlite")
    reader.generate(PROMPT, max_tokens=8)
    other = CachingReader(ScriptedReader(name="other"), tmp_path / "calls.sqlite") if "name" in change else reader
    other.generate(change.get("messages", PROMPT), max_tokens=change.get("max_tokens", 8),  # type: ignore[arg-type]
                   stop=change.get("stop", ()))  # type: ignore[arg-type]
    assert (other.hits, other.misses) == (0, 1 if other is not reader else 2)


@pytest.mark.parametrize(("finish", "kept"), [("stop", True), ("length", True), ("repetition", True), ("deadline", False),
                                              ("cancelled", False)])
def test_what_the_clock_cut_short_is_not_remembered(tmp_path: Path, finish: Finish, kept: bool) -> None:
    class Cut(ScriptedReader):
        def generate(self, *args: object, **options: object) -> Generation:
            return replace(super().generate(*args, **options), finish=finish)  # type: ignore[arg-type]

    reader = CachingReader(Cut(), tmp_path / "calls.sqlite")
    reader.generate(PROMPT, max_tokens=8)
    reader.generate(PROMPT, max_tokens=8)
    assert reader.hits == kept


def test_a_failed_call_is_not_remembered(tmp_path: Path) -> None:
    inner = ScriptedReader()
    inner.fails_on = "Who"
    reader = CachingReader(inner, tmp_path / "calls.sqlite")
    with pytest.raises(ModelUnavailable):
        reader.generate(PROMPT, max_tokens=8)
    inner.fails_on = ""
    assert reader.generate(PROMPT, max_tokens=8).text == "Rollo"


def test_close_by_a_collection_leaves_it_open_and_end_closes_the_reader(tmp_path: Path) -> None:
    inner = ScriptedReader()
    reader = CachingReader(inner, tmp_path / "calls.sqlite")
    reader.close()
    assert not inner.closed
    assert reader.generate(PROMPT, max_tokens=8).text == "Rollo"
    reader.end()
    assert inner.closed


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "calls.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 40)
    with pytest.raises(StorageError, match=r"calls\.sqlite"):
        CachingReader(ScriptedReader(), tmp_path / "calls.sqlite")


def test_a_call_made_beside_others_is_made_again_when_its_seconds_are_wanted(tmp_path: Path) -> None:
    inner = ScriptedReader()
    reader = CachingReader(inner, tmp_path / "calls.sqlite")
    reader.generate(PROMPT, max_tokens=8)
    reader.alone = True
    reader.generate(PROMPT, max_tokens=8)
    reader.generate(PROMPT, max_tokens=8)
    reader.alone = False
    reader.generate(PROMPT, max_tokens=8)
    assert (inner.calls, reader.hits) == (2, 2)


def test_equal_prompts_at_the_same_time_are_one_call(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Slow(ScriptedReader):
        def generate(self, *args: object, **options: object) -> Generation:
            entered.set()
            assert leave.wait(10)
            return super().generate(*args, **options)  # type: ignore[arg-type]

    inner = Slow()
    reader = CachingReader(inner, tmp_path / "calls.sqlite")
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(reader.generate, PROMPT, max_tokens=8)
        assert entered.wait(10)
        others = [pool.submit(reader.generate, PROMPT, max_tokens=8) for _ in range(3)]
        leave.set()
        assert {first.result().text, *(other.result().text for other in others)} == {"Rollo"}
    assert (inner.calls, reader.misses, reader.hits) == (1, 1, 3)


def test_when_the_one_that_asks_fails_the_next_one_asks(tmp_path: Path) -> None:
    inner = ScriptedReader()
    reader = CachingReader(inner, tmp_path / "calls.sqlite")
    inner.fails_on = "Who"
    with ThreadPoolExecutor(4) as pool:
        ended = [pool.submit(reader.generate, PROMPT, max_tokens=8) for _ in range(4)]
    assert all(isinstance(future.exception(), ModelUnavailable) for future in ended)


def test_a_reader_that_comes_back_is_waited_for(tmp_path: Path) -> None:
    inner = ScriptedReader()
    inner.fails_on = "Who"
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            inner.fails_on = ""

    reader = CachingReader(inner, tmp_path / "calls.sqlite", patience_s=60, sleep=sleep)
    assert reader.generate(PROMPT, max_tokens=8).text == "Rollo"
    assert pauses == [1, 2, 4]


def test_a_reader_that_stays_away_is_waited_for_once_and_then_tried_once_a_call(tmp_path: Path) -> None:
    inner = ScriptedReader()
    inner.fails_on = "Who"
    pauses: list[float] = []
    reader = CachingReader(inner, tmp_path / "calls.sqlite", patience_s=1.5, sleep=pauses.append)
    for _ in range(3):
        with pytest.raises(ModelUnavailable):
            reader.generate(PROMPT, max_tokens=8)
    # The clock of the test does not move while it "sleeps": the second pause would pass the patience.
    assert (pauses, inner.calls) == ([1], 4)
    inner.fails_on = ""
    assert reader.generate(PROMPT, max_tokens=8).text == "Rollo"


def test_fresh_runs_forget_what_earlier_ones_kept_but_not_their_own_calls(tmp_path: Path) -> None:
    inner = ScriptedReader()
    CachingReader(inner, tmp_path / "calls.sqlite").generate(PROMPT, max_tokens=8)
    fresh = CachingReader(inner, tmp_path / "calls.sqlite", forgetful=True)
    fresh.generate(PROMPT, max_tokens=8)
    fresh.generate(PROMPT, max_tokens=8)
    assert (inner.calls, fresh.hits) == (2, 1)


def test_readers_of_one_name_at_different_places_are_not_mixed_up(tmp_path: Path) -> None:
    here, there = ScriptedReader(), ScriptedReader(script=("Who",))
    CachingReader(here, tmp_path / "calls.sqlite", identity="m http://a").generate(PROMPT, max_tokens=8)
    other = CachingReader(there, tmp_path / "calls.sqlite", identity="m http://b")
    assert other.generate(PROMPT, max_tokens=8).text == "Who"


class Held(ScriptedReader):
    """Can be held to a schema: says which."""

    def generate_json(self, messages: Sequence[Message], *, schema: Mapping[str, object], max_tokens: int,
                      deadline: float | None = None, cancelled: Callable[[], bool] | None = None) -> Generation:
        return replace(self.generate(messages, max_tokens=max_tokens), text=str(schema["title"]))


def test_calls_with_a_schema_are_remembered_apart(tmp_path: Path) -> None:
    inner = Held()
    reader = CachingReader(inner, tmp_path / "calls.sqlite")
    asked = [reader.generate_json(PROMPT, schema={"title": title}, max_tokens=8).text for title in ("a", "b", "a")]
    assert (asked, inner.calls) == (["a", "b", "a"], 2)
    assert reader.generate(PROMPT, max_tokens=8).text == "Rollo"
    plain = CachingReader(ScriptedReader(), tmp_path / "others.sqlite")
    assert plain.generate_json(PROMPT, schema={"title": "a"}, max_tokens=8).text == "Rollo"
    for each in (reader, plain):
        each.end()
