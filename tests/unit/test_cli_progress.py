"""Progress: bars only for a person at a terminal, elsewhere a line now and then."""

from __future__ import annotations

import io

import pytest
from cli_fakes import ANSWER

from rag.cli import progress
from rag.types import Progress, Step


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_at(*ticks: tuple[float, Progress]) -> list[str]:
    """What is printed when each tick comes at its second."""
    now = [0.0]
    lines: list[str] = []
    show = progress.PlainLines(lines.append, clock=lambda: now[0])
    for second, tick in ticks:
        now[0] = second
        show(tick)
    return lines


def test_short_work_is_silent() -> None:
    assert lines_at(*[(i / 10, Progress("encode", i, 19)) for i in range(20)]) == []


def test_long_work_gets_a_line_at_most_every_ten_seconds() -> None:
    lines = lines_at(*[(i / 10, Progress("encode", i, 1000)) for i in range(1000)])
    assert len(lines) == 10
    assert lines[0] == "encode: 20 of 1,000 chunks (2%), 1 min 38 s left"
    assert lines[1] == "encode: 120 of 1,000 chunks (12%), 1 min 28 s left"


def test_a_resumed_download_is_not_counted_as_fast() -> None:
    assert lines_at((0, Progress("download", 900, 1000)), (10, Progress("download", 910, 1000))) == [
        "download: 910 of 1,000 chunks (91%), 1 min 30 s left"]


def test_a_line_tells_of_every_stage_under_way() -> None:
    lines = lines_at((0, Progress("files", 0, 10, "files")), (1, Progress("encode", 5)),
                     (5, Progress("files", 5, 10, "files")), (15, Progress("encode", 9)),
                     (20, Progress("files", 10, 10, "files")), (30, Progress("encode", 20)))
    assert lines == ["encode: 5 chunks; files: 5 of 10 files (50%), 5 s left",
                     "files: 5 of 10 files (50%), 15 s left; encode: 9 chunks",
                     "encode: 20 chunks"]


def test_a_stage_that_begins_again_is_timed_anew() -> None:
    lines = lines_at((0, Progress("model", 0, 100, "bytes")), (100, Progress("model", 100, 100, "bytes")),
                     (100, Progress("model", 0, 200, "tensors")), (110, Progress("model", 100, 200, "tensors")))
    assert lines[-1] == "model: 100 of 200 tensors (50%), 10 s left"


def test_the_time_left_is_not_guessed_from_next_to_nothing() -> None:
    assert lines_at((0, Progress("download", 0, 1000)), (10, Progress("download", 9, 1000))) == [
        "download: 9 of 1,000 chunks (0%)"]


def test_unknown_totals_and_notes() -> None:
    lines = lines_at((0, Progress("encode", 0)), (3, Progress("encode", 7, note="a\x1b[2Jb.pdf")))
    assert lines == ["encode: 7 chunks, a[2Jb.pdf"]


def test_no_bar_without_a_terminal() -> None:
    stream = io.StringIO()
    with progress.shown(stream) as show:
        show(Progress("encode", 1, 2))
    assert stream.getvalue() == ""


def test_no_bar_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with progress.shown(stream) as show:
        show(Progress("encode", 1, 2))
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with progress.shown(stream) as show:
        show(Progress("encode", 0, 10, note="[red]x[/]"))
        show(Progress("encode", 5, 10, note="[red]x[/]"))
        show(Progress("encode", 1, 20))     # the same stage again
        show(Progress("publish", 1))
    text = stream.getvalue()
    assert "encode" in text
    assert "1/20 chunks 5%" in text
    assert "publish" in text


def test_the_note_gives_way_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with progress.shown(stream) as show:
        show(Progress("qwen2.5-coder-1.5b-instruct", 0, 1_117_000_000, "bytes", "download"))
        show(Progress("qwen2.5-coder-1.5b-instruct", 431_000_000, 1_117_000_000, "bytes", "download " + "x" * 99))
    assert "qwen2.5-coder-1.5b-instruct" in stream.getvalue()
    assert "431/1,117 MB 38%" in stream.getvalue()


def test_bars_honour_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    with progress.shown(stream) as show:
        show(Progress("encode", 5, 10))
    assert "\x1b[3" not in stream.getvalue().replace("\x1b[3A", "")


def test_the_spinner_tells_what_comes_next_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    spinner = progress.Waiting("opening", stream)
    for step in (*ANSWER.trace, Step("unheard of", 0.1)):
        spinner.on_step(step)
    spinner.stop()
    spinner.stop()
    assert "checking" in stream.getvalue()
    assert "\x1b[?25h" in stream.getvalue()  # the cursor is back


def test_no_spinner_without_a_terminal() -> None:
    stream = io.StringIO()
    spinner = progress.Waiting("opening", stream)
    spinner.on_step(Step("retrieve", 0.1))
    spinner.stop()
    assert stream.getvalue() == ""
