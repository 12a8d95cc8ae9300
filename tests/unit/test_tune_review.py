"""The review at the terminal, with answers typed for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import typer

from eval.tune.pairs import Pair
from rag.cli.review import review

PAIRS = [Pair("a", "Who led?", ("Rollo",), source="n.txt", quote="Rollo led\x1b[2J."), Pair("b", "Dropped?", ("x",), keep=False),
         Pair("c", "Where?", ("Norway",)), Pair("d", "When?", ("911",))]


def reviewed(monkeypatch: pytest.MonkeyPatch, typed: Sequence[str],
             pairs: Sequence[Pair] = PAIRS) -> tuple[list[Pair], list[list[Pair]]]:
    answers: Iterator[str] = iter(typed)

    def prompt(text: str, *, default: str, show_default: bool, err: bool) -> str:
        try:
            return next(answers) or default
        except StopIteration:
            raise typer.Abort from None

    monkeypatch.setattr(typer, "prompt", prompt)
    saved: list[list[Pair]] = []
    found = review(pairs, save=lambda changed: saved.append(list(changed)))
    return found, saved


def test_keep_drop_edit_and_quit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found, saved = reviewed(monkeypatch, ["", "nonsense", "d", "e", "When was it?", ""])
    assert [pair.keep for pair in found] == [True, False, False, True]
    assert found[2].reason == "dropped"
    assert (found[3].question, found[3].answers) == ("When was it?", ("911",))
    assert found[1] == PAIRS[1]
    assert saved[-1] == found
    assert len(saved) == 3
    told = capsys.readouterr()
    assert told.out == ""
    assert "1 of 3  n.txt" in told.err
    assert "\x1b[2J" not in told.err
    assert "'nonsense' is none of these" in told.err


def test_a_review_goes_on_where_it_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    found, saved = reviewed(monkeypatch, ["k", "q"])
    assert len(saved) == 1
    again, _ = reviewed(monkeypatch, ["d", "d"], found)
    assert [pair.keep for pair in again] == [True, False, False, False]


def test_the_end_of_input_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(typer.Abort):
        reviewed(monkeypatch, ["k"])
