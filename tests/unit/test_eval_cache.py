"""A reader call is paid for once; what is remembered is exactly what came back."""

from __future__ import annotations

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
    assert (inner.calls, heard, second.hits, second.misses, second.replayed_s) == (1, ["Rollo"], 1, 0, 2.0)
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
